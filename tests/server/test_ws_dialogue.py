"""The protocol of /v1/ws, without a socket: messages in, actions out."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from multi_agent_scheduler.server.dialogue import Cancel, Dialogue, Follow, Open, Say, Start, Stop, Subscribe
from multi_agent_scheduler.server.problem import Problem


def dialogue(most: int = 3) -> Dialogue:
    return Dialogue(max_subscriptions=most)


def said(actions: Any) -> dict[str, Any]:
    (say,) = actions
    assert type(say) is Say
    message: dict[str, Any] = json.loads(say.message)
    return message


def text(**fields: Any) -> str:
    return json.dumps(fields)


def subscribed(talk: Dialogue, stream_id: str, **fields: Any) -> dict[str, Any]:
    (follow,) = talk.receive(text(type="subscribe", stream_id=stream_id, **fields))
    assert type(follow) is Follow
    return said(talk.subscribed(follow.message, 0, "0-tag"))


# --- each message ---------------------------------------------------------------------------------------------------


def test_ping() -> None:
    assert said(dialogue().receive(text(type="ping", id="7"))) == {"type": "reply", "id": "7", "to": "ping"}


def test_submit_and_subscribe_at_once() -> None:
    talk = dialogue()
    (start,) = talk.receive(text(type="submit", id=1, tasks=[{"id": "a", "prompt": "Hi"}], subscribe=True, window=5))
    assert type(start) is Start and start.message.tasks[0].id == "a" and not start.message.detach
    reply, follow = talk.submitted(start.message, "plan", {"a": "stream"})
    assert said([reply]) == {"type": "reply", "id": 1, "to": "submit", "plan_id": "plan", "streams": {"a": "stream"}}
    assert follow == Follow(Subscribe(id=1, stream_id="stream", window=5))


def test_submit_alone_subscribes_to_nothing() -> None:
    talk = dialogue()
    (start,) = talk.receive(text(type="submit", tasks=[{"id": "a", "prompt": "Hi"}], detach=True))
    assert type(start) is Start and start.message.detach
    assert len(talk.submitted(start.message, "plan", {"a": "stream"})) == 1


def test_subscribe_and_unsubscribe() -> None:
    talk = dialogue()
    assert subscribed(talk, "s", id="1", after="0-tag") == {
        "type": "reply",
        "id": "1",
        "to": "subscribe",
        "stream_id": "s",
        "cursor": "0-tag",
    }
    assert said(talk.receive(text(type="subscribe", id="2", stream_id="s")))["status"] == 409
    stop, reply = talk.receive(text(type="unsubscribe", id="3", stream_id="s"))
    assert stop == Stop("s")
    assert said([reply]) == {"type": "reply", "id": "3", "to": "unsubscribe", "stream_id": "s"}
    assert said(talk.receive(text(type="unsubscribe", id="4", stream_id="s")))["status"] == 404
    subscribed(talk, "s")


def test_a_refused_subscription_is_none() -> None:
    talk = dialogue()
    talk.receive(text(type="subscribe", id="1", stream_id="s"))
    problem = said(talk.refused("1", Problem(404, "there is no stream 's'"), "s"))
    assert problem == {
        "type": "problem",
        "id": "1",
        "stream_id": "s",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no stream 's'",
        "code": "not_found_error",
    }
    subscribed(talk, "s")


def test_cancel() -> None:
    talk = dialogue()
    (action,) = talk.receive(text(type="cancel", id="1", stream_id="s", reason="enough"))
    assert action == Cancel(id="1", stream_id="s", reason="enough")
    reply = said(talk.cancelled(action, True))
    assert reply == {"type": "reply", "id": "1", "to": "cancel", "stream_id": "s", "cancelled": True}


def test_a_window_opens_by_what_is_acknowledged() -> None:
    talk = dialogue()
    subscribed(talk, "s", window=3)
    assert talk.room("s") == 3
    talk.sent("s", 3)
    assert talk.room("s") == 0
    assert talk.receive(text(type="acknowledge", stream_id="s", seq=2)) == [Open("s")]
    assert talk.room("s") == 2
    assert talk.receive(text(type="acknowledge", stream_id="s", seq=1)) == ()  # it was known
    assert talk.room("s") == 2
    problem = said(talk.receive(text(type="acknowledge", id="x", stream_id="s", seq=4)))
    assert (problem["id"], problem["status"]) == ("x", 400)
    assert "what was sent reaches 3" in problem["detail"]
    talk.ended("s")
    assert talk.room("s") == 0
    assert talk.receive(text(type="acknowledge", stream_id="s", seq=3)) == ()  # the end was on the way


def test_without_a_window_there_is_always_room() -> None:
    talk = dialogue()
    subscribed(talk, "s")
    talk.sent("s", 10**6)
    assert talk.room("s") == float("inf")
    assert talk.receive(text(type="acknowledge", stream_id="s", seq=5)) == ()


def test_a_connection_has_so_many_subscriptions() -> None:
    talk = dialogue(2)
    tasks = [{"id": name, "prompt": "Hi"} for name in "abc"]
    assert said(talk.receive(text(type="submit", tasks=tasks, subscribe=True)))["status"] == 429
    subscribed(talk, "s")
    talk.receive(text(type="subscribe", stream_id="t"))  # not granted yet, and counted
    assert said(talk.receive(text(type="subscribe", id="1", stream_id="u")))["status"] == 429
    talk.ended("s")
    subscribed(talk, "u")


@pytest.mark.parametrize(
    ("message", "id_", "word"),
    [
        (None, None, "text frame"),
        ("", None, "no valid JSON"),
        ("{", None, "no valid JSON"),
        ("[]", None, "Expected `object`"),
        ("{}", None, "type"),
        ('{"id": "7"}', "7", "type"),
        ('{"type": "sing", "id": "7"}', "7", "Invalid value 'sing'"),
        ('{"type": "ping", "id": "7", "more": 1}', "7", "more"),
        ('{"type": "ping", "id": {}}', None, "id"),
        ('{"type": "ping", "id": "%s"}' % ("7" * 129), None, "id"),
        ('{"type": "subscribe", "id": 7}', 7, "stream_id"),
        ('{"type": "subscribe", "stream_id": 5}', None, "stream_id"),
        ('{"type": "subscribe", "stream_id": "s", "window": 0}', None, "window"),
        ('{"type": "submit", "tasks": [{}]}', None, "tasks"),
        ('{"type": "acknowledge", "id": 3, "stream_id": "s", "seq": 1.5}', 3, "seq"),
        ("[" * 100_000, None, ""),
        ('{"type": "ping", "id": "\ud800"}', None, ""),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(message: str | None, id_: Any, word: str) -> None:
    problem = said(dialogue().receive(message))
    assert (problem["type"], problem["id"], problem["status"]) == ("problem", id_, 400)
    assert word in problem["detail"]


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda it: st.lists(it)).map(json.dumps))
def test_no_message_breaks_it(message: str) -> None:
    assert dialogue().receive(message)


# --- all of them, in any order --------------------------------------------------------------------------------------


class Talking(RuleBasedStateMachine):
    """A client that keeps to nothing, and a model of what it may see."""

    streams = Bundle("streams")
    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.talk = dialogue(3)
        self.granted: dict[str, tuple[int | None, int, int]] = {}  # window, sent, acknowledged
        self.pending: set[str] = set()

    @rule(target=streams, name=st.sampled_from("abcdef"))
    def stream(self, name: str) -> str:
        return name

    @rule(target=asked, stream=streams, window=st.none() | st.integers(1, 5))
    def subscribe(self, stream: str, window: int | None) -> Any:
        fields = {} if window is None else {"window": window}
        (action,) = self.talk.receive(text(type="subscribe", stream_id=stream, **fields))
        known = stream in self.granted or stream in self.pending
        if known or len(self.granted) + len(self.pending) >= 3:
            assert said([action])["status"] == (409 if known else 429)
            return multiple()
        assert type(action) is Follow
        self.pending.add(stream)
        return action.message

    @rule(message=consumes(asked), seq=st.integers(0, 9), found=st.booleans())
    def answered(self, message: Subscribe, seq: int, found: bool) -> None:
        self.pending.discard(message.stream_id)
        if found:
            self.talk.subscribed(message, seq, "cursor")
            self.granted[message.stream_id] = (message.window, seq, seq)
        else:
            self.talk.refused(message.id, Problem(404, "no"), message.stream_id)

    @rule(stream=streams)
    def unsubscribe(self, stream: str) -> None:
        actions = self.talk.receive(text(type="unsubscribe", stream_id=stream))
        if stream in self.granted:
            assert actions[0] == Stop(stream)
            del self.granted[stream]
        else:
            assert said(actions)["status"] == 404

    @rule(stream=streams, count=st.integers(0, 9))
    def send(self, stream: str, count: int) -> None:
        if stream in self.granted:
            window, sent, acknowledged = self.granted[stream]
            count = int(min(count, self.talk.room(stream)))
            self.talk.sent(stream, sent + count)
            self.granted[stream] = (window, sent + count, acknowledged)

    @rule(stream=streams, seq=st.integers(-1, 20))
    def acknowledge(self, stream: str, seq: int) -> None:
        actions = self.talk.receive(text(type="acknowledge", stream_id=stream, seq=seq))
        if stream not in self.granted:
            assert actions == () or said(actions)["status"] == 404
            return
        window, sent, acknowledged = self.granted[stream]
        if seq > sent:
            assert said(actions)["status"] == 400
        else:
            assert actions == ([Open(stream)] if window is not None and seq > acknowledged else ())
            self.granted[stream] = (window, sent, max(seq, acknowledged))

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(sorted(self.granted)))
        self.talk.ended(stream)
        del self.granted[stream]

    @invariant()
    def no_more_is_ever_out_than_the_window(self) -> None:
        for stream, (window, sent, acknowledged) in self.granted.items():
            room = self.talk.room(stream)
            if window is None:
                assert room == float("inf")
            else:
                assert room == window - (sent - acknowledged)
                assert 0 <= room <= window


TestTalking = Talking.TestCase
