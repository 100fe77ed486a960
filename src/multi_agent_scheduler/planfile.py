"""Plans in files: YAML, TOML or JSON, with the line and the field named in every complaint.

A plan file has ``tasks``, a list of tables::

    tasks:
      - id: research
        prompt: List facts about bees           # sent as it is
      - id: draft
        template: "Write a page from: ${research}"   # ${ID} is what that task wrote
        depends_on: [research]
        agent: claude
        priority: 5
        options: {max_tokens: 400}
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from .errors import CallerError, DependencyCycle, DuplicateTask, InvalidConfiguration, InvalidOption, PlanError
from .scheduling.plan import Plan
from .task import Budget, Task, Template, Timeouts

__all__ = ["read_plan"]

_FIELDS: Final = {
    "id": str,
    "prompt": str | list,
    "template": str,
    "task_type": str,
    "agent": str,
    "depends_on": list,
    "priority": int,
    "on_failure": str,
    "timeouts": dict,
    "budget": dict,
    "schema": dict,
    "ask_again": int,
    "options": dict,
    "metadata": dict,
}
_KINDS: Final[dict[Any, str]] = {
    str: "a string",
    int: "a whole number",
    list: "a list",
    dict: "a table",
    str | list: "a string or a list of messages",
}

_TABLES: Final[dict[str, Any]] = {"timeouts": Timeouts, "budget": Budget}

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_STRING: Final = r'"(?:\\.|[^"\\\n])*"'
_JSON_TOKEN: Final = re.compile(rf"({_STRING})(\s*:)?|[{{}}\[\]]")
_TOML_TOKEN: Final = re.compile(
    rf"""\"{{3}}(?:\\.|[^\\])*?\"{{3}}(?!\")|'{{3}}.*?'{{3}}(?!')|{_STRING}|'[^'\n]*'|\#[^\n]*|[\[\]{{}}\n]""",
    re.DOTALL,
)
_HEADER: Final = re.compile(r"\s*\[(\[?)\s*tasks\s*(?:\.\s*([\w-]+)\s*(\.[^\]]*)?)?\]")  # of a task, or in one
_KEY: Final = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[=.]")

_Place: TypeAlias = tuple[int | str, ...]
_Lines: TypeAlias = Callable[[], Mapping[_Place, int]]
"""Where each thing in a file stands, down to the fields of tasks; asked for if there is something to complain of."""


def read_plan(path: Path) -> list[Task]:
    """The tasks of a plan file. Raises InvalidOption if it is no file that can be read, PlanError for what it says, and
    InvalidConfiguration if what reads it is not installed.
    """
    readers = {".yaml": _yaml, ".yml": _yaml, ".toml": _toml, ".json": _json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidOption(f"{path}: a plan file ends in .yaml, .yml, .toml or .json")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidOption(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidOption(f"{path} is not UTF-8 text (byte {error.start})") from None
    try:
        data, lines = reader(path, text)
    except RecursionError:
        raise PlanError(f"{path}: it is nested too deeply") from None
    rows = data.get("tasks") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise PlanError(f"{path}: a plan needs tasks: a list of tables, at least one")
    unknown = sorted(data.keys() - {"tasks"})
    if unknown:
        raise PlanError(f"{_place(path, lines, (unknown[0],))}: unknown field {unknown[0]!r}; a plan has tasks")
    tasks = [_task(path, lines, number, row) for number, row in enumerate(rows)]
    try:
        Plan(tasks)
    except PlanError as error:
        error.args = (f"{_place(path, lines, *_wrong(tasks, error))}: {error}",)
        raise
    return tasks


def _wrong(tasks: Sequence[Task], error: PlanError) -> Sequence[_Place]:
    """What is wrong with tasks that are right one by one: the places to name, the most exact one first."""
    numbers: dict[str, int] = {}
    for number, task in enumerate(tasks):
        if numbers.setdefault(task.id, number) != number and isinstance(error, DuplicateTask):
            return [("tasks", number, "id")]
    for number, task in enumerate(tasks):
        for index, parent in enumerate(task.depends_on):
            if (
                task.id == error.cycle[0] and parent == error.cycle[1 % len(error.cycle)]
                if isinstance(error, DependencyCycle)
                else parent not in numbers
            ):
                field = ("tasks", number, "depends_on")
                return [(*field, index), field]
    return []


def _task(path: Path, lines: _Lines, number: int, row: Any) -> Task:
    at = ("tasks", number)
    if not isinstance(row, dict):
        raise PlanError(f"{_place(path, lines, at)}: task {number + 1} must be a table, not {row!r}")
    name = f"task {row['id']!r}" if isinstance(row.get("id"), str) else f"task {number + 1}"

    def refuse(field: str, problem: str) -> PlanError:
        inside = _first_named(row[field], problem) if field in _TABLES and isinstance(row[field], dict) else None
        return PlanError(f"{_place(path, lines, (*at, field, inside or ''), (*at, field), at)}: {name}: {problem}")

    for field, value in row.items():
        kind = _FIELDS.get(field)
        if kind is None:
            raise refuse(field, f"unknown field {field!r}; the fields are {', '.join(_FIELDS)}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise refuse(field, f"{field} must be {_KINDS[kind]}, not {value!r}")
    if "id" not in row:
        raise refuse("id", "id is missing")
    if ("prompt" in row) == ("template" in row):
        raise refuse("template", "one of prompt (sent as it is) and template (with ${ID} filled in) is needed")
    try:
        return _made(row)
    except CallerError as error:
        problem = str(error).removeprefix(f"{name}: ")
        raise refuse(_first_named(row, problem) or "id", problem) from None


def _first_named(fields: Iterable[Any], problem: str) -> str | None:
    """The field that a sentence names first."""
    named = {
        field: word.start()
        for field in fields
        if isinstance(field, str) and (word := re.search(rf"\b{re.escape(field)}\b", problem))
    }
    return min(named, key=named.__getitem__, default=None)


def _made(row: dict[str, Any]) -> Task:
    fields = {key: value for key, value in row.items() if key not in ("id", "prompt", "template", *_TABLES)}
    for name, kind in _TABLES.items():
        if name in row:
            fields[name] = _table(name, row[name], kind)
    prompt = Template(row["template"]) if "template" in row else row["prompt"]
    task = Task(row["id"], prompt, **fields)
    task.check()
    return task


def _table(name: str, table: dict[str, Any], kind: Any) -> Any:
    """The structure that a table of numbers stands for."""
    for field, value in table.items():
        if field not in kind.__struct_fields__:
            known = ", ".join(kind.__struct_fields__)
            raise PlanError(f"{name}: unknown field {field!r}; the fields are {known}")
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise PlanError(f"{name}: {field} must be a number, not {value!r}")
    return kind(**table)


def _place(path: Path, lines: _Lines, *places: _Place) -> str:
    known = lines()
    line = next((known[place] for place in places if place in known), None)
    return f"{path}" if line is None else f"{path}, line {line}"


def _json(path: Path, text: str) -> tuple[Any, _Lines]:
    twice = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        table = dict(pairs)
        twice = twice or len(table) < len(pairs)
        return table

    try:
        data = json.loads(text, object_pairs_hook=members)
    except json.JSONDecodeError as error:
        raise PlanError(f"{path}, line {error.lineno}: no valid JSON: {error.msg}") from None
    if twice:
        name, start = _json_twice(text)
        raise PlanError(f"{path}, line {text.count(chr(10), 0, start) + 1}: {name!r} is there twice in one table")
    return data, lambda: _json_lines(text)


def _json_twice(text: str) -> tuple[str, int]:
    """The first key of valid JSON that its object has already, and where it stands; there is one."""
    opened: list[set[str]] = []
    for token in _JSON_TOKEN.finditer(text):
        if token[0] in "{[":
            opened.append(set())
        elif token[0] in "}]":
            opened.pop()
        elif token[2]:
            name = json.loads(token[1])
            if name in opened[-1]:
                return name, token.start()
            opened[-1].add(name)
    raise AssertionError("no key is there twice")


def _json_lines(text: str) -> dict[_Place, int]:
    breaks = [found.start() for found in re.finditer("\n", text)]
    lines: dict[_Place, int] = {}

    def note(place: _Place, start: int, depth: int) -> None:
        if not depth or text[start] not in "{[":
            return
        for name, begins, value in _members(text, start):
            lines[(*place, name)] = bisect_right(breaks, begins) + 1
            note((*place, name), value, depth - 1)

    note((), _behind_space(text, 0), 4)
    return lines


def _members(text: str, start: int) -> Iterator[tuple[int | str, int, int]]:
    """The keys of a valid JSON object, or the indexes of an array, that begins at ``start``: each with where it begins,
    and where its value does."""
    decoder, closing = json.JSONDecoder(), "}" if text[start] == "{" else "]"
    at, index = _behind_space(text, start + 1), 0
    while text[at] != closing:
        name: int | str = index
        begins = at
        if closing == "}":
            name, at = decoder.raw_decode(text, at)
            at = _behind_space(text, _behind_space(text, at) + 1)  # behind the colon
        yield name, begins, at
        at = _behind_space(text, decoder.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _behind_space(text, at + 1)
        index += 1


def _behind_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _toml(path: Path, text: str) -> tuple[Any, _Lines]:
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{path} is no valid TOML: {error}") from None
    return data, lambda: _toml_lines(text)


def _toml_lines(text: str) -> dict[_Place, int]:
    """The reader keeps no lines. Tasks that are written as inline tables have none here either."""
    lines: dict[_Place, int] = {}
    table: _Place | None = ()
    task = -1
    for number, line in _toml_statements(text):
        if header := _HEADER.match(line):
            task += header[2] is None and header[1] == "["
            place: _Place = ("tasks", task) if header[2] is None else ("tasks", task, header[2])
            lines.setdefault(place, number)
            table = None if header[3] else place
        elif line.lstrip().startswith("["):
            if '"' in line or "'" in line:
                return {}  # a name in quotes may be any: which task is which is not known
            table = None
        elif table is not None and (key := _KEY.match(line)):
            lines.setdefault((*table, key[1]), number)
    return lines


def _toml_statements(text: str) -> Iterator[tuple[int, str]]:
    """The lines of valid TOML on which a header or a key may begin: none inside of a string or a list."""
    depth, start, number = 0, 0, 1
    for token in _TOML_TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif token[0] == "\n" and not depth:
            yield number, text[start : token.start()]
            number += text.count("\n", start, token.end())
            start = token.end()
    yield number, text[start:]


def _yaml(path: Path, text: str) -> tuple[Any, _Lines]:
    try:
        import yaml
    except ImportError:
        raise InvalidConfiguration(
            f"{path}: reading YAML needs PyYAML: pip install 'multi-agent-scheduler[cli]', or write the plan as TOML"
        ) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        twice = _named_twice(node, 5)
        if twice is not None:
            line = twice.start_mark.line + 1
            raise PlanError(f"{path}, line {line}: {twice.value!r} is there twice in one table")
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise PlanError(f"{path}{line}: no valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is no valid YAML: {str(error).splitlines()[0]}") from None

    def lines() -> dict[_Place, int]:
        found: dict[_Place, int] = {}
        _note(node, (), found, 4)
        return found

    return data, lines


def _named_twice(node: Any, depth: int) -> Any:
    """The second key of a name in a YAML node, or in what is in it; the reader would take the last one silently."""
    if node is None or not depth or isinstance(node.value, str):
        return None
    names = set()
    for child in node.value:
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None and isinstance(key.value, str):
            if key.value in names:
                return key
            names.add(key.value)
        found = _named_twice(value, depth - 1)
        if found is not None:
            return found
    return None


def _note(node: Any, place: _Place, lines: dict[_Place, int], depth: int) -> None:
    """Note the lines of a YAML node and of what is in it, so deep as complaints go."""
    if node is None:
        return
    lines.setdefault(place, node.start_mark.line + 1)
    if not depth or isinstance(node.value, str):
        return
    for index, child in enumerate(node.value):
        if isinstance(child, tuple):
            key, value = child
            lines[(*place, key.value)] = key.start_mark.line + 1
            _note(value, (*place, key.value), lines, depth - 1)
        else:
            _note(child, (*place, index), lines, depth - 1)
