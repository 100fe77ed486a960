"""The layers of the house (docs/architecture.md): imports go down, or sideways without cycles, and the core is pure.

The rules read the source, so they hold for imports inside functions too; those for type checking only are free.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import multi_agent_scheduler

PACKAGE: Final = "multi_agent_scheduler"

# From the bottom to the top: the modules and packages of each layer. "" is the package itself, the facade.
LAYERS: Final = (
    ("__about__", "errors", "records", "request", "schema", "task"),
    ("scheduling", "views", "wire"),
    ("blocking", "buffering", "events", "metrics", "pacing", "store"),
    ("agents",),
    (
        *("accounts", "execution", "gate", "handles", "notices", "plans", "reading", "recovery", "roster", "runner"),
        *("scheduler", "structured", "submission", "telemetry"),
    ),
    ("cli", "config", "conformance", "integrations", "planfile", "server", "testing"),
    ("", "__main__"),
)
LAYER_OF: Final = {name: number for number, names in enumerate(LAYERS) for name in names}

PURE: Final = LAYERS[0] + LAYERS[1]
"""No event loop, clock, chance, file or network here: time and seeds are arguments."""

# fmt: off
IMPURE: Final = frozenset({
    "asyncio", "concurrent", "contextvars", "datetime", "http.client", "http.server", "importlib", "io.open",
    "locale", "logging", "mmap", "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys",
    "tempfile", "threading", "time", "urllib.request", "uuid", "zoneinfo",
})
# fmt: on
PURE_PARTS: Final = frozenset({"time.gmtime", "time.strftime"})  # `from time import gmtime`: of a time that is given
IMPURE_CALLS: Final = frozenset({"open", "print", "input", "breakpoint"})

# What is not in the standard library is imported inside a function, where it is used, and only in the modules named
# here: importing this package costs no more than msgspec and asyncio, and every foreign library has one seam.
EVERYWHERE: Final = frozenset({"msgspec"})
ADAPTERS: Final = ("integrations",)
"""Each module here is for users of one framework, has it at the top, and is imported by nobody else."""
SEAMS: Final = {
    "apsw": ("store.engine",),
    "flask": ("integrations.flask",),
    "httptools": ("agents.connection",),
    "opentelemetry": ("telemetry",),
    "pydantic": ("schema.models",),
    "pydantic_core": ("schema.models",),
    "rich": ("cli",),
    "starlette": ("integrations.fastapi",),
    "uvicorn": ("server.process",),
    "uvloop": ("server.process",),
    "yaml": ("planfile",),
    "xllamacpp": ("agents.local",),
    "zstandard": ("server.compression",),
}

# Where a function may import from the package itself: module attributes made on first use (PEP 562), and the command
# line, which reads its arguments before it loads what they ask for.
DEFERRING_FUNCTIONS: Final = frozenset({"__getattr__"})
DEFERRING_MODULES: Final = ("cli", "__main__")


class Import(NamedTuple):
    """One import of one module. ``target`` is a name inside the package if ``internal``; ``function`` it stands in."""

    module: str
    line: int
    target: str
    internal: bool
    function: str | None

    def __str__(self) -> str:
        return f"{self.module or PACKAGE}:{self.line} imports {self.target or PACKAGE}"


def within(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


class House:
    """The imports of a package, read from its source."""

    def __init__(self, root: Path) -> None:
        self.trees: dict[str, ast.Module] = {}
        self.packages: set[str] = set()
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
                self.packages.add(".".join(parts))
            self.trees[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"), str(path))
        self.imports = [found for module, tree in self.trees.items() for found in self._read(module, tree.body)]

    def _read(self, module: str, nodes: Iterable[ast.AST], function: str | None = None) -> Iterator[Import]:
        for child in nodes:
            if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
                yield from self._read(module, child.orelse, function)
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    head, _, rest = alias.name.partition(".")
                    inside = head == PACKAGE
                    yield Import(module, child.lineno, rest if inside else alias.name, inside, function)
            elif isinstance(child, ast.ImportFrom):
                yield from self._read_from(module, child, function)
            else:
                inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
                yield from self._read(module, ast.iter_child_nodes(child), inner)

    def _read_from(self, module: str, node: ast.ImportFrom, function: str | None) -> Iterator[Import]:
        parts = node.module.split(".") if node.module else []
        if node.level:
            here = module.split(".") if module else []
            up = node.level - (module in self.packages)
            parts = here[: len(here) - up] + parts
        elif parts[0] == PACKAGE:
            del parts[0]
        else:
            for alias in node.names:
                yield Import(module, node.lineno, f"{node.module}.{alias.name}", False, function)
            return
        for alias in node.names:
            named = ".".join([*parts, alias.name])
            yield Import(module, node.lineno, named if named in self.trees else ".".join(parts), True, function)

    # --- the rules: each gives what breaks it ---

    def unplaced(self) -> list[str]:
        return [f"{name}: give it a place in LAYERS" for name in self.trees if name.partition(".")[0] not in LAYER_OF]

    def upward(self) -> list[str]:
        def layer(name: str) -> int:
            return LAYER_OF.get(name.partition(".")[0], len(LAYERS))

        return [
            f"{it}: layer {layer(it.module)} may not know layer {layer(it.target)}"
            for it in self.imports
            if it.internal and layer(it.target) > layer(it.module)
        ]

    def cycles(self) -> list[str]:
        edges: dict[str, set[str]] = {module: set() for module in self.trees}
        for it in self.imports:
            if it.internal and it.function not in DEFERRING_FUNCTIONS and it.target in edges:
                edges[it.module].add(it.target)
        done: set[str] = set()
        found: list[str] = []

        def visit(module: str, path: list[str]) -> None:
            if module in path:
                found.append(" -> ".join([*path[path.index(module) :], module]))
            elif module not in done:
                for target in sorted(edges[module]):
                    visit(target, [*path, module])
                done.add(module)

        for module in self.trees:
            visit(module, [])
        return found

    def impure(self) -> list[str]:
        found = [
            f"{it}: this layer is pure"
            for it in self.imports
            if not it.internal and within(it.module, PURE) and within(it.target, IMPURE) and it.target not in PURE_PARTS
        ]
        for module, tree in self.trees.items():
            if within(module, PURE):
                found += [
                    f"{module}:{node.lineno} calls {node.func.id}: this layer is pure"
                    for node in ast.walk(tree)
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
                ]
        return found

    def foreign(self) -> list[str]:
        found = []
        for it in self.imports:
            library = it.target.partition(".")[0]
            if it.internal or library in EVERYWHERE or library in sys.stdlib_module_names:
                continue
            if not within(it.module, SEAMS.get(library, ())):
                found.append(
                    f"{it}: {library} is imported only in {' and '.join(SEAMS.get(library, ())) or 'no module'}"
                )
            elif it.function is None and not within(it.module, ADAPTERS):
                found.append(f"{it}: {library} is imported inside the function that uses it")
        return found

    def deferred(self) -> list[str]:
        return [
            f"{it} inside {it.function}(): imports of the package itself stand at the top of a module"
            for it in self.imports
            if it.internal
            and it.function is not None
            and it.function not in DEFERRING_FUNCTIONS
            and not within(it.module, DEFERRING_MODULES)
        ]


HOUSE: Final = House(Path(multi_agent_scheduler.__file__).parent)


def test_every_module_has_a_layer() -> None:
    assert HOUSE.unplaced() == []


def test_the_architecture_page_has_the_same_layers() -> None:
    page = Path(__file__).parent.parent / "docs" / "architecture.md"
    rows = re.findall(r"^\| (\d) \| (.+?) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name.rstrip("/"): int(number) for number, names in rows for name in re.findall(r"`([\w/]+)`", names)}
    there = {name.partition(".")[0] for name in HOUSE.trees}
    assert told == {name: number for name, number in LAYER_OF.items() if name in there and name.isalpha()}


def test_imports_go_down() -> None:
    assert HOUSE.upward() == []


def test_there_are_no_cycles() -> None:
    assert HOUSE.cycles() == []


def test_the_core_is_pure() -> None:
    assert HOUSE.impure() == []


def test_foreign_libraries_stay_behind_their_seams() -> None:
    assert HOUSE.foreign() == []


def test_the_package_imports_itself_at_the_top_of_its_modules() -> None:
    assert HOUSE.deferred() == []


def test_the_rules_find_what_breaks_them(tmp_path: Path) -> None:
    """A house with one of each fault, so that a rule that finds nothing has looked."""
    for name, source in {
        "__init__.py": "from .task import Task\ndef __getattr__(name):\n    from .agents import base",
        "errors.py": "import typing\nif typing.TYPE_CHECKING:\n    from .task import Task\nelse:\n    import time",
        "task.py": "from . import errors\nfrom .wire.sse import Event",
        "wire/__init__.py": "",
        "wire/sse.py": "from os import path\nimport multi_agent_scheduler.scheduler\nopen(path)",
        "scheduler.py": "def run():\n    import httptools\n    from .runner import run",
        "runner.py": "import multi_agent_scheduler.agents.base\nfrom multi_agent_scheduler.scheduler import run",
        "agents/__init__.py": "from .base import Agent\nfrom .. import Task",
        "agents/base.py": "import msgspec",
        "agents/local.py": "import xllamacpp\ndef load():\n    import xllamacpp",
        "agents/connection.py": "async def connect():\n    from httptools import HttpResponseParser",
        "cli.py": "def main():\n    from .scheduler import run\n    import rich.console",
        "odds.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    house = House(tmp_path)
    assert house.unplaced() == ["odds: give it a place in LAYERS"]
    assert house.upward() == [
        f"agents:2 imports {PACKAGE}: layer 3 may not know layer 6",
        "task:2 imports wire.sse: layer 0 may not know layer 1",
        "wire.sse:2 imports scheduler: layer 1 may not know layer 4",
    ]
    assert house.cycles() == ["scheduler -> runner -> scheduler"]
    assert house.impure() == [
        "errors:5 imports time: this layer is pure",
        "wire.sse:1 imports os.path: this layer is pure",
        "wire.sse:3 calls open: this layer is pure",
    ]
    assert house.foreign() == [
        "agents.local:1 imports xllamacpp: xllamacpp is imported inside the function that uses it",
        "scheduler:2 imports httptools: httptools is imported only in agents.connection",
    ]
    assert house.deferred() == [
        "scheduler:3 imports runner inside run(): imports of the package itself stand at the top of a module"
    ]
