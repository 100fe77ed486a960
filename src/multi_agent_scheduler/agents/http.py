"""Agents that ask a provider over HTTP: their settings, and how a request is made ready to be sent."""

from __future__ import annotations

import logging
import math
import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, TypedDict, Unpack

import msgspec

from .. import __about__
from ..errors import ErrorInfo, InvalidConfiguration, InvalidOption, InvalidRequest, agent_error
from ..request import Request
from ..scheduling.provider import ProviderState
from ..task import Timeouts
from ..wire.decoder import StreamDecoder
from ..wire.portable import portable
from ..wire.redaction import reason_of
from .address import Address, Tls, environment_proxy, parse_proxy
from .base import ErrorMode, LeafAgent, Source
from .connection import Origin
from .context import Context
from .credentials import Secret, checked_headers, secrets_of
from .exchange import Exchange, answered, head_of
from .pool import close_for, pool
from .settings import check_count, check_settings, check_unknown

__all__ = ["Auth", "HttpAgent", "HttpSettings"]

_log = logging.getLogger(__name__)

Auth: TypeAlias = Callable[[], Awaitable[str]]
"""An async callable that gives a token; asked before each request, so that a token may expire."""


class HttpSettings(TypedDict, total=False):
    """The keywords that every HTTP agent takes, beside ``api_key``, ``model`` and ``base_url``.

    ``auth``: an async callable that gives the token, instead of a key. ``headers``: more headers for every request.
    ``ca``: a file of CA certificates to trust instead of the system's. ``client_cert``: a PEM file, or (certificate,
    key) files. ``proxy``: a proxy's URL; the default is the environment's (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY,
    NO_PROXY) when the agent is first used, "" is none. ``max_concurrent``: Calls at once inside a scheduler.
    ``max_response_bytes``: of one answer. ``defaults``: options for every call.
    """

    name: str
    max_concurrent: int
    timeouts: Timeouts | None
    errors: ErrorMode
    auth: Auth | None
    headers: Mapping[str, str] | None
    ca: str | None
    client_cert: str | tuple[str, str] | None
    proxy: str | None
    max_response_bytes: int
    defaults: Mapping[str, Any] | None


class _Settings(msgspec.Struct, kw_only=True):
    name: str | None = None
    max_concurrent: int = 20
    timeouts: Timeouts | None = None
    errors: ErrorMode = "marker"
    auth: Auth | None = None
    headers: Mapping[str, str] | None = None
    ca: str | None = None
    client_cert: str | tuple[str, str] | None = None
    proxy: str | None = None
    max_response_bytes: int = 64 * 1024 * 1024
    defaults: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return "_Settings(...)"  # headers and the proxy's address may hold secrets


class HttpAgent(LeafAgent):
    """The base of the agents that speak to a provider over HTTP.

    A protocol's agent says where the defaults come from, and overrides :meth:`_exchange`, :meth:`_decode_error` and,
    where it differs, how a key travels.
    """

    default_name: ClassVar[str]
    default_model: ClassVar[str | None] = None
    default_base_url: ClassVar[str | None] = None
    base_url_variable: ClassVar[str | None] = None
    key_variable: str | None = None
    needs_key: bool = True

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        **settings: Unpack[HttpSettings],
    ) -> None:
        kind = type(self).__name__
        chosen = _checked(settings, kind)
        if model is not None and not isinstance(model, str):
            raise InvalidConfiguration(f"{kind}: model must be a string, not {type(model).__name__}")
        self.name = chosen.name or self.default_name
        self.model = model or self.default_model
        self.max_concurrent = chosen.max_concurrent
        self.timeouts = chosen.timeouts
        self.errors = chosen.errors
        self.defaults = chosen.defaults or {}
        self._settings = chosen
        self._key = self._find_key(api_key)
        self.base_url = self._find_base_url(base_url)
        self._address = Address.parse(self.base_url, f"{kind}: base_url")
        self._proxy = None if chosen.proxy is None else parse_proxy(chosen.proxy, f"{kind}: proxy")
        self._tls = Tls(ca=chosen.ca, client_cert=chosen.client_cert)
        self._headers = checked_headers(chosen.headers or {})
        self._header_secrets = secrets_of(self._headers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, base_url={self.shown_url!r})"

    # --- what a protocol's agent says -----------------------------------------------------------------------------

    @abstractmethod
    def _exchange(self, request: Request) -> tuple[str, dict[str, Any], StreamDecoder]:
        """The path below base_url, the body, the decoder for the answer. Raises CallerError for what cannot be sent."""

    @abstractmethod
    def _decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        """What an answer with another status than 200 means; header names are in lower case."""

    def _key_headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry an API key. A token from ``auth`` is always sent as a bearer token."""
        return {"authorization": f"Bearer {key}"}

    def _extra_headers(self) -> Mapping[str, str]:
        """More headers of the protocol."""
        return {}

    # --- the public part ------------------------------------------------------------------------------------------

    @property
    def key_missing(self) -> str | None:
        """What is missing before this agent can be used, as a sentence; None if nothing is."""
        if not self.needs_key or self._key is not None or self._settings.auth is not None:
            return None
        variable = f" or set {self.key_variable}" if self.key_variable else ""
        return f"no API key: pass api_key={variable}"

    @property
    def shown_url(self) -> str:
        """Where this agent asks, for people: without a query, which may hold a key."""
        return self._address.shown

    async def aclose(self) -> None:
        await close_for(self)

    # --- one exchange ---------------------------------------------------------------------------------------------

    def _model(self, request: Request) -> str | None:
        return request.model or self.model

    @cached_property
    def _origin(self) -> Origin:
        via = environment_proxy(self._address) if self._settings.proxy is None else self._proxy
        return self._address.origin(via, self._tls)

    @cached_property
    def _usual_headers(self) -> Mapping[str, str]:
        return {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",  # small pieces gain nothing, and a bomb cannot be sent by accident
            "user-agent": f"multi-agent-scheduler/{__about__.VERSION}",
            **self._extra_headers(),
        }

    def check(self, request: Request) -> None:
        self._origin  # noqa: B018 - it may be that the environment's proxy or a certificate is none
        self._written(portable(request, self.protocol))

    def _written(self, request: Request) -> tuple[str, bytes, StreamDecoder]:
        if not request.messages and not request.extra:  # extra may say where they are kept
            raise InvalidRequest("the request has no messages: give it at least one")
        path, body, decoder = self._exchange(request)
        try:
            return path, msgspec.json.encode(body), decoder
        except (TypeError, ValueError, RecursionError) as error:  # ValueError: half a surrogate pair, among others
            raise InvalidOption(f"something in the request cannot be written as JSON: {error}") from None

    def _prepare(self, request: Request) -> Exchange:
        path, payload, decoder = self._written(request)
        return Exchange(
            origin=self._origin,
            target=self._address.target(path, self._origin),
            payload=payload,
            decoder=decoder,
            decode_error=self._decode_error,
            limit=self._settings.max_response_bytes,
        )

    async def _open(self, prepared: Exchange, ctx: Context) -> Source:
        missing = self.key_missing
        if missing is not None:
            raise agent_error(ErrorInfo("authentication_error", missing))
        exchange, token = prepared, await self._token()
        headers = {**self._usual_headers, **ctx.trace}
        exchange.secrets = self._header_secrets
        if token is not None:
            exchange.secrets += (token,)
            if self._settings.auth is not None:
                headers["authorization"] = f"Bearer {token.reveal()}"
            else:
                headers |= self._key_headers(token.reveal())
        used = pool()
        await used.use(self)
        connect = self._limits(ctx).connect or math.inf
        source = await answered(used, exchange, head_of(exchange, {**headers, **self._headers}), connect)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s: an answer from %s begins, request id %s", self.name, exchange.shown, source.request_id)
        return source

    def _heard(self, prepared: Exchange) -> ProviderState | None:
        return prepared.heard

    async def _token(self) -> Secret | None:
        auth = self._settings.auth
        if auth is None:
            return self._key
        try:
            return Secret(await auth(), "the token from auth()")
        except InvalidConfiguration as error:
            raise agent_error(ErrorInfo("authentication_error", str(error))) from None
        except Exception as error:
            reason = reason_of(error)
            problem = f"auth() raised {type(error).__name__}" + (f": {reason}" if reason else "")
            raise agent_error(ErrorInfo("authentication_error", problem)) from error

    def _find_key(self, given: str | None) -> Secret | None:
        if given:
            return Secret(given, f"{type(self).__name__}: api_key")
        value = os.environ.get(self.key_variable, "") if self.key_variable else ""
        return Secret(value, f"{type(self).__name__}: the key in {self.key_variable}") if value else None

    def _find_base_url(self, given: str | None) -> str:
        variable = os.environ.get(self.base_url_variable) if self.base_url_variable else None
        url = given or variable or self.default_base_url
        if not url:
            raise InvalidConfiguration(f"{type(self).__name__} needs base_url=, the address of the endpoint")
        return url


def _checked(settings: HttpSettings, kind: str) -> _Settings:
    fields = set(_Settings.__struct_fields__)
    check_unknown(kind, settings, fields | {"api_key", "base_url", "model"})
    chosen = _Settings(**settings)
    check_settings(
        errors=chosen.errors,
        timeouts=chosen.timeouts,
        max_concurrent=chosen.max_concurrent,
        defaults=chosen.defaults,
    )
    check_count("max_response_bytes", chosen.max_response_bytes)
    if chosen.auth is not None and not callable(chosen.auth):
        raise InvalidOption(f"auth must be an async callable that gives a token, not a {type(chosen.auth).__name__}")
    return chosen
