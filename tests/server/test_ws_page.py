"""docs/websocket.md: its program runs, and its tables name what there is and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import msgspec

from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.server.dialogue import Dialogue, Follow, Say, Start
from multi_agent_scheduler.server.problem import Problem
from multi_agent_scheduler.testing import ScriptedAgent

from .test_ws import serving

PAGE: Final = (Path(__file__).parents[2] / "docs" / "websocket.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def said(dialogue: Dialogue, **message: Any) -> Any:
    return dialogue.receive(json.dumps(message))


async def test_the_program_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    async with serving({"one": ScriptedAgent("An old ", "silent pond")}) as server:
        program = code.replace("127.0.0.1:8000", server.place).replace("asyncio.run(main())", "")
        names: dict[str, Any] = {}
        exec(compile(program, "websocket.md", "exec"), names)
        with redirect_stdout(io.StringIO()) as printed:
            await asyncio.wait_for(names["main"](), 10)
    assert printed.getvalue() == "An old silent pond"


def test_the_messages_of_a_client_are_those_that_there_are() -> None:
    (problem,) = said(Dialogue(max_subscriptions=1), type="no such message")
    assert "Invalid value" in msgspec.json.decode(problem.message)["detail"]
    fields: dict[str, Any] = {
        "tasks": [{"id": "a", "prompt": "Hi"}],
        "subscribe": True,
        "detach": False,
        "window": 5,
        "pace": "5/s",
        "view": "object",
        "stream_id": "s",
        "after": "",
        "seq": 1,
        "reason": "enough",
        "idempotency_key": "one",
    }
    named = set()
    for kind, told, *_ in rows("What a client says"):
        own = re.findall(r"`(\w+)`", told)
        named |= set(own)
        dialogue = Dialogue(max_subscriptions=9)
        name = kind.strip("`")
        actions = said(dialogue, type=name, id=1, **{field: fields[field] for field in own})
        answer = [msgspec.json.decode(action.message) for action in actions if type(action) is Say]
        assert not [it for it in answer if it["type"] == "problem" and it["status"] != 404], name
        for other in fields.keys() - set(own):  # a field that the row does not name is refused
            (refused,) = said(Dialogue(max_subscriptions=9), type=name, **{it: fields[it] for it in (*own, other)})
            assert msgspec.json.decode(refused.message)["status"] == 400, (name, other)
    assert named == set(fields)


def test_the_messages_of_the_server_look_like_that() -> None:
    dialogue = Dialogue(max_subscriptions=9)
    (start,) = said(dialogue, type="submit", id="1", tasks=[{"id": "haiku", "prompt": "Write"}])
    (follow,) = said(dialogue, type="subscribe", id="2", stream_id="...")
    assert type(start) is Start and type(follow) is Follow
    answers = [
        *dialogue.submitted(start.message, "...", {"haiku": "..."}),
        *dialogue.subscribed(follow.message, 0, "0-5f2c1a90"),
        said(dialogue, type="unsubscribe", id="3", stream_id="...")[1],
        *dialogue.cancelled(said(dialogue, type="cancel", id="4", stream_id="...")[0], True),
        *said(dialogue, type="ping", id="5"),
        *dialogue.refused("1", Problem(404, "...")),
    ]
    shown = [row[0].strip("`") for row in rows("What the server says")]
    assert {answer.message.decode() for answer in answers} == {
        line for line in shown if '"reply"' in line or '"problem"' in line
    }


async def test_compression_is_opt_in() -> None:
    for compression in (False, True):
        settings = Settings(access_log=False, compression=compression)
        async with serving({"one": ScriptedAgent("Hello")}, settings=settings) as server, server.talk() as client:
            assert bool(client.connection.protocol.extensions) is compression
            await client.submit("one", subscribe=True)
            assert (await client.hear())["to"] == "subscribe"
            assert [message["type"] for message in await client.rest()][-1] == "completed"
