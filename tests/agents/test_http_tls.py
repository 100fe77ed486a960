"""TLS with an own authority and client certificates, and proxies: tunnels and plain ones."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from multi_agent_scheduler.agents import OpenAIAgent
from multi_agent_scheduler.errors import ConnectionFailed, InvalidConfiguration

from .asking import KEY
from .proxy import LoopbackProxy
from .server import Provider, answer, chat, chunk, eventually, head


class Certificates(NamedTuple):
    ca: str
    client: str
    """Certificate and key in one file."""
    pair: tuple[str, str]
    server: ssl.SSLContext
    strict: ssl.SSLContext
    """A server's context that wants a client certificate."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder: Path = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("127.0.0.1", "provider.test")
    client = authority.issue_cert("client@example.test")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    client.private_key_pem.write_to_path(folder / "client-key.pem")
    client.cert_chain_pems[0].write_to_path(folder / "client-cert.pem")
    contexts = []
    for strict in (False, True):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        if strict:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        contexts.append(context)
    return Certificates(
        str(folder / "ca.pem"),
        str(folder / "client.pem"),
        (str(folder / "client-cert.pem"), str(folder / "client-key.pem")),
        *contexts,
    )


SCRIPT = answer(chat("Hello"))


async def test_an_own_authority_is_trusted(certificates: Certificates) -> None:
    async with (
        Provider(SCRIPT, tls=certificates.server) as provider,
        OpenAIAgent(KEY, base_url=f"{provider.url}/v1", ca=certificates.ca) as agent,
    ):
        for _ in range(2):
            assert (await agent.call("Hi")).text == "Hello"
        assert len(provider.peers) == 1


async def test_a_certificate_of_a_strangers_is_refused_with_a_reason(certificates: Certificates) -> None:
    async with Provider(SCRIPT, tls=certificates.server) as provider:
        async with OpenAIAgent(KEY, base_url=f"{provider.url}/v1") as agent:
            with pytest.raises(ConnectionFailed) as caught:
                await agent.call("Hi")
        assert not provider.requests
    assert str(caught.value) == (
        f"the certificate of 127.0.0.1:{provider.port} was not accepted (unable to get local issuer certificate)"
    )
    assert not caught.value.retryable


async def test_a_certificate_for_another_name_is_refused(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Provider(SCRIPT, tls=certificates.server) as provider,
        OpenAIAgent(KEY, base_url=f"https://localhost:{provider.port}/v1", ca=certificates.ca) as agent,
    ):
        with pytest.raises(
            ConnectionFailed, match=r"certificate of localhost:\d+ was not accepted \(Hostname mismatch"
        ):
            await agent.call("Hi")


async def test_tls_where_there_is_none_says_so() -> None:
    async with (
        Provider([b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as provider,
        OpenAIAgent(KEY, base_url=f"https://127.0.0.1:{provider.port}/v1") as agent,
    ):
        closing = asyncio.ensure_future(eventually(lambda: provider.peers))
        call = asyncio.ensure_future(agent.call("Hi"))
        await closing
        provider.peers[0].transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ConnectionFailed, match=r"^no TLS connection with 127\.0\.0\.1:\d+ \("):
            await call


@pytest.mark.parametrize("form", ["one file", "two files", "none"])
async def test_a_client_certificate_is_shown_where_it_is_wanted(certificates: Certificates, form: str) -> None:
    cert = {"one file": certificates.client, "two files": certificates.pair, "none": None}[form]
    async with Provider(SCRIPT, tls=certificates.strict) as provider:
        agent = OpenAIAgent(KEY, base_url=f"{provider.url}/v1", ca=certificates.ca, client_cert=cert)
        async with agent:
            if cert is not None:
                assert (await agent.call("Hi")).text == "Hello"
            else:  # with TLS 1.3 the server says so only after the handshake
                with pytest.raises(Exception, match=r"TLS|without an answer|certificate"):
                    await agent.call("Hi")
                assert not provider.requests


def locked(key: Path, into: Path) -> str:
    from cryptography.hazmat.primitives import serialization as forms

    password = forms.BestAvailableEncryption(b"secret")
    plain = forms.load_pem_private_key(key.read_bytes(), None)
    into.write_bytes(plain.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, password))
    return str(into)


@pytest.mark.parametrize("wrong", [5, ("a", 5), ("a", "b", "c"), {"a": 1}])
def test_a_certificate_is_named_by_files(wrong: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="client_cert of one or of two"):
        OpenAIAgent(KEY, base_url="https://h/v1", client_cert=wrong)


async def test_a_key_with_a_password_is_an_error_and_no_question_on_the_terminal(
    certificates: Certificates, tmp_path: Path
) -> None:
    certificate, key = certificates.pair
    files = (certificate, locked(Path(key), tmp_path / "locked.pem"))
    agent = OpenAIAgent(KEY, base_url="https://h/v1", client_cert=files)
    with pytest.raises(InvalidConfiguration, match=r"^client_cert: .* cannot be used"):
        await agent.call("Hi")


async def test_stopping_closes_a_tls_connection_at_once(certificates: Certificates) -> None:
    script = [head(), *(chunk(event) for event in chat("Hello")[:2]), asyncio.Event()]
    async with (
        Provider(script, tls=certificates.server) as provider,
        OpenAIAgent(KEY, base_url=f"{provider.url}/v1", ca=certificates.ca) as agent,
    ):
        async for _ in agent.call_stream("Hi"):
            break
        async with asyncio.timeout(0.1):
            await provider.peers[0].closed.wait()


# --- proxies --------------------------------------------------------------------------------------------------------


async def test_a_tunnel_through_a_proxy(certificates: Certificates) -> None:
    async with (
        Provider(SCRIPT, tls=certificates.server) as provider,
        LoopbackProxy({"provider.test:443": provider.port}) as proxy,
    ):
        url = proxy.url.replace("http://", "http://me:p%40ss@")
        agent = OpenAIAgent(KEY, base_url="https://provider.test/v1", ca=certificates.ca, proxy=url)
        async with agent:
            for _ in range(2):
                assert (await agent.call("Hi")).text == "Hello"
        (asked,) = proxy.heads
    secret = base64.b64encode(b"me:p@ss").decode()
    assert asked.decode() == (
        f"CONNECT provider.test:443 HTTP/1.1\r\nHost: provider.test:443\r\nProxy-Authorization: Basic {secret}\r\n\r\n"
    )
    assert provider.requests[0].headers["host"] == "provider.test"
    assert "proxy-authorization" not in provider.requests[0].headers


async def test_a_plain_request_through_a_proxy() -> None:
    async with Provider(SCRIPT) as provider, LoopbackProxy({"provider.test:8000": provider.port}) as proxy:
        url = proxy.url.replace("http://", "http://me:pass@")
        async with OpenAIAgent(KEY, base_url="http://provider.test:8000/v1", proxy=url) as agent:
            assert (await agent.call("Hi")).text == "Hello"
        (asked,) = proxy.heads
    assert asked.startswith(
        b"POST http://provider.test:8000/v1/chat/completions HTTP/1.1\r\nhost: provider.test:8000\r\n"
    )
    assert f"proxy-authorization: Basic {base64.b64encode(b'me:pass').decode()}".encode() in asked


async def test_the_environments_proxy_is_used(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        Provider(SCRIPT, tls=certificates.server) as provider,
        LoopbackProxy({"provider.test:443": provider.port}) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with OpenAIAgent(KEY, base_url="https://provider.test/v1", ca=certificates.ca) as agent:
            assert (await agent.call("Hi")).text == "Hello"
        assert len(proxy.heads) == 1
        async with OpenAIAgent(KEY, base_url=f"{provider.url}/v1", ca=certificates.ca) as agent:
            assert (await agent.call("Hi")).text == "Hello"  # the loopback is asked directly
        assert len(proxy.heads) == 1


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "it answered with status 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops", "it answered with status 502"),
        (b"SSH-2.0-x\r\n", "what came is not an HTTP answer (Expected HTTP/, RTSP/ or ICE/)"),
    ],
)
async def test_a_tunnel_that_is_refused_says_why(refusal: bytes, reason: str) -> None:
    async with (
        LoopbackProxy({}, refusal=refusal) as proxy,
        OpenAIAgent(KEY, base_url="https://provider.test/v1", proxy=proxy.url) as agent,
    ):
        with pytest.raises(ConnectionFailed) as caught:
            await agent.call("Hi")
    where = proxy.url.removeprefix("http://")
    assert str(caught.value) == f"no tunnel through the proxy {where}: {reason}"


async def test_a_certificate_inside_a_tunnel_is_checked(certificates: Certificates) -> None:
    async with (
        Provider(SCRIPT, tls=certificates.server) as provider,
        LoopbackProxy({"other.test:443": provider.port}) as proxy,
    ):
        agent = OpenAIAgent(KEY, base_url="https://other.test/v1", ca=certificates.ca, proxy=proxy.url)
        async with agent:
            with pytest.raises(ConnectionFailed, match=r"certificate of other\.test:443 was not accepted"):
                await agent.call("Hi")


async def test_a_proxy_that_is_not_there_is_named_as_such() -> None:
    async with OpenAIAgent(KEY, base_url="https://provider.test/v1", proxy="http://127.0.0.1:9") as agent:
        with pytest.raises(ConnectionFailed, match=r"^the proxy 127\.0\.0\.1:9 did not accept the connection"):
            await agent.call("Hi")
