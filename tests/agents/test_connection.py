"""HTTP answers as they come off a socket: framing, bounds, cuts, back-pressure; and the pool that keeps connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.agents.connection import READ_SIZE, BadResponse, ConnectError, Connection, Cut, Origin
from multi_agent_scheduler.agents.moderation import Moderation
from multi_agent_scheduler.agents.pool import Pool, pool

from .server import LAST, Peer, Provider, Step, answer, chunk, cut, eventually, flood, head, reset


class FakeTransport(asyncio.Transport):
    """Records what a connection does to its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False
        self.paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Wire:
    """A connection without a socket: what the server says is put straight into it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, moderation: Moderation | None = None) -> None:
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.transport = FakeTransport()
        self.moderation: Any = moderation or Moderation(loop)
        self.connection = Connection(loop, self.buffer, self.moderation)
        self.connection.connection_made(self.transport)

    def say(self, data: bytes) -> None:
        for start in range(0, len(data), READ_SIZE):
            piece = data[start : start + READ_SIZE]
            into = self.connection.get_buffer(-1)
            into[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))

    def end(self, error: Exception | None = None) -> None:
        if error is None:
            assert not self.connection.eof_received()
        self.connection.connection_lost(error)

    def all(self) -> tuple[bytes, Exception | None]:
        """The body that can be taken, and the error that follows it."""
        body = b""
        try:
            while data := self.connection.take():
                body += data
        except (Cut, BadResponse, ConnectError) as error:
            return body, error
        return body, None


@pytest.fixture
def wire(event_loop_for_wire: asyncio.AbstractEventLoop) -> Wire:
    return Wire(event_loop_for_wire)


@pytest.fixture(scope="module")
def event_loop_for_wire() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


# --- framing --------------------------------------------------------------------------------------------------------

BODY = b"data: one\n\ndata: two\n\n"
WHOLE = {
    "chunked": b"".join(answer([BODY[:11], BODY[11:]])),
    "length": b"".join(answer(BODY, framing="length")),
    "chunked with trailers": head() + chunk(BODY) + b"0\r\nX-Sum: 1\r\n\r\n",
    "behind interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    + b"".join(answer(BODY)),
}


@pytest.mark.parametrize("spelling", WHOLE)
def test_a_body_is_the_same_at_every_split(spelling: str, event_loop_for_wire: asyncio.AbstractEventLoop) -> None:
    raw = WHOLE[spelling]
    for at in range(len(raw) + 1):
        wire = Wire(event_loop_for_wire)
        wire.say(raw[:at])
        wire.say(raw[at:])
        assert wire.all() == (BODY, None)
        assert wire.connection.status == 200
        assert wire.connection.complete
        assert wire.connection.reusable


@given(st.data())
def test_a_body_is_the_same_however_it_is_cut_and_taken(data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=400))
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=50), max_size=8)) or [body]
    whole = b"".join(pieces)
    raw = b"".join(answer(pieces))
    loop = asyncio.new_event_loop()
    try:
        wire, got, start = Wire(loop), b"", 0
        while start < len(raw):
            end = start + data.draw(st.integers(1, 60))
            wire.say(raw[start:end])
            start = end
            if data.draw(st.booleans()) and wire.connection.status == 200:
                got += wire.connection.take() or b""
        assert got + wire.all()[0] == whole
    finally:
        loop.close()


def test_a_body_without_framing_ends_with_the_connection(wire: Wire) -> None:
    wire.say(head(200, {"Content-Type": "text/event-stream"}) + BODY)
    assert wire.connection.take() == BODY
    assert wire.connection.take() is None
    wire.end()
    assert wire.connection.take() == b""
    assert not wire.connection.reusable


def test_a_body_without_framing_that_is_reset_is_cut(wire: Wire) -> None:
    wire.say(head(200, {}) + BODY)
    wire.end(ConnectionResetError(104, "Connection reset by peer"))
    body, error = wire.all()
    assert body == BODY
    assert isinstance(error, Cut)
    assert str(error) == "the connection closed in the middle of the answer (Connection reset by peer)"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_can_have_no_body_ends_with_its_head(wire: Wire, status: int) -> None:
    wire.say(head(status, {}))
    assert wire.connection.take() == b""
    assert wire.connection.reusable


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("error", [None, ConnectionResetError(104, "Connection reset by peer")], ids=["FIN", "RST"])
def test_what_came_before_a_cut_is_given_out_first(
    framing: str, error: Exception | None, event_loop_for_wire: asyncio.AbstractEventLoop
) -> None:
    raw = b"".join(answer([BODY[:11], BODY[11:]], framing=framing))
    for at in range(len(raw)):
        wire = Wire(event_loop_for_wire)
        wire.say(raw[:at])
        wire.end(error)
        body, raised = wire.all()
        assert BODY.startswith(body)
        assert isinstance(raised, Cut if at else ConnectError)
        assert not wire.connection.reusable


def test_a_connection_that_closes_without_a_word_says_so(wire: Wire) -> None:
    wire.end()
    with pytest.raises(ConnectError, match=r"^the server closed the connection without an answer$"):
        wire.connection.take()


# --- small pieces that wait -------------------------------------------------------------------------------------------


class Busy(Moderation):
    """A busy loop's: small pieces wait until ``ring``."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def hold(self, wake: Callable[[], None]) -> bool:
        self.waiting.append(wake)
        return True

    def ring(self) -> None:
        while self.waiting:
            self.waiting.pop()()


@pytest.fixture
def busy(event_loop_for_wire: asyncio.AbstractEventLoop) -> Wire:
    """A connection of a busy loop whose answer has begun, and whose reader has had some of it."""
    wire = Wire(event_loop_for_wire, Busy())
    wire.say(head() + chunk(b"data: one\n\n"))
    assert wire.connection.take() == b"data: one\n\n"
    wire.connection.patient = True
    return wire


def test_small_pieces_go_on_together_while_the_loop_is_busy(busy: Wire) -> None:
    arrival = busy.connection.arrival()
    for _ in range(3):
        busy.say(chunk(b"data: two\n\n"))
        assert not arrival.done()
    busy.moderation.ring()
    assert arrival.done()
    assert busy.connection.take() == b"data: two\n\n" * 3


def test_the_beginning_of_an_answer_does_not_wait(busy: Wire) -> None:
    busy.connection.patient = False
    arrival = busy.connection.arrival()
    busy.say(chunk(b"data: two\n\n"))
    assert arrival.done()


@pytest.mark.parametrize("last", [b"0\r\n\r\n", chunk(b"a" * 5000)], ids=["its end", "much at once"])
def test_what_need_not_wait_takes_along_what_does(busy: Wire, last: bytes) -> None:
    arrival = busy.connection.arrival()
    busy.say(chunk(b"data: two\n\n"))
    assert not arrival.done()
    busy.say(last)
    assert arrival.done()
    assert (busy.connection.take() or b"").startswith(b"data: two\n\n")


def test_a_cut_does_not_wait(busy: Wire) -> None:
    arrival = busy.connection.arrival()
    busy.say(chunk(b"data: two\n\n"))
    busy.end(ConnectionResetError(104, "Connection reset by peer"))
    assert arrival.done()
    body, error = busy.all()
    assert (body, type(error)) == (b"data: two\n\n", Cut)
    busy.moderation.ring()


def test_a_reader_that_left_is_not_woken(busy: Wire) -> None:
    arrival = busy.connection.arrival()
    busy.say(chunk(b"data: two\n\n"))
    arrival.cancel()
    busy.connection.close()
    busy.moderation.ring()
    assert arrival.cancelled()


# --- what is no answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what came is not an HTTP answer"),
        (b"\x16\x03\x01\x02\x00\x01", "what came is not an HTTP answer"),
        (b"\x00" * 100, "what came is not an HTTP answer"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "what came is not an HTTP answer"),
        (head(200, {"Content-Length": "5, 6"}), "what came is not an HTTP answer"),
        (head(200, {"Content-Length": "5", "Transfer-Encoding": "chunked"}), "what came is not an HTTP answer"),
        (head(200, {"Transfer-Encoding": "gzip, chunked"}), "a transfer coding that was not asked for"),
        (head(101, {"Upgrade": "websocket", "Connection": "upgrade"}), "the server switched protocols"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, "the head of the answer passed 131072 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 40_000, "the head of the answer passed 131072 bytes"),
    ],
)
def test_what_is_no_answer_is_told_apart_and_closed(wire: Wire, said: bytes, problem: str) -> None:
    wire.say(said)
    assert wire.transport.aborted
    with pytest.raises(BadResponse, match=problem):
        wire.connection.take()


@pytest.mark.parametrize(
    "endless",
    [b"5;" + b"x" * 200_000, b"0\r\nX-Trailer: " + b"x" * 200_000, b"0\r\n" + b"X: y\r\n" * 40_000],
    ids=["chunk extension", "one trailer", "many trailers"],
)
def test_framing_without_end_is_bounded(wire: Wire, endless: bytes) -> None:
    wire.say(head() + chunk(BODY))
    assert wire.connection.take() == BODY
    wire.say(endless)
    assert wire.transport.aborted
    with pytest.raises(BadResponse, match="the framing of the answer passed 131072 bytes"):
        wire.connection.take()


def test_garbage_in_the_middle_of_a_body_comes_after_what_was_good(wire: Wire) -> None:
    wire.say(head() + chunk(BODY) + b"no chunk\r\n")
    body, error = wire.all()
    assert body == BODY
    assert isinstance(error, BadResponse)


@pytest.mark.parametrize("together", [True, False])
def test_a_second_answer_that_nobody_asked_for_spoils_the_connection_only(wire: Wire, together: bool) -> None:
    raw = b"".join(answer(BODY, framing="length"))
    other = b"".join(answer(b"other", status=500, framing="length"))
    for said in [raw + other] if together else [raw, other]:
        wire.say(said)
    assert wire.all() == (BODY, None)
    assert wire.connection.status == 200
    assert not wire.connection.reusable
    assert wire.transport.aborted


def test_repeated_headers_are_joined_and_names_are_lower_case(wire: Wire) -> None:
    wire.say(b"HTTP/1.1 200 OK\r\nX-Many: a\r\nX-MANY:  b \r\nContent-Length: 0\r\n\r\n")

    async def headers() -> Any:
        return await wire.connection.head()

    assert wire.connection._loop.run_until_complete(headers())["x-many"] == "a, b"


# --- reuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "reusable"),
    [
        ({"Content-Length": "0"}, True),
        ({"Content-Length": "0", "Connection": "keep-alive"}, True),
        ({"Content-Length": "0", "Connection": "close"}, False),
    ],
)
def test_a_connection_is_used_again_unless_the_server_will_close_it(
    wire: Wire, headers: dict[str, str], reusable: bool
) -> None:
    wire.say(head(200, headers))
    assert wire.connection.take() == b""
    assert wire.connection.reusable is reusable


def test_http_1_0_is_not_kept_open(wire: Wire) -> None:
    wire.say(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert wire.connection.take() == b""
    assert not wire.connection.reusable


def test_a_reused_connection_has_forgotten_the_last_answer(wire: Wire) -> None:
    for status, body in ((500, b"first"), (200, BODY)):
        wire.connection.reset()
        assert wire.connection.status == 0
        wire.say(b"".join(answer(body, status=status)))
        assert wire.connection.status == status
        assert wire.all() == (body, None)
        assert wire.connection.reusable


# --- back-pressure --------------------------------------------------------------------------------------------------


def test_a_reader_that_does_not_read_stops_the_reading(wire: Wire) -> None:
    wire.say(head())
    piece = chunk(b"x" * 10_000)
    said = 0
    while not wire.transport.paused:
        wire.say(piece)
        said += 10_000
        assert said < 400_000
    assert wire.connection.take() == b"x" * said
    assert not wire.transport.paused


# --- on real sockets ------------------------------------------------------------------------------------------------


async def connected(provider: Provider) -> tuple[Pool, Connection, Origin]:
    origin = Origin("http", "127.0.0.1", provider.port)
    return pool(), await pool().connect(origin), origin


REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


async def body_of(connection: Connection) -> bytes:
    pieces = []
    while (data := connection.take()) != b"":
        if data is None:
            await connection.arrival()
        else:
            pieces.append(data)
    return b"".join(pieces)


async def test_memory_is_bounded_when_nobody_reads() -> None:
    total = 64 * 1024 * 1024
    piece = chunk(b"x" * 65_536)
    async with Provider([head(), flood(piece, total // 65_536), LAST]) as provider:
        used, connection, _ = await connected(provider)
        await connection.send(REQUEST, b"{}")
        await connection.head()
        peer = provider.peers[0]
        await eventually(lambda: not connection._transport.is_reading() and not peer.writable.is_set())
        held = peer.sent
        assert held < total // 4  # what fits into the two sockets' buffers and ours
        assert len(await body_of(connection)) == total
        assert peer.sent > held
        await used.aclose()


async def test_a_big_request_waits_for_a_slow_server_and_hears_an_early_answer() -> None:
    async with Provider([b""]) as provider:
        used, connection, _ = await connected(provider)
        sending = asyncio.ensure_future(connection.send(REQUEST.replace(b": 2", b": 99999999"), b"x" * 99_999_999))
        await eventually(lambda: provider.peers)
        peer = provider.peers[0]
        peer.transport.pause_reading()
        assert not sending.done()
        for step in answer(b"too large", status=413, framing="length"):
            peer.transport.write(step)
        async with asyncio.timeout(5):
            await sending
            await connection.head()
        assert connection.status == 413
        assert not connection.reusable
        await used.aclose()


@pytest.mark.parametrize("how", [cut, reset], ids=["FIN", "RST"])
async def test_an_end_of_the_connection_wakes_who_waits(how: Callable[[Peer], Any]) -> None:
    gate = asyncio.Event()
    async with Provider([head(), chunk(BODY), gate, how]) as provider:
        used, connection, _ = await connected(provider)
        await connection.send(REQUEST, b"{}")
        await connection.head()
        while (data := connection.take()) is None:
            await connection.arrival()
        assert data == BODY
        gate.set()
        with pytest.raises(Cut):
            await asyncio.wait_for(body_of(connection), 5)
        await used.aclose()


async def test_closing_ends_the_connection_before_the_loop_turns() -> None:
    never = asyncio.Event()
    async with Provider([head(), never]) as provider:
        used, connection, _ = await connected(provider)
        await connection.send(REQUEST, b"{}")
        await connection.head()
        opened = provider.peers[0].transport.get_extra_info("socket")
        peek = socket.socket(fileno=socket.dup(opened.fileno()))
        try:
            connection.close()
            peek.settimeout(5)
            assert peek.recv(1, socket.MSG_PEEK) == b""
        finally:
            peek.close()
        await used.aclose()


async def test_an_idle_connection_is_used_again_and_a_closed_one_is_not() -> None:
    async with Provider(answer(BODY), [*answer(BODY), cut]) as provider:
        used, connection, origin = await connected(provider)
        for _ in range(2):
            await connection.send(REQUEST, b"{}")
            await connection.head()
            assert await body_of(connection) == BODY
            used.release(origin, connection)
            if not connection.lost:
                assert (used.idle(origin) is connection) is (not connection.lost)
        await eventually(lambda: connection.lost)
        assert used.idle(origin) is None
        await used.aclose()


async def test_a_connection_whose_answer_is_about_to_end_is_waited_for() -> None:
    gate = asyncio.Event()
    async with Provider([head(), chunk(BODY), gate, LAST]) as provider:
        used, connection, origin = await connected(provider)
        await connection.send(REQUEST, b"{}")
        await connection.head()
        used.release(origin, connection)
        assert used.idle(origin) is None
        gate.set()
        await eventually(lambda: connection.complete)
        assert used.idle(origin) is connection
        await used.aclose()


async def test_a_connection_whose_answer_does_not_end_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multi_agent_scheduler.agents.pool._LINGER_SECONDS", 0.01)
    steps: list[Step] = [head(), chunk(BODY), asyncio.Event()]
    async with Provider(steps) as provider:
        used, connection, origin = await connected(provider)
        await connection.send(REQUEST, b"{}")
        await connection.head()
        used.release(origin, connection)
        async with asyncio.timeout(5):
            await provider.peers[0].closed.wait()
        await used.aclose()


async def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multi_agent_scheduler.agents.pool._IDLE_SECONDS", 0.02)
    async with Provider(answer(BODY)) as provider:
        used, connection, origin = await connected(provider)
        await connection.send(REQUEST, b"{}")
        await connection.head()
        await body_of(connection)
        used.release(origin, connection)
        async with asyncio.timeout(5):
            await provider.peers[0].closed.wait()
        assert used.idle(origin) is None
        await used.aclose()


async def test_a_pool_is_the_loops_own_and_closes_with_it() -> None:
    first = pool()
    assert pool() is first
    await first.aclose()
    assert pool() is not first
    await pool().aclose()


def test_loops_that_were_closed_by_hand_are_forgotten() -> None:
    from multi_agent_scheduler.agents import pool as module

    async def make() -> None:
        pool()

    loops = [asyncio.new_event_loop() for _ in range(3)]
    for loop in loops:
        loop.run_until_complete(make())
        loop.close()
    assert len([loop for loop in loops if loop in module._pools]) == 1
    asyncio.run(make())
    assert not [loop for loop in loops if loop in module._pools]


@pytest.mark.parametrize("port_state", ["closed"])
async def test_a_port_where_nobody_listens(port_state: str) -> None:
    with socket.socket() as held:  # bound and not listening: nobody else can take it meanwhile
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(ConnectError, match=rf"^127\.0\.0\.1:{port} did not accept the connection"):
            await pool().connect(Origin("http", "127.0.0.1", port))
    await pool().aclose()


async def test_a_host_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()

    async def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(loop, "getaddrinfo", unknown)
    with pytest.raises(ConnectError, match=r"^the host 'no\.such\.host' could not be found$"):
        await pool().connect(Origin("http", "no.such.host", 80))
    await pool().aclose()


async def test_both_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    async with Provider(answer(BODY)) as provider:

        async def two(host: str, port: int, **kwargs: Any) -> Any:
            stream = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            refused = (socket.AF_INET, *stream, ("127.0.0.2", 9))
            return [refused, (socket.AF_INET, *stream, ("127.0.0.1", port))]

        monkeypatch.setattr(loop, "getaddrinfo", two)
        connection = await pool().connect(Origin("http", "provider.test", provider.port))
        assert not connection.lost
        await pool().aclose()
