"""The WebSockets of a real server, spoken to by the websockets library."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from multi_agent_scheduler import EventBus, Metrics, MultiAgentScheduler
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Text, decode_record
from multi_agent_scheduler.server import Keys, Settings, make_app, sockets
from multi_agent_scheduler.server.keys import KeyLimits
from multi_agent_scheduler.server.process import Process, bound
from multi_agent_scheduler.store.base import Store
from multi_agent_scheduler.store.core import StreamSpec
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.testing import ScriptedAgent

from ..agents.server import eventually

pytest.importorskip("websockets", reason="needs websockets")

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


class Serving:
    """A server in the test's loop."""

    def __init__(self, scheduler: MultiAgentScheduler, process: Process) -> None:
        self.scheduler = scheduler
        self.process = process
        self.place = f"127.0.0.1:{process.address[1]}"

    @asynccontextmanager
    async def talk(self, path: str = "/v1/ws", **options: Any) -> AsyncIterator[Talk]:
        async with connect(f"ws://{self.place}{path}", proxy=None, **options) as connection:
            yield Talk(connection)


class Talk:
    """A client."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def ask(self, **message: Any) -> dict[str, Any]:
        await self.say(**message)
        return await self.hear()

    async def submit(self, agent: str, **fields: Any) -> str:
        """Submit a task; gives the id of its stream."""
        reply = await self.ask(type="submit", tasks=[{"id": "t", "prompt": "Hi", "agent": agent}], **fields)
        assert reply["type"] == "reply", reply
        stream_id: str = reply["streams"]["t"]
        return stream_id

    async def rest(self) -> list[dict[str, Any]]:
        """The records up to the end of the next stream that ends."""
        messages = [await self.hear()]
        while messages[-1]["type"] != "end":
            messages.append(await self.hear())
        return messages[:-1]


@asynccontextmanager
async def serving(
    agents: Mapping[str, Any],
    *,
    settings: Settings | None = None,
    keys: Keys | None = None,
    store: str | Store = "memory://",
) -> AsyncIterator[Serving]:
    metrics, bus = Metrics(), EventBus()
    async with MultiAgentScheduler(agents, store=store, metrics=metrics, event_bus=bus) as scheduler:
        settings = settings or Settings(access_log=False)
        process = Process(make_app(scheduler, settings=settings, keys=keys, metrics=metrics), bound("127.0.0.1", 0))
        running = asyncio.create_task(process.run())
        try:
            yield Serving(scheduler, process)
        finally:
            process.stop()
            await running


def records(messages: list[dict[str, Any]]) -> list[Any]:
    """What a follower of the stream would see."""
    own = ("stream_id", "cursor")
    return [
        decode_record(json.dumps({name: value for name, value in message.items() if name not in own}))
        for message in messages
    ]


# --- /v1/ws ---------------------------------------------------------------------------------------------------------


async def test_submit_and_read_on_one_connection() -> None:
    async with serving({"one": ScriptedAgent("Hello ", "<world>\n")}) as server, server.talk() as client:
        stream_id = await client.submit("one", subscribe=True, id="7")
        reply = await client.hear()
        messages = await client.rest()
        log = [record async for record in server.scheduler.follow(stream_id)]

    assert reply["type"] == "reply" and reply["id"] == "7" and reply["to"] == "subscribe"
    assert {message["stream_id"] for message in messages} == {stream_id}
    assert records(messages) == log
    assert [message["seq"] for message in messages] == list(range(1, len(log) + 1))


async def test_what_is_submitted_again_with_the_same_key_runs_once() -> None:
    agent, more = ScriptedAgent("Hello ", gate := asyncio.Event(), "you"), {"idempotency_key": "k"}
    hi = [{"id": "t", "prompt": "Hi", "agent": "one"}]
    async with serving({"one": agent}, settings=Settings(access_log=False, grace=0.01)) as server:
        async with server.talk() as client, server.talk() as other:
            first = await client.ask(type="submit", tasks=hi, subscribe=True, **more)
            assert (await client.hear())["to"] == "subscribe"
            again = await other.ask(type="submit", tasks=hi, **more)
            assert again["streams"] == first["streams"] and again["plan_id"] == first["plan_id"]
            changed = await other.ask(type="submit", tasks=[{**hi[0], "prompt": "Ho"}], **more)
            assert (changed["status"], "Idempotency-Key" in changed["detail"]) == (422, True)
            for bad in ("", "x" * 256, "a\nb", 1):
                assert (await other.ask(type="submit", tasks=hi, idempotency_key=bad))["status"] == 400
            await other.connection.close()
            await client.say(type="submit", tasks=hi, subscribe=True, **more)  # it is subscribed to already
            gate.set()
            log = await client.rest()
            assert [message["type"] for message in log].count("reply") == 1
            assert "".join(message["text"] for message in log if message["type"] == "text") == "Hello you"
        assert len(agent.requests) == 1


async def test_the_same_key_names_the_same_over_http_and_another_for_another_owner(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    anna, bert = keys.create("anna"), keys.create("bert")
    hi, more = [{"id": "t", "prompt": "Hi"}], {"idempotency_key": "k"}
    async with (
        serving({"one": ScriptedAgent("x")}, keys=keys) as server,
        server.talk(additional_headers={"x-api-key": anna}) as client,
        server.talk(additional_headers={"x-api-key": bert}) as other,
        httpx.AsyncClient(base_url=f"http://{server.place}", headers={"x-api-key": anna}) as http,
    ):
        first = await client.ask(type="submit", tasks=hi, **more)
        told = await http.post("/v1/tasks", json={"tasks": hi}, headers={"idempotency-key": "k"})
        assert told.json() == {"plan_id": first["plan_id"], "streams": first["streams"]}
        another = await other.ask(type="submit", tasks=[{**hi[0], "prompt": "Ho"}], **more)
        assert another["type"] == "reply" and another["plan_id"] != first["plan_id"]


async def test_many_streams_on_one_connection() -> None:
    gates = {name: asyncio.Event() for name in "abc"}
    agents = {name: ScriptedAgent(f"I am {name}", gate, "!") for name, gate in gates.items()}
    async with serving(agents) as server, server.talk() as client:
        tasks = [{"id": name, "prompt": "Hi", "agent": name} for name in agents]
        streams = (await client.ask(type="submit", tasks=tasks, subscribe=True))["streams"]
        texts: dict[str, str] = dict.fromkeys(streams.values(), "")
        ended: list[str] = []
        gates["c"].set()
        while len(ended) < 3:
            message = await client.hear()
            if message["type"] == "text":
                texts[message["stream_id"]] += message["text"]
            elif message["type"] == "end":
                ended.append(message["stream_id"])
                for gate in gates.values():
                    gate.set()
    assert texts == {streams[name]: f"I am {name}!" for name in agents}
    assert ended[0] == streams["c"]


async def test_each_subscription_begins_behind_its_own_cursor() -> None:
    async with serving({"one": ScriptedAgent("a", "b", "c")}) as server, server.talk() as client:
        stream_id = await client.submit("one", subscribe=True)
        await client.hear()
        first = await client.rest()
        for number, message in enumerate(first, 1):
            reply = await client.ask(type="subscribe", id=number, stream_id=stream_id, after=message["cursor"])
            assert (reply["id"], reply["cursor"]) == (number, message["cursor"])
            assert await client.rest() == first[number:]


async def test_a_reader_comes_back_after_the_connection_was_lost() -> None:
    more = asyncio.Event()
    async with serving({"one": ScriptedAgent("Hello ", more, "world")}) as server:
        async with server.talk() as client:
            stream_id = await client.submit("one", subscribe=True)
            await client.hear()
            seen = [await client.hear(), await client.hear()]
            assert seen[-1]["text"] == "Hello "
        more.set()
        async with server.talk() as client:
            await client.ask(type="subscribe", stream_id=stream_id, after=seen[-1]["cursor"])
            seen += await client.rest()
        assert records(seen) == [record async for record in server.scheduler.follow(stream_id)]


async def test_a_reader_comes_back_to_a_server_that_was_started_again(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mas.db"
    async with (
        serving({"one": ScriptedAgent("Hello ", asyncio.Event())}, store=store) as server,
        server.talk() as client,
    ):
        stream_id = await client.submit("one", subscribe=True)
        await client.hear()
        seen = [await client.hear(), await client.hear()]
    async with serving({"one": ScriptedAgent("Something else")}, store=store) as server, server.talk() as client:
        await client.ask(type="subscribe", stream_id=stream_id, after=seen[-1]["cursor"])
        seen += await client.rest()
        assert records(seen) == [record async for record in server.scheduler.follow(stream_id)]
    assert "".join(message.get("text", "") for message in seen) == "Hello "


async def test_cancel() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with serving({"one": agent}) as server, server.talk() as client:
        stream_id = await client.submit("one")
        await client.ask(type="subscribe", stream_id=stream_id)
        assert [(await client.hear())["type"], (await client.hear())["type"]] == ["call_started", "text"]
        await client.say(type="cancel", id="stop", stream_id=stream_id, reason="enough")
        heard = [await client.hear() for _ in range(4)]
        assert {"type": "reply", "id": "stop", "to": "cancel", "stream_id": stream_id, "cancelled": True} in heard
        kinds = [(message["type"], message.get("reason")) for message in heard if "seq" in message]
        assert kinds == [("call_ended", None), ("cancelled", "enough")]
        assert agent.running == 0
        assert (await client.ask(type="cancel", stream_id=stream_id))["cancelled"] is False


async def test_unsubscribe() -> None:
    more = asyncio.Event()
    async with serving({"one": ScriptedAgent("Hello ", more, "world")}) as server, server.talk() as client:
        stream_id = await client.submit("one", subscribe=True)
        for _ in range(3):
            await client.hear()
        assert (await client.ask(type="unsubscribe", stream_id=stream_id))["to"] == "unsubscribe"
        more.set()
        assert [type(record) async for record in server.scheduler.follow(stream_id)]
        assert (await client.ask(type="ping", id="x")) == {"type": "reply", "id": "x", "to": "ping"}


async def test_a_window_holds_back_what_is_not_acknowledged() -> None:
    script = [Text(str(number)) for number in range(50)]
    async with serving({"one": ScriptedAgent(script)}) as server, server.talk() as client:
        stream_id = await client.submit("one", subscribe=True, window=5)
        await client.hear()
        seen = [await client.hear() for _ in range(5)]
        assert (await client.ask(type="ping"))["to"] == "ping"  # and no record before it
        await client.say(type="acknowledge", stream_id=stream_id, seq=2)
        seen += [await client.hear(), await client.hear()]
        assert (await client.ask(type="ping"))["to"] == "ping"
        while seen[-1]["type"] != "end":
            await client.say(type="acknowledge", stream_id=stream_id, seq=seen[-1]["seq"])
            seen.append(await client.hear())
        assert records(seen[:-1]) == [record async for record in server.scheduler.follow(stream_id)]


async def test_a_subscription_has_a_pace_of_its_own() -> None:
    async with serving({"one": ScriptedAgent(*"abcdefghijk")}) as server, server.talk() as client:
        stream_id = await client.submit("one")
        log = [record async for record in server.scheduler.follow(stream_id)]
        loop = asyncio.get_running_loop()
        for pace, window, least in [("100/s", None, 0.1), ("100/s", 3, 0.1), (None, None, 0)]:
            began = loop.time()
            await client.ask(type="subscribe", stream_id=stream_id, pace=pace, window=window)
            seen = [await client.hear()]
            while seen[-1]["type"] != "end":
                await client.say(type="acknowledge", stream_id=stream_id, seq=seen[-1]["seq"])
                seen.append(await client.hear())
            assert records(seen[:-1]) == log
            assert loop.time() - began >= least
        problem = await client.ask(type="subscribe", id="1", stream_id=stream_id, pace="fast")
        assert (problem["id"], problem["status"]) == ("1", 400)
        await client.ask(type="subscribe", stream_id=stream_id, pace="1/min")
        assert [(await client.hear())["type"] for _ in range(2)] == ["call_started", "text"]
        await client.ask(type="unsubscribe", stream_id=stream_id)


async def test_open_sockets_are_counted() -> None:
    async with serving({"one": ScriptedAgent()}) as server, httpx.AsyncClient(trust_env=False) as http:

        async def metrics() -> str:
            return (await http.get(f"http://{server.place}/metrics")).text

        async with server.talk() as client, server.talk("/stream"):
            await client.ask(type="ping")
            assert "mas_server_sockets 2" in await metrics()
        while "mas_server_sockets 0" not in await metrics():
            pass


async def test_the_limits_of_a_key_hold(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    key = keys.create("anna", limits=KeyLimits(requests_per_minute=3, streams=1, pace="100/s"))
    headers = {"additional_headers": {"x-api-key": key}}
    loop = asyncio.get_running_loop()
    async with (
        serving({"one": ScriptedAgent(*"abcdefghijk")}, keys=keys) as server,
        server.talk(**headers) as client,
        server.talk("/stream", **headers) as simple,
    ):
        one, two = await client.submit("one"), await client.submit("one")
        began = loop.time()
        await client.ask(type="subscribe", stream_id=one, pace="1000/s")
        assert (await client.hear())["type"] == "call_started"
        await client.say(type="subscribe", stream_id=two)
        heard = [await client.hear() for _ in range(15)]
        assert [message["status"] for message in heard if message["type"] == "problem"] == [429]
        assert heard[-1]["type"] == "end"
        assert loop.time() - began >= 0.1

        began = loop.time()
        await simple.connection.send("Hi")
        assert [(await simple.hear())["type"] for _ in range(12)] == ["chunk"] * 11 + ["complete"]
        assert loop.time() - began >= 0.1
        await simple.connection.send("Hi")
        assert (await simple.hear())["error"]["code"] == "rate_limit_error"
        task = {"id": "t", "prompt": "Hi"}
        assert (await client.ask(type="submit", tasks=[task]))["status"] == 429


async def test_a_client_that_takes_nothing_is_read_for_from_the_log_and_slows_nobody(tmp_path: Path) -> None:
    big, script = asyncio.Event(), [[Text("x" * 1000) for _ in range(100)] for _ in range(100)]  # 10 MB
    agents = {"one": ScriptedAgent(big, *script)}
    async with serving(agents, store=f"sqlite:///{tmp_path}/mas.db") as server:
        async with server.talk(max_queue=1) as slow, server.talk() as quick:
            stream_id = await slow.submit("one", subscribe=True)
            await quick.ask(type="subscribe", stream_id=stream_id)
            big.set()
            log = await quick.rest()
            assert (await slow.hear())["type"] == "reply"
            assert await slow.rest() == log
        assert len(log) == 10_000 + 3


async def test_a_client_that_takes_nothing_of_many_streams_holds_little_of_the_servers_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[sockets._Connection] = []

    class Known(sockets._Connection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(sockets, "_Connection", Known)
    begin = asyncio.Event()
    agents = {"one": ScriptedAgent(begin, [Text("x" * 1000) for _ in range(1000)])}
    async with serving(agents) as server, server.talk(max_queue=1) as client:
        ids = [await client.submit("one", detach=True) for _ in range(20)]
        for stream_id in ids:
            await client.say(type="subscribe", stream_id=stream_id)
        await eventually(lambda: len(made[0]._subscriptions) == len(ids))
        begin.set()  # 20 MB
        await server.scheduler.wait_idle()
        await eventually(lambda: made[0].full)
        assert sum(len(message) for message, _ in made[0]._outbox) < 400 * 1024
        seqs: dict[str, list[int]] = {stream_id: [] for stream_id in ids}
        ends = 0
        while ends < len(ids):
            message = await client.hear()
            if message["type"] == "end":
                ends += 1
            elif "seq" in message:
                seqs[message["stream_id"]].append(message["seq"])
        assert made[0]._backlog == 0
    assert all(seq == list(range(1, len(seq) + 1)) and len(seq) > 1000 for seq in seqs.values())


async def test_what_was_submitted_is_cancelled_a_while_after_the_socket_has_gone() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with serving({"one": agent}, settings=Settings(access_log=False, grace=0.01)) as server:
        async with server.talk() as client:
            gone = await client.submit("one")
            detached = await client.submit("one", detach=True)
            followed = await client.submit("one")
            async with server.talk() as other:
                await other.ask(type="subscribe", stream_id=followed)
                await client.connection.close()
                last = [record async for record in server.scheduler.follow(gone)][-1]
                assert (last.__struct_config__.tag, last.reason) == ("cancelled", "its reader left")
        assert server.scheduler.find(detached).state == "running"
        assert server.scheduler.find(followed).state == "running"


async def test_who_comes_back_in_time_finds_it_running() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with serving({"one": agent}, settings=Settings(access_log=False, grace=1.0)) as server:
        async with server.talk() as client:
            stream_id = await client.submit("one")
        async with server.talk() as client, server.talk() as other:
            await client.ask(type="subscribe", stream_id=stream_id)
            gone = await other.submit("one")
            await other.connection.close()
            assert [record async for record in server.scheduler.follow(gone)]  # whose grace began later, and has ended
            assert server.scheduler.find(stream_id).state == "running"


async def test_another_owners_streams_are_not_there(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    anna, bert = keys.create("anna"), keys.create("bert")

    def with_key(key: str) -> dict[str, Any]:
        return {"additional_headers": {"Authorization": f"Bearer {key}"}}

    async with serving({"one": ScriptedAgent("Hi", asyncio.Event())}, keys=keys) as server:
        async with server.talk(**with_key(anna)) as client, server.talk(**with_key(bert)) as other:
            stream_id = await client.submit("one")
            for asked in ("subscribe", "cancel"):
                problem = await other.ask(type=asked, id="1", stream_id=stream_id)
                nobodys = await other.ask(type=asked, id="1", stream_id="f" * 32)
                assert (problem["type"], problem["status"], problem["code"]) == ("problem", 404, "not_found_error")
                assert problem["detail"].replace(stream_id, "") == nobodys["detail"].replace("f" * 32, "")
            assert server.scheduler.find(stream_id).state == "running"
        for headers in ({}, {"additional_headers": {"Authorization": "Bearer mas_wrong"}}):
            with pytest.raises(InvalidStatus) as refused:
                async with server.talk(**headers):
                    pass
            assert refused.value.response.status_code == 401
            assert json.loads(refused.value.response.body)["code"] == "authentication_error"


async def test_pages_of_other_origins_and_names_are_refused() -> None:
    async with serving({"one": ScriptedAgent("Hi")}) as server:
        for path in ("/v1/ws", "/stream"):
            async with server.talk(path, origin=f"http://{server.place}"):
                pass
            for options in ({"origin": "https://evil.example"}, {"additional_headers": {"Host": "evil.example"}}):
                with pytest.raises(InvalidStatus) as refused:
                    async with server.talk(path, **options):
                        pass
                assert refused.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as refused:
            async with server.talk("/v1/nothing"):
                pass
        assert refused.value.response.status_code == 404


@pytest.mark.parametrize(
    ("message", "status", "word"),
    [
        ({"type": "submit", "tasks": []}, 400, "at least one"),
        ({"type": "submit", "tasks": [{"id": "a"}]}, 400, "prompt"),
        ({"type": "submit", "tasks": [{"id": "a", "prompt": "Hi", "agent": "nobody"}]}, 404, "nobody"),
        ({"type": "submit", "tasks": [{"id": "a", "prompt": "Hi", "depends_on": ["b"]}]}, 409, "'b'"),
        ({"type": "submit", "tasks": [{"id": "a", "prompt": "Hi", "options": {"extra": {}}}]}, 400, "extra"),
        ({"type": "subscribe", "stream_id": "no such"}, 404, "no such"),
        ({"type": "subscribe", "stream_id": "\r\n\x00"}, 404, "no stream"),
        ({"type": "cancel", "stream_id": "no such"}, 404, "no such"),
        ({"type": "acknowledge", "stream_id": "no such", "seq": 1}, 0, ""),
    ],
)
async def test_what_cannot_be_is_told(message: dict[str, Any], status: int, word: str) -> None:
    async with serving({"one": ScriptedAgent("Hi")}) as server, server.talk() as client:
        await client.say(**message, id="7")
        if status:
            problem = await client.hear()
            assert (problem["type"], problem["id"], problem["status"]) == ("problem", "7", status)
            assert word in problem["detail"]
        assert (await client.ask(type="ping"))["to"] == "ping"


async def test_cursors_that_cannot_be() -> None:
    async with serving({"one": ScriptedAgent("Hi")}) as server, server.talk() as client:
        one, two = await client.submit("one"), await client.submit("one")
        await client.ask(type="subscribe", stream_id=two)
        other = (await client.rest())[0]["cursor"]
        for after in (other, "garbage", "-1", "99" + other[1:]):
            problem = await client.ask(type="subscribe", id="1", stream_id=one, after=after)
            assert (problem["type"], problem["status"], problem["stream_id"]) == ("problem", 400, one)
        assert (await client.ask(type="subscribe", stream_id=one))["type"] == "reply"


async def test_subscriptions_are_counted(tmp_path: Path) -> None:
    settings = Settings(access_log=False, max_streams=2)
    agents = {"one": ScriptedAgent("Hi", asyncio.Event()), "quick": ScriptedAgent("Hi")}
    async with serving(agents, settings=settings) as server:  # noqa: SIM117
        async with server.talk() as client, server.talk() as other, server.talk() as third:
            over = await third.submit("quick")
            await server.scheduler.wait_idle()
            streams = [await third.submit("one"), await third.submit("one"), over]
            for stream_id in streams[:2]:
                assert (await client.ask(type="subscribe", stream_id=stream_id))["type"] == "reply"
                for _ in range(2):
                    await client.hear()
            assert (await client.ask(type="subscribe", stream_id=streams[2]))["status"] == 429
            assert (await other.ask(type="subscribe", stream_id=streams[2]))["status"] == 429  # of the same owner
            await client.ask(type="unsubscribe", stream_id=streams[0])
            assert (await other.ask(type="subscribe", stream_id=streams[2]))["type"] == "reply"


async def test_streams_that_run_are_counted() -> None:
    settings, gate = Settings(access_log=False, max_streams=2), asyncio.Event()
    async with serving({"one": ScriptedAgent("Hi", gate)}, settings=settings) as server:  # noqa: SIM117
        async with server.talk() as client, server.talk("/stream") as simple:
            tasks = [{"id": name, "prompt": "Hi"} for name in "abc"]
            problem = await client.ask(type="submit", tasks=tasks)
            assert (problem["status"], "no more than 2 streams" in problem["detail"]) == (400, True)
            await client.submit("one")
            assert (await client.ask(type="submit", tasks=tasks[:2]))["status"] == 429
            await client.submit("one")
            assert (await client.ask(type="submit", tasks=tasks[:1]))["status"] == 429
            await simple.connection.send("Hi")
            assert (await simple.hear())["error"]["code"] == "rate_limit_error"
            gate.set()
            await server.scheduler.wait_idle()
            await client.submit("one")
            await simple.connection.send("Hi")
            assert (await simple.hear())["type"] == "chunk"


async def test_the_access_log_tells_of_sockets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "multi_agent_scheduler.access")
    async with serving({"one": ScriptedAgent("Hi")}, settings=Settings()) as server:
        async with server.talk(additional_headers={"x-request-id": "mine"}) as client:
            assert (await client.ask(type="ping"))["to"] == "ping"
        for path, status in (("/v1/ws?token=secret", 403), ("/nothing", 404)):
            with pytest.raises(InvalidStatus):
                async with server.talk(path, origin="https://evil.example"):
                    pass
            await eventually(lambda status=status: any(f'"status":{status}' in line for line in caplog.messages))
        await eventually(lambda: any('"status":101' in line for line in caplog.messages))
    lines = [json.loads(line) for line in caplog.messages if line.startswith("{")]
    assert len(lines) == len(caplog.messages)  # and a refusal is no error
    found = {line["status"]: line for line in lines}
    assert found.keys() == {101, 403, 404}
    assert (found[101]["path"], found[101]["method"], found[101]["request_id"]) == ("/v1/ws", "WEBSOCKET", "mine")
    assert found[101]["bytes"] > 0
    assert "secret" not in caplog.text


async def test_a_socket_that_says_nothing_stays_open() -> None:
    settings = Settings(access_log=False, header_timeout=0.05, keep_alive=1)
    async with serving({"one": ScriptedAgent("Hi")}, settings=settings) as server, server.talk() as client:
        reader, writer = await asyncio.open_connection(*server.process.address)
        assert await reader.read() == b""  # a connection that asks for nothing was closed, later than the socket began
        writer.close()
        assert (await client.ask(type="ping"))["to"] == "ping"


async def test_a_message_that_is_too_large_ends_the_connection() -> None:
    settings = Settings(access_log=False, max_message=1000)
    async with serving({"one": ScriptedAgent("Hi")}, settings=settings) as server, server.talk() as client:
        await client.say(type="ping", id="x" * 2000)
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


async def test_a_client_that_only_talks_is_not_heard_without_end() -> None:
    async with serving({"one": ScriptedAgent("Hi")}) as server, server.talk(max_queue=1) as client:
        await client.connection.send(b"binary")
        for number in range(2000):
            await client.say(type="ping", id=number)
        assert (await client.hear())["type"] == "problem"
        assert [(await client.hear())["id"] for _ in range(2000)] == list(range(2000))


async def test_a_subscription_that_breaks_off_can_be_taken_up_again() -> None:
    store = MemoryStore()
    async with serving({"one": ScriptedAgent()}, store=store) as server, server.talk() as client:
        await store.submit([StreamSpec("a stream", "t1")])
        store.append(await store.claim("a stream"), [Text("Hello")])
        await client.ask(type="subscribe", stream_id="a stream")
        assert (await client.hear())["text"] == "Hello"
        await store.aclose()
        problem = await client.hear()
        assert (problem["type"], problem["stream_id"], problem["code"]) == ("problem", "a stream", "interrupted")
        assert (await client.ask(type="unsubscribe", stream_id="a stream"))["status"] == 404


async def test_a_server_that_stops_says_so() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with serving({"one": agent}) as server, server.talk() as client:
        await client.submit("one", subscribe=True)
        for _ in range(3):
            await client.hear()
        server.process.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012


# --- /stream --------------------------------------------------------------------------------------------------------


async def test_the_guides_simple_form() -> None:
    agent = ScriptedAgent("Hello ", "<world>")
    async with serving({"one": agent}) as server, server.talk("/stream") as client:
        for _ in range(2):
            await client.connection.send("Say hello")
            assert [await client.hear() for _ in range(3)] == [
                {"type": "chunk", "data": "Hello "},
                {"type": "chunk", "data": "<world>"},
                {"type": "complete"},
            ]
    assert [request.prompt for request in agent.requests] == ["Say hello"] * 2


async def test_who_leaves_the_simple_form_stops_the_answer() -> None:
    agent = ScriptedAgent("Hello ", asyncio.Event())
    async with serving({"one": agent}) as server:
        async with server.talk("/stream") as client:
            await client.connection.send("Hi")
            assert (await client.hear())["data"] == "Hello "
        await eventually(lambda: agent.closed == 1)
        (info,) = server.scheduler.streams()
        await eventually(lambda: info.state == "cancelled")


async def test_a_failure_in_the_simple_form() -> None:
    down = agent_error(ErrorInfo("overloaded_error", "the provider is overloaded", detail="<b>theirs</b>"))
    async with serving({"one": ScriptedAgent("Half a", down)}) as server, server.talk("/stream") as client:
        await client.connection.send("Hi")
        assert await client.hear() == {"type": "chunk", "data": "Half a"}
        error = {"code": "overloaded_error", "message": "the provider is overloaded"}
        assert await client.hear() == {"type": "error", "error": error}
        await client.connection.send("")
        assert (await client.hear())["type"] in ("chunk", "error")
