"""Streams read as objects: over server-sent events and over a WebSocket, from any cursor, by any number of readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from multi_agent_scheduler import Failover
from multi_agent_scheduler.errors import ErrorInfo, agent_error
from multi_agent_scheduler.records import Completed, Failed, Interrupted, Reasoning, Record, Reset, Text
from multi_agent_scheduler.server.objects import ObjectSteps
from multi_agent_scheduler.testing import ScriptedAgent
from multi_agent_scheduler.wire.partial_json import apply
from tests.partial_json.documents import documents
from tests.structured.recipes import PANCAKES, RECIPE_SCHEMA
from tests.structured.test_agent import BAD, Learning, pieces

from . import test_ws
from .served import events_of, eventually, serving, task

ENDED = Completed("stop")


def steps_of(records: Sequence[Record], cuts: Iterable[int] = ()) -> list[dict[str, Any]]:
    """What a reader is told of a log that is cut into batches at these places; without any, record by record."""
    steps, places = ObjectSteps(), sorted({*cuts, len(records)} if cuts else range(1, len(records) + 1))
    told = [steps.feed(first + 1, records[first:end]) for first, end in zip([0, *places], places, strict=False)]
    return [json.loads(step) for step in told if step]


def shown(steps: Iterable[dict[str, Any]], document: Any = UNSET) -> Any:
    """The object that a reader of these steps has, as the documentation says how."""
    for step in steps:
        document = apply(UNSET if "restarted" in step else document, step["changes"])
    return document


def texts(*words: str) -> list[Record]:
    return [Text(word) for word in words]


def test_changes_completed_places_and_the_end() -> None:
    steps = steps_of([*texts('{"title":"Pan', 'cakes","n":1', "2}"), Reasoning("well"), ENDED])
    assert steps == [
        {"type": "object", "changes": [[[], {}], [["title"], "Pan"]], "completed": [], "seq": 1},
        {"type": "object", "changes": [[["title"], "cakes"]], "completed": [["title"]], "seq": 2},
        {"type": "object", "changes": [[["n"], 12]], "completed": [["n"], []], "seq": 3},
        {"type": "object", "changes": [], "completed": [], "seq": 5,
         "end": {"state": "completed", "whole": True, "valid": True}},
    ]  # fmt: skip


@given(documents(), st.lists(st.integers(1, 60)), st.lists(st.integers(1, 60)))
def test_however_a_log_is_cut_its_readers_end_with_the_same(text: str, cuts: list[int], others: list[int]) -> None:
    log: list[Record] = [*texts(*(text[place : place + 3] for place in range(0, len(text), 3))), ENDED]
    one, other = (steps_of(log, [cut for cut in some if cut < len(log)]) for some in (cuts, others))
    assert repr(shown(one)) == repr(shown(other))
    assert [path for step in one for path in step["completed"]] == [
        path for step in other for path in step["completed"]
    ]
    assert one[-1]["end"] == other[-1]["end"]


def test_a_reset_begins_the_object_anew() -> None:
    log = [*texts('{"a":1,"b":'), Reset(1, "the agent failed"), *texts('{"c":', "2}"), ENDED]
    steps = steps_of(log)
    assert steps[1] == {"type": "object", "changes": [], "completed": [], "restarted": "the agent failed", "seq": 2}
    assert shown(steps) == {"c": 2}
    assert shown(steps_of(log, [2])) == {"c": 2}
    assert steps[-1]["end"]["valid"]


def test_what_is_no_object_is_told_once() -> None:
    (problem, end) = steps_of([*texts('{"a":1,]', "more", "and more"), ENDED])
    assert problem["changes"] == [[[], {}], [["a"], 1]]
    assert problem["problem"] == "not JSON: at position 7 a name in double quotes must come, not ']'"
    assert end["end"] == {"state": "completed", "whole": False, "valid": False} and "problem" not in end
    (nothing,) = steps_of([*texts("There is none."), ENDED])
    assert nothing["problem"] == "there is no JSON document in the text"
    (half,) = steps_of([*texts('["half'), ENDED], [2])
    assert half["problem"] == "not a whole JSON document: it ends inside a string"
    again = steps_of([*texts("]["), Reset(1, "no"), *texts("[]"), ENDED])
    assert [step.get("problem") is not None for step in again] == [False, False, False]


def test_an_end_that_is_none_says_what_there_is() -> None:
    error = ErrorInfo("interrupted", "it broke off")
    (_, end) = steps_of([*texts('{"a":1'), Interrupted(error)])
    assert end["end"]["state"] == "interrupted" and not end["end"]["whole"] and "problem" not in end
    assert end["end"]["error"]["code"] == "interrupted"
    (_, end) = steps_of([*texts('{"a":1}'), Failed(ErrorInfo("invalid_output", "a: expected a string"))])
    assert end["end"]["whole"] and not end["end"]["valid"]
    (_, end) = steps_of([*texts('{"a":1}'), Completed("content_filter")])
    assert end["end"]["whole"] and not end["end"]["valid"]


def test_a_part_that_is_taken_back_cannot_be_told_and_says_so() -> None:
    log = [*texts('{"a":1,', '"b":2,'), Reset(2, "again"), *texts('"c":3}'), ENDED]
    steps = steps_of(log)
    assert "a part of the object was taken back" in steps[2]["problem"]
    assert steps[-1]["end"] == {"state": "completed", "whole": False, "valid": False}
    anew = steps_of([*log[:-1], Reset(1, "from the start"), *texts("[7]"), ENDED])
    assert shown(anew) == [7] and anew[-1]["end"]["valid"]


# --- over HTTP --------------------------------------------------------------------------------------------------


async def objects(served: Any, stream_id: str, after: str = "") -> list[Any]:
    headers = {"accept": "text/event-stream", "last-event-id": after}
    answer = await served.http.get(f"/v1/streams/{stream_id}?view=object", headers=headers)
    assert answer.status_code == 200, answer.text
    return events_of(answer.content)


def data(events: Iterable[Any]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if event.type == "message"]


async def test_a_reader_comes_back_to_an_object_and_gets_exactly_what_is_missing() -> None:
    async with serving({"a": ScriptedAgent(*pieces(PANCAKES))}) as served:
        stream_id = (await served.submit(task()))["a"]
        whole = await objects(served, stream_id)
        assert shown(data(whole)) == json.loads(PANCAKES)
        assert (whole[-1].type, whole[-1].data) == ("end", b"{}")
        assert data(whole)[-1]["end"] == {"state": "completed", "whole": True, "valid": True}
        log = [record async for record in served.scheduler.follow(stream_id)]
        by_record = events_of((await served.events(stream_id)).content)
        for seq, event in enumerate(by_record[:-2], 1):
            rest = data(await objects(served, stream_id, event.id))
            assert shown(rest, shown(steps_of(log[:seq]))) == json.loads(PANCAKES)
        headers = {"accept": "text/event-stream", "last-event-id": whole[-2].id}
        answer = await served.http.get(f"/v1/streams/{stream_id}?view=object", headers=headers)
        assert answer.status_code == 204


async def test_readers_of_an_object_share_what_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    feed = ObjectSteps.feed

    def counted(self: ObjectSteps, first: int, records: Sequence[Record]) -> bytes:
        fed.append(first)
        return feed(self, first, records)

    monkeypatch.setattr(ObjectSteps, "feed", counted)
    gates = [asyncio.Event(), asyncio.Event()]
    async with serving({"a": ScriptedAgent(gates[0], '{"a":', gates[1], "1}")}) as served:
        stream_id = (await served.submit(task()))["a"]
        readers = [asyncio.ensure_future(objects(served, stream_id)) for _ in range(5)]
        await eventually(lambda: len(served.app.relays) == 5)
        for gate in gates:
            gate.set()
        told = [data(await reader) for reader in readers]
        assert all(steps == told[0] for steps in told) and shown(told[0]) == {"a": 1}
        later = [first for first in fed if first > 1]  # the first record was there before the last of them came
        assert later and len(later) == len(set(later))
        monkeypatch.undo()


async def test_a_failover_in_the_middle_of_an_object_is_told() -> None:
    gate, broken = asyncio.Event(), agent_error(ErrorInfo("overloaded_error", "too much", retryable=True))
    agent = Failover(ScriptedAgent('{"title":"Pa', gate, broken), ScriptedAgent('{"title":"Waffles"}'), policy="reset")
    async with serving({"a": agent}) as served:
        stream_id = (await served.submit(task()))["a"]
        url, headers = f"/v1/streams/{stream_id}?view=object", {"accept": "text/event-stream"}
        seen = b""
        async with served.http.stream("GET", url, headers=headers) as answer:
            async for chunk in answer.aiter_bytes():
                seen += chunk
                if b"Pa" in seen:
                    gate.set()
        steps = data(events_of(seen))
        assert shown(steps[:1]) == {"title": "Pa"} and shown(steps) == {"title": "Waffles"}
        assert [step.get("restarted", "") for step in steps][1].startswith("overloaded_error")


async def test_a_view_that_there_is_not() -> None:
    async with serving({"a": ScriptedAgent("{}")}) as served:
        stream_id = (await served.submit(task()))["a"]
        answer = await served.http.get(f"/v1/streams/{stream_id}?view=objects", headers={"accept": "text/event-stream"})
        assert answer.status_code == 400
        assert answer.json()["detail"] == "view must be one of records, object, not 'objects'"


# --- tasks with a schema ----------------------------------------------------------------------------------------


async def test_the_answer_of_a_task_with_a_schema_is_checked() -> None:
    async with serving({"a": ScriptedAgent(*pieces(PANCAKES)), "bad": ScriptedAgent(*pieces(BAD))}) as served:
        streams = await served.submit(
            task("a", schema=RECIPE_SCHEMA, agent="a"), task("b", schema=RECIPE_SCHEMA, agent="bad")
        )
        good = data(await objects(served, streams["a"]))
        assert shown(good) == json.loads(PANCAKES) and good[-1]["end"]["valid"]
        bad = data(await objects(served, streams["b"]))
        assert bad[-1]["end"]["state"] == "failed" and not bad[-1]["end"]["valid"]
        assert bad[-1]["end"]["error"]["code"] == "invalid_output"


async def test_an_agent_is_asked_again() -> None:
    async with serving({"a": Learning(BAD, PANCAKES)}) as served:
        stream_id = (await served.submit(task(schema=RECIPE_SCHEMA, ask_again=1)))["a"]
        steps = steps_of([record async for record in served.scheduler.follow(stream_id)])
        assert [step["restarted"][:14] for step in steps if "restarted" in step] == ["invalid_output"]
        steps = data(await objects(served, stream_id))
        assert shown(steps) == json.loads(PANCAKES) and steps[-1]["end"]["valid"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schema": {"properties": {"a": {"pattern": "(a+)+$"}}}}, "pattern is not taken from a client"),
        ({"schema": {"patternProperties": {"(a+)+$": True}}}, "patternProperties is not taken from a client"),
        ({"schema": {"x": {"y": {"pattern": "(a+)+$"}}, "$ref": "#/x/y"}}, "pattern is not taken from a client"),
        ({"schema": {"enum": list(range(1001))}}, "its enumerations have more than 1000 values"),
        ({"schema": {"description": "x" * 140_000}}, "it has more than 131072 bytes of JSON"),
        ({"schema": json.loads('{"not":' * 70 + "{}" + "}" * 70)}, "it is nested deeper than 64"),
        ({"schema": {"type": "text"}}, "type must be one of JSON's types"),
        ({"schema": {"$ref": "#"}}, "its references lead in a circle"),
        ({"schema": {}, "ask_again": 11}, "ask_again"),
        ({"schema": {}, "ask_again": -1}, "ask_again"),
        ({"ask_again": 1}, "ask_again is for answers that do not fit a schema, but there is none"),
    ],
)
async def test_a_schema_that_is_not_taken_from_a_client(fields: dict[str, Any], said: str) -> None:
    async with serving({"a": ScriptedAgent("{}")}) as served:
        answer = await served.post("/v1/tasks", {"tasks": [task(**fields)]})
        assert answer.status_code == 400
        assert said in answer.json()["detail"]
        assert not served.scheduler.streams()


async def test_a_member_may_be_called_pattern() -> None:
    async with serving({"a": ScriptedAgent('{"pattern":"x"}')}) as served:
        schema = {"type": "object", "properties": {"pattern": {"type": "string"}}}
        steps = data(await objects(served, (await served.submit(task(schema=schema)))["a"]))
        assert steps[-1]["end"]["valid"]


# --- over a WebSocket -------------------------------------------------------------------------------------------


async def test_an_object_on_a_websocket() -> None:
    async with test_ws.serving({"a": ScriptedAgent(*pieces(PANCAKES))}) as server, server.talk() as client:
        stream_id = await client.submit("a")
        whole: list[dict[str, Any]] = []
        await client.ask(type="subscribe", stream_id=stream_id, view="object")
        whole += await client.rest()
        assert shown(whole) == json.loads(PANCAKES) and whole[-1]["end"]["valid"]
        assert {(step["type"], step["stream_id"]) for step in whole} == {("object", stream_id)}
        for place, step in enumerate(whole[:-1], 1):
            await client.ask(type="subscribe", stream_id=stream_id, view="object", after=step["cursor"])
            rest = await client.rest()
            assert shown(rest, shown(whole[:place])) == json.loads(PANCAKES)


async def test_a_window_of_an_object_opens_by_what_is_acknowledged() -> None:
    gate = asyncio.Event()
    agent = ScriptedAgent(
        "The object:\n", '{"a":0,', gate, *(f'"m{number}":{number},' for number in range(20)), '"z":1}'
    )
    async with test_ws.serving({"a": agent}) as server, server.talk() as client:
        stream_id = await client.submit("a", subscribe=True, view="object", window=1)
        assert (await client.hear())["to"] == "subscribe"
        steps = [await client.hear()]
        gate.set()
        while "end" not in steps[-1]:
            refused = await client.ask(type="acknowledge", id=1, stream_id=stream_id, seq=steps[-1]["seq"] + 1)
            assert refused["status"] == 400, "nothing comes before what was sent is acknowledged"
            await client.say(type="acknowledge", stream_id=stream_id, seq=steps[-1]["seq"])
            steps.append(await client.hear())
        assert (await client.hear())["type"] == "end"
        assert shown(steps) == {"a": 0, **{f"m{number}": number for number in range(20)}, "z": 1}


async def test_records_and_objects_of_one_stream_are_apart() -> None:
    agents = {"a": ScriptedAgent('{"a":', "1}")}
    async with test_ws.serving(agents) as server, server.talk() as one, server.talk() as other:
        stream_id = await one.submit("a", subscribe=True, view="object")
        await one.hear()
        await other.ask(type="subscribe", stream_id=stream_id)
        assert {message["type"] for message in await one.rest()} == {"object"}
        assert "object" not in {message["type"] for message in await other.rest()}
