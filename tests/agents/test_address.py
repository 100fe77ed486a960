"""Where a provider is: base URLs, proxies, TLS files. Every mistake has its own sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.agents.address import Address, Tls, environment_proxy, parse_proxy
from multi_agent_scheduler.agents.connection import Origin, Proxy
from multi_agent_scheduler.errors import InvalidConfiguration

PLAIN = Tls(ca=None, client_cert=None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.com", Address("https", "api.example.com", 443, "", "")),
        ("https://api.example.com/", Address("https", "api.example.com", 443, "", "")),
        ("https://api.example.com/v1/", Address("https", "api.example.com", 443, "/v1", "")),
        (" http://127.0.0.1:8080/v1 ", Address("http", "127.0.0.1", 8080, "/v1", "")),
        ("http://[::1]:8080/v1", Address("http", "::1", 8080, "/v1", "")),
        ("HTTPS://API.Example.com/V1", Address("https", "api.example.com", 443, "/V1", "")),
        ("https://x.example/v1?tenant=a", Address("https", "x.example", 443, "/v1", "tenant=a")),
        ("https://bücher.example/v1", Address("https", "xn--bcher-kva.example", 443, "/v1", "")),
        ("https://x.example/größe", Address("https", "x.example", 443, "/gr%C3%B6%C3%9Fe", "")),
        ("http://my_host:80", Address("http", "my_host", 80, "", "")),
    ],
)
def test_a_base_url_is_read(url: str, expected: Address) -> None:
    assert Address.parse(url, "base_url") == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "base_url must be a URL such as https://host/v1, not ''"),
        ("api.example.com/v1", "base_url must be a URL such as https://host/v1, not 'api.example.com/v1'"),
        ("localhost:8080", "base_url must be a URL such as https://host/v1, not 'localhost:8080'"),
        ("ftp://example.com", "base_url must be a URL such as https://host/v1, not 'ftp://example.com'"),
        ("https://", "base_url must be a URL such as https://host/v1, not 'https://'"),
        ("https:///v1", "base_url must be a URL such as https://host/v1, not 'https:///v1'"),
        ("ftp://u:secret@h?key=k", "base_url must be a URL such as https://host/v1, not 'ftp://***@h'"),
        ("https://exa mple.com", "base_url must be a URL such as https://host/v1: it has white space inside"),
        ("https://example.com/\r\nX: y", "base_url must be a URL such as https://host/v1: it has white space inside"),
        ("https://example.com:99999", "base_url is no URL: Port out of range 0-65535"),
        ("https://example.com:port", "base_url is no URL: Port could not be cast to integer value as 'port'"),
        ("https://example.com:0", "base_url is no URL: nothing can listen on port 0"),
        ("https://[::1", "base_url is no URL: Invalid IPv6 URL"),
        ("https://user:pw@example.com", "base_url must not contain a user or a password: pass api_key= or headers="),
        ("https://exa<mple>.com", "base_url: the host 'exa<mple>.com' is no name"),
        (f"https://{'a' * 64}.com", f"base_url: the host '{'a' * 64}.com' is no name"),
        (b"https://example.com", "base_url must be a string, not bytes"),
        (None, "base_url must be a string, not NoneType"),
    ],
)
def test_what_is_no_base_url_is_refused_with_a_reason(url: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"^{re.escape(problem)}$"):
        Address.parse(url, "base_url")


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    for url in (text, f"https://{text}", f"http://h/{text}"):
        try:
            address = Address.parse(url, "base_url")
        except InvalidConfiguration:
            continue
        origin = address.origin(None, PLAIN)
        target = address.target("/chat?a=b", origin)
        line = f"POST {target} HTTP/1.1 {origin.authority}"
        assert line.isascii()
        assert line.isprintable()
        assert line.count(" ") == 3


def test_a_path_goes_below_the_base_and_queries_are_joined() -> None:
    plain = Address.parse("http://h:8000/v1", "base_url")
    assert plain.origin(None, PLAIN) == Origin("http", "h", 8000)
    assert plain.target("/chat", plain.origin(None, PLAIN)) == "/v1/chat"
    with_query = Address.parse("http://h:8000/v1?tenant=a", "base_url")
    assert with_query.target("/chat", with_query.origin(None, PLAIN)) == "/v1/chat?tenant=a"
    assert with_query.target("/chat?x=1", with_query.origin(None, PLAIN)) == "/v1/chat?tenant=a&x=1"


def test_what_is_shown_has_no_query_and_no_usual_port() -> None:
    assert Address.parse("https://h/v1?key=secret", "base_url").shown == "https://h/v1"
    assert Address.parse("http://[::1]:8080/v1", "base_url").shown == "http://[::1]:8080/v1"


# --- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", None),
        ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
        ("proxy.example:3128", Proxy("proxy.example", 3128)),
        ("http://proxy.example", Proxy("proxy.example", 80)),
        ("http://me:p%40ss@proxy.example:1", Proxy("proxy.example", 1, "Basic bWU6cEBzcw==")),
    ],
)
def test_a_proxys_url_is_read(url: str, expected: Proxy | None) -> None:
    assert parse_proxy(url, "proxy") == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("socks5://proxy:1080", "proxy must be a URL such as http://host:3128, not 'socks5://proxy:1080'"),
        ("https://u:pw@proxy", "proxy must be a URL such as http://host:3128, not 'https://***@proxy'"),
        ("http://", "proxy must be a URL such as http://host:3128, not 'http://'"),
        ("http://proxy:0x1", "proxy is no URL: Port could not be cast to integer value as '0x1'"),
        ("http://pro xy", "proxy: the host 'pro xy' is no name"),
        (5, "proxy must be a string, not int"),
    ],
)
def test_what_is_no_proxy_is_refused_with_a_reason(url: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"^{re.escape(problem)}$"):
        parse_proxy(url, "proxy")


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "https://api.example.com", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://api.example.com", "p"),
        ({"https_proxy": "http://p:1"}, "https://api.example.com", "p"),
        ({"HTTP_PROXY": "http://p:1"}, "https://api.example.com", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://api.example.com", "p"),
        ({"ALL_PROXY": "http://p:1"}, "https://api.example.com", "p"),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://p:1"}, "https://api.example.com", "p"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.com"}, "https://api.example.com", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example.com, other"}, "https://api.example.com", None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, "https://api.example.com", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example.com:8443"}, "https://api.example.com", "p"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example.com:8443"}, "https://api.example.com:8443", None),
        ({"ALL_PROXY": "http://p:1"}, "http://127.0.0.1:11434", None),
        ({"ALL_PROXY": "http://p:1"}, "http://localhost:11434", None),
        ({"ALL_PROXY": "http://p:1"}, "http://[::1]:11434", None),
    ],
)
def test_the_environments_proxy_is_used_as_elsewhere(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = environment_proxy(Address.parse(url, "base_url"))
    assert (found.host if found else None) == expected


def test_a_bad_proxy_in_the_environment_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://p:1")
    with pytest.raises(InvalidConfiguration, match=r"^the proxy in ALL_PROXY must be a URL such as http://host:3128"):
        environment_proxy(Address.parse("https://h", "base_url"))


def test_a_plain_proxy_is_sent_the_whole_url_and_a_password_is_not_shown() -> None:
    address = Address.parse("http://h/v1", "base_url")
    origin = address.origin(Proxy("p", 1, "Basic bWU6cEBzcw=="), PLAIN)
    assert address.target("/chat", origin) == "http://h:80/v1/chat"
    assert "bWU6" not in repr(origin)


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_tls_settings_are_shared_and_made_once() -> None:
    assert Tls(ca=None, client_cert=None).context() is PLAIN.context()


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_ca_file_that_is_none_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidConfiguration, match=rf"^ca: {re.escape(repr(str(path)))} cannot be read as CA"):
        Tls(ca=str(path), client_cert=None).context()


def test_a_client_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    files = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with pytest.raises(InvalidConfiguration, match=r"^client_cert: '.*cert\.pem' and '.*key\.pem' cannot be used"):
        Tls(ca=None, client_cert=files).context()


@pytest.mark.parametrize("cert", [("a", "b", "c"), ("a", 1)])
def test_a_client_certificate_is_one_file_or_two(cert: tuple[str, ...]) -> None:
    with pytest.raises(InvalidConfiguration, match=r"^ca is the name of a file, client_cert of one or of two"):
        Tls(ca=None, client_cert=cert)
