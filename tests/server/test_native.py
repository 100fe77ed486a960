"""The native API: tasks in, streams out, left and come back to."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from multi_agent_scheduler.errors import ErrorInfo
from multi_agent_scheduler.records import Failed, Reasoning, Reset, Text, ToolCall, Usage, decode_record
from multi_agent_scheduler.testing import ScriptedAgent

from .served import events_of, eventually, serving, task


def records_of(answer: httpx.Response) -> list[Any]:
    return [decode_record(event.data) for event in events_of(answer.content) if event.type == "message"]


async def test_a_stream_is_one_record_an_event_and_then_its_end() -> None:
    async with serving({"a": ScriptedAgent("Hel", "lo", "\n\n\u2028data: x\r")}) as served:
        streams = await served.submit(task())
        answer = await served.events(streams["a"])
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.content.startswith(b"retry: 1000\n\n")
        events = events_of(answer.content)
        assert events[-1].type == "end"
        records = records_of(answer)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert [event.id.split("-")[0] for event in events[:-1]] == [str(record.seq) for record in records]
        assert "".join(record.text for record in records if isinstance(record, Text)) == "Hello\n\n\u2028data: x\r"
        followed = [record async for record in served.scheduler.follow(streams["a"])]
        assert records == followed


async def test_every_kind_of_record_comes_as_it_is_in_the_log() -> None:
    script = [
        Reasoning("hm", 0, signature="s"),
        Text("a", 1),
        ToolCall(0, "id", "name", "{}"),
        Text("b", branch="x"),
        Usage(input_tokens=3, output_tokens=2),
        Reset(1, "again"),
    ]
    async with serving({"a": ScriptedAgent(script)}) as served:
        streams = await served.submit(task())
        answer = await served.events(streams["a"])
        assert records_of(answer) == [record async for record in served.scheduler.follow(streams["a"])]


async def test_events_come_as_they_are_written_and_many_readers_see_the_same() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent("one", gate, "two")}) as served:
        streams = await served.submit(task())
        readers = [asyncio.ensure_future(served.events(streams["a"])) for _ in range(5)]
        async with served.http.stream(
            "GET", f"/v1/streams/{streams['a']}", headers={"accept": "text/event-stream"}
        ) as answer:
            seen = b""
            async for chunk in answer.aiter_bytes():
                seen += chunk
                if b'"one"' in seen and not gate.is_set():
                    assert b'"two"' not in seen
                    gate.set()
        bodies = {(await reader).content for reader in readers}
        assert bodies == {seen}
        await eventually(lambda: not served.app.relays)
        assert not served.app.renderings._known


async def test_a_reader_comes_back_and_gets_exactly_what_is_missing() -> None:
    async with serving({"a": ScriptedAgent("a", "b", "c", "d")}) as served:
        streams = await served.submit(task())
        whole = events_of((await served.events(streams["a"])).content)
        for place, event in enumerate(whole[:-2]):
            rest = events_of((await served.events(streams["a"], after=event.id)).content)
            assert [it.data for it in rest] == [it.data for it in whole[place + 1 :]]
            by_query = await served.http.get(
                f"/v1/streams/{streams['a']}?after={event.id}", headers={"accept": "text/event-stream"}
            )
            assert events_of(by_query.content) == rest
        behind_the_end = await served.events(streams["a"], after=whole[-2].id)
        assert (behind_the_end.status_code, behind_the_end.content) == (204, b"")


@pytest.mark.parametrize(
    "cursor", ["garbage", "-1", "1", "01-{tag}", "1-00000000", "99-{tag}", "\u00b2-{tag}", "1-{tag} "]
)
async def test_a_cursor_that_cannot_be_is_told(cursor: str) -> None:
    async with serving({"a": ScriptedAgent("a")}) as served:
        streams = await served.submit(task())
        tag = events_of((await served.events(streams["a"])).content)[0].id.partition("-")[2]
        answer = await served.http.get(
            f"/v1/streams/{streams['a']}",
            params={"after": cursor.format(tag=tag)},
            headers={"accept": "text/event-stream"},
        )
        assert answer.status_code == 400, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert "cursor" in answer.json()["detail"]


async def test_a_cursor_of_another_stream_is_told() -> None:
    async with serving({"a": ScriptedAgent("a")}) as served:
        streams = await served.submit(task("a"), task("b"))
        foreign = events_of((await served.events(streams["b"])).content)[0].id
        answer = await served.events(streams["a"], after=foreign)
        assert answer.status_code == 400
        assert answer.json()["detail"] == "this cursor belongs to another stream"


async def test_a_stream_as_json() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent("one ", Usage(input_tokens=1, output_tokens=2), gate, "two")}) as served:
        streams = await served.submit(task())
        async with served.http.stream(
            "GET", f"/v1/streams/{streams['a']}", headers={"accept": "text/event-stream"}
        ) as answer:
            async for line in answer.aiter_lines():
                if "usage" in line:
                    break
        running = (await served.http.get(f"/v1/streams/{streams['a']}")).json()
        assert (running["state"], running["text"], running["success"]) == ("running", "one ", None)
        gate.set()
        rest = await served.events(streams["a"], after=running["cursor"])
        assert [record.text for record in records_of(rest) if isinstance(record, Text)] == ["two"]
        ended = (await served.http.get(f"/v1/streams/{streams['a']}", headers={"accept": "application/json"})).json()
        assert ended["stream_id"] == streams["a"]
        assert (ended["state"], ended["text"], ended["success"], ended["task_id"]) == (
            "completed",
            "one two",
            True,
            "a",
        )
        assert (ended["usage"]["input_tokens"], ended["usage"]["output_tokens"]) == (1, 2)
        assert (await served.events(streams["a"], after=ended["cursor"])).status_code == 204


async def test_a_failure_is_told_in_the_json() -> None:
    failure = Failed(ErrorInfo("overloaded_error", "no capacity", status=529))
    async with serving({"a": ScriptedAgent("half", failure)}) as served:
        streams = await served.submit(task())
        await served.events(streams["a"])
        body = (await served.http.get(f"/v1/streams/{streams['a']}")).json()
        assert (body["state"], body["text"], body["success"]) == ("failed", "half", False)
        assert body["error"]["code"] == "overloaded_error"


async def test_a_stream_is_stopped() -> None:
    agent = ScriptedAgent("one", asyncio.Event())
    async with serving({"a": agent}) as served:
        streams = await served.submit(task())
        reader = asyncio.ensure_future(served.events(streams["a"]))
        first = await served.post(f"/v1/streams/{streams['a']}/cancel", {"reason": "no more"})
        assert first.json() == {"stream_id": streams["a"], "cancelled": True, "state": "cancelled"}
        assert agent.running == 0
        again = await served.http.post(f"/v1/streams/{streams['a']}/cancel")
        assert again.json() == {"stream_id": streams["a"], "cancelled": False, "state": "cancelled"}
        assert records_of(await reader)[-1].reason == "no more"


async def test_a_reader_that_leaves_stops_nothing() -> None:
    gate = asyncio.Event()
    async with serving({"a": ScriptedAgent("one", gate, "two")}) as served:
        streams = await served.submit(task())
        async with served.http.stream(
            "GET", f"/v1/streams/{streams['a']}", headers={"accept": "text/event-stream"}
        ) as answer:
            async for _ in answer.aiter_bytes():
                break
        gate.set()
        assert records_of(await served.events(streams["a"]))[-1].stop_reason == "stop"


async def test_a_plan_runs_in_its_order() -> None:
    async with serving({"a": ScriptedAgent("facts"), "b": ScriptedAgent("page")}) as served:
        answer = await served.post(
            "/v1/tasks",
            {
                "tasks": [
                    task("first", agent="a"),
                    {"id": "second", "template": "From ${first}", "agent": "b", "depends_on": ["first"]},
                ]
            },
        )
        assert answer.status_code == 202
        plan = answer.json()
        await served.events(plan["streams"]["second"])
        assert served.scheduler.agents["b"].requests[0].prompt == "From facts"  # type: ignore[attr-defined]
        listed = (await served.http.get(f"/v1/plans/{plan['plan_id']}")).json()
        assert {row["task_id"]: row["state"] for row in listed["streams"]} == {
            "first": "completed",
            "second": "completed",
        }


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([], "at least one"),
        ([task(options={"temperatur": 1})], "temperatur"),
        ([task(options={"extra": {"base_url": "http://elsewhere"}})], "extra"),
        ([task(options={"temperature": "hot"})], "temperature"),
        ([{"id": "a"}], "prompt"),
        ([{"id": "a", "prompt": "x", "template": "y"}], "template"),
        ([{"id": "a", "template": "$x"}], "$"),
        ([{"id": "", "prompt": "x"}], "id"),
        ([task(agent="")], "agent"),
        ([task(options={"schema": {"type": "object"}})], "schema"),
        ([{"id": "a", "prompt": ""}], "prompt"),
        ([{"id": "a", "prompt": [{"role": "nobody", "content": "x"}]}], "role"),
        ([task(timeouts={"total": -1})], "total"),
        ([task(priority=-1)], "priority"),
        ([task(unknown=1)], "unknown"),
        (["text"], "object"),
        ("text", "array"),
    ],
)
async def test_what_is_wrong_with_tasks_is_told(tasks: Any, said: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.post("/v1/tasks", {"tasks": tasks})
        assert answer.status_code == 400, answer.text
        problem = answer.json()
        assert said in problem["detail"]
        assert (problem["status"], problem["code"]) == (400, "invalid_request_error")
        assert (await served.http.get("/v1/streams")).json() == {"streams": [], "next": None}


@pytest.mark.parametrize(
    ("tasks", "status", "said"),
    [
        ([task(), task()], 409, "'a'"),
        ([task(depends_on=["b"])], 409, "'b'"),
        ([task("a", depends_on=["b"]), task("b", depends_on=["a"])], 409, "a"),
        ([task(), {"id": "b", "template": "${a}"}], 409, "depends_on"),
        ([task(agent="nobody")], 404, "nobody"),
    ],
)
async def test_tasks_that_do_not_go_together_are_told(tasks: Any, status: int, said: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.post("/v1/tasks", {"tasks": tasks})
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert said in answer.json()["detail"]
        assert (await served.http.get("/v1/streams")).json()["streams"] == []


@pytest.mark.parametrize("query", ["after=rubbish", "view=other", "pace=fast"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_what_is_wrong_with_reading_is_told_in_both_forms(query: str, accept: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        stream = (await served.submit(task()))["a"]
        answer = await served.http.get(f"/v1/streams/{stream}?{query}", headers={"accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request_error")


async def test_lists_have_filters_and_pages() -> None:
    async with serving({"a": ScriptedAgent("x"), "never": ScriptedAgent(asyncio.Event())}) as served:
        ids = [(await served.submit(task(f"t{number}", agent="a")))[f"t{number}"] for number in range(5)]
        for stream_id in ids:
            await served.events(stream_id)
        running = await served.submit(task("r", agent="never"))
        pages, before = [], ""
        while True:
            page = (
                await served.http.get("/v1/streams", params={"limit": 2} | ({"before": before} if before else {}))
            ).json()
            pages.append([row["task_id"] for row in page["streams"]])
            before = page["next"]
            if before is None:
                break
        assert pages == [["r", "t4"], ["t3", "t2"], ["t1", "t0"]]
        ended = (await served.http.get("/v1/streams?state=completed,failed")).json()["streams"]
        assert {row["state"] for row in ended} == {"completed"}
        assert len(ended) == 5
        (row,) = (await served.http.get("/v1/streams?state=running,queued")).json()["streams"]
        assert row["stream_id"] == running["r"]
        plan = (await served.http.get("/v1/streams", params={"plan_id": row["plan_id"]})).json()["streams"]
        assert [it["task_id"] for it in plan] == ["r"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=501", "limit=1e3", "state=gone", "state=", "&".join(["a=1"] * 200)]
)
async def test_a_query_that_cannot_be_is_told(query: str) -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.http.get(f"/v1/streams?{query}")
        assert answer.status_code == 400
        assert answer.json()["detail"]


async def test_what_is_not_there_is_not_found() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        for method, path in [
            ("GET", "/v1/streams/nothing"),
            ("GET", "/v1/streams/%0d%0aevent:%20x"),
            ("GET", "/v1/streams?before=nothing"),
            ("GET", "/v1/plans/nothing"),
            ("POST", "/v1/streams/nothing/cancel"),
            ("POST", "/v1/streams/nothing/token"),
            ("GET", "/v1/nothing"),
            ("GET", "/"),
        ]:
            answer = await served.http.request(method, path)
            assert (answer.status_code, answer.json()["status"]) == (404, 404), path


async def test_agents_are_listed() -> None:
    async with serving({"a": ScriptedAgent("x", model="m"), "b": ScriptedAgent("x")}) as served:
        assert (await served.http.get("/v1/agents")).json() == {
            "agents": [
                {"name": "a", "protocol": "scripted", "model": "m", "default": True},
                {"name": "b", "protocol": "scripted", "model": None, "default": False},
            ]
        }


async def test_an_idempotency_key_makes_one_of_two_requests() -> None:
    agent = ScriptedAgent("x")
    async with serving({"a": agent}) as served:
        key = {"idempotency-key": "once"}
        first, second = await asyncio.gather(*(served.submit(task(), headers=key) for _ in range(2)))
        assert first == second
        await served.events(first["a"])
        assert await served.submit(task(), headers=key) == first
        assert len(agent.requests) == 1
        other = await served.post("/v1/tasks", {"tasks": [task(prompt="another")]}, headers=key)
        assert other.status_code == 422
        assert "Idempotency-Key" in other.json()["detail"]
        same = '{"tasks" : [{"prompt":"hello", "id":"a"}]}'  # written in another way
        again = await served.http.post("/v1/tasks", content=same, headers={**key, "content-type": "application/json"})
        assert again.json()["streams"] == first
        assert await served.submit(task(), headers={"idempotency-key": "twice"}) != first
        long = await served.post("/v1/tasks", {"tasks": [task()]}, headers={"idempotency-key": "x" * 256})
        assert long.status_code == 400


async def test_the_trace_goes_on_to_the_agent() -> None:
    traces: list[Any] = []

    class Traced(ScriptedAgent):
        async def _open(self, request: Any, ctx: Any) -> Any:
            traces.append(dict(ctx.trace))
            return await super()._open(request, ctx)

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving({"a": Traced("x")}) as served:
        for said in ({"traceparent": parent, "tracestate": "a=b"}, {"traceparent": "nonsense"}):
            streams = await served.submit(task(), headers=said)
            await served.events(streams["a"])
    assert traces == [{"traceparent": parent, "tracestate": "a=b"}, {}]


async def test_a_template_of_a_client_reads_no_more_than_its_dependencies() -> None:
    async with serving({"a": ScriptedAgent("x")}) as served:
        answer = await served.post("/v1/tasks", {"tasks": [task("a"), {"id": "b", "template": "${a}"}]})
        assert answer.status_code == 409
        assert "depends_on" in json.dumps(answer.json())
