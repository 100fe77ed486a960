"""Where a provider is: base URLs, proxies and TLS."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import InvalidConfiguration
from .connection import Origin, Proxy

if TYPE_CHECKING:
    import ssl

__all__ = ["Address", "Tls", "environment_proxy", "parse_proxy"]

_PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    """A parsed base URL."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @classmethod
    def parse(cls, url: str, what: str) -> Address:
        """Read a base URL; ``what`` names it in the :class:`InvalidConfiguration` that a bad one raises."""
        if not isinstance(url, str):
            raise InvalidConfiguration(f"{what} must be a string, not {type(url).__name__}")
        if any(char <= " " or char == "\x7f" for char in url.strip()):
            raise InvalidConfiguration(f"{what} must be a URL such as https://host/v1: it has white space inside")
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise InvalidConfiguration(f"{what} is no URL: {error}") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise InvalidConfiguration(f"{what} must be a URL such as https://host/v1, not {_shown(url)!r}")
        if parts.username or parts.password:
            raise InvalidConfiguration(f"{what} must not contain a user or a password: pass api_key= or headers=")
        if port == 0:
            raise InvalidConfiguration(f"{what} is no URL: nothing can listen on port 0")
        host, path = _host(parts.hostname, what), _ascii(parts.path.rstrip("/"))
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], path, _ascii(parts.query))

    @property
    def shown(self) -> str:
        """The address for people: without a query, which may hold a key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def origin(self, via: Proxy | None, tls: Tls) -> Origin:
        """The origin to connect to."""
        return Origin(self.scheme, self.host, self.port, via, tls.context() if self.scheme == "https" else None)

    def target(self, path: str, origin: Origin) -> str:
        """The request target for a path below this address."""
        if self.query:
            path, _, query = path.partition("?")
            path += f"?{self.query}" + (f"&{query}" if query else "")
        target = self.path + path
        if origin.proxy is not None and self.scheme == "http":  # RFC 9112, 3.2.2: a proxy is sent the whole URL
            return f"http://{origin.authority}{target}"
        return target


class Tls:
    """Whom to trust and how to identify; the context is made on first use and shared by all with the same settings."""

    _shared: dict[tuple[object, ...], ssl.SSLContext] = {}  # noqa: RUF012

    def __init__(self, *, ca: str | None, client_cert: str | Sequence[str] | None) -> None:
        files = (client_cert,) if isinstance(client_cert, str) else client_cert if client_cert is not None else ()
        if (
            not isinstance(files, list | tuple)
            or len(files) > 2
            or not all(isinstance(file, str) for file in (*files, ca or ""))
        ):
            raise InvalidConfiguration("ca is the name of a file, client_cert of one or of two (certificate, key)")
        self._ca = ca
        self._cert = tuple(files)

    def context(self) -> ssl.SSLContext:
        """Raises :class:`InvalidConfiguration` if a file cannot be read."""
        key = (self._ca, self._cert)
        found = self._shared.get(key)
        if found is None:
            found = self._shared[key] = self._make()
        return found

    def _make(self) -> ssl.SSLContext:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise InvalidConfiguration(f"ca: {self._ca!r} cannot be read as CA certificates ({error})") from None
        if self._cert:
            try:
                # Without a password here, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self._cert[0], self._cert[1] if len(self._cert) > 1 else None, password="")
            except (OSError, ssl.SSLError) as error:
                names = " and ".join(map(repr, self._cert))
                raise InvalidConfiguration(f"client_cert: {names} cannot be used ({error})") from None
        context.set_alpn_protocols(["http/1.1"])
        return context


def _host(name: str, what: str) -> str:
    """The host as it is looked up (RFC 5890). It goes into a header too: nothing but a name or an address may pass."""
    try:
        host = name.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not host or not all(char.isalnum() or char in "-._:%" for char in host):
        raise InvalidConfiguration(f"{what}: the host {name!r} is no name")
    return host


def parse_proxy(url: str, what: str) -> Proxy | None:
    """Read a proxy's URL; "" is none. ``what`` names it in the :class:`InvalidConfiguration` that a bad one raises."""
    if not isinstance(url, str):
        raise InvalidConfiguration(f"{what} must be a string, not {type(url).__name__}")
    if not url:
        return None
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise InvalidConfiguration(f"{what} is no URL: {error}") from None
    if parts.scheme != "http" or not parts.hostname:
        raise InvalidConfiguration(f"{what} must be a URL such as http://host:3128, not {_shown(url)!r}")
    auth = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        auth = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Proxy(_host(parts.hostname, what), port, auth)


def environment_proxy(address: Address) -> Proxy | None:
    """The proxy that the environment names for an address; what runs on this machine is asked directly."""
    names = (f"{address.scheme}_proxy", "all_proxy")
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in names) or _is_loopback(address.host):
        return None
    # Heavy to import, needed by few; it knows the many spellings of no_proxy.
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    if proxy_bypass_environment(f"{address.host}:{address.port}", proxies):
        return None
    for name in names:
        url = proxies.get(name.removesuffix("_proxy"))
        if url:
            return parse_proxy(url, f"the proxy in {name.upper()}")
    return None


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.endswith(".localhost") or host.startswith("127.")


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    from urllib.parse import quote

    return quote(text, safe="/%?=&:@!$'()*+,;~-._")


def _shown(url: str) -> str:
    """A URL without what may be secret in it."""
    head, at, tail = url.rpartition("@")
    return (f"{head.partition('://')[0]}://***@{tail}" if at else url).partition("?")[0]
