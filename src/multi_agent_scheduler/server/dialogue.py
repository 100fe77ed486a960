"""The protocol of ``/v1/ws``, without a socket: what a client's messages ask for, and what it is told.

Pure. :meth:`Dialogue.receive` turns a message into actions; whoever holds the socket does them, and says how that went
by :meth:`~Dialogue.submitted`, :meth:`~Dialogue.subscribed`, :meth:`~Dialogue.cancelled` or :meth:`~Dialogue.refused`,
which give actions again. docs/websocket.md is the protocol as clients see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from .bodies import TaskBody
from .problem import Problem
from .routing import native_problem

__all__ = [
    "Action",
    "Cancel",
    "Dialogue",
    "Follow",
    "Open",
    "Say",
    "Start",
    "Stop",
    "Submit",
    "Subscribe",
    "problem_message",
]

_Id: TypeAlias = Annotated[str, msgspec.Meta(max_length=128)] | int | None
_Key: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern="^[^\\x00-\\x1f\\x7f]+$")]
_Window: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
_Pace: TypeAlias = Annotated[str, msgspec.Meta(max_length=40)] | None
_View: TypeAlias = Literal["records", "object"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What a client says. ``id`` comes back in the reply; it is the client's own."""

    id: _Id = None


class Submit(_Message, frozen=True, kw_only=True, tag="submit"):
    """Start a plan; with an ``idempotency_key`` the same tasks run once, as over HTTP. Unless it is to ``detach``, its
    tasks are cancelled a while after the socket has gone."""

    tasks: list[TaskBody]
    idempotency_key: _Key | None = None
    subscribe: bool = False
    detach: bool = False
    window: _Window | None = None
    pace: _Pace = None
    view: _View = "records"


class Subscribe(_Message, frozen=True, kw_only=True, tag="subscribe"):
    """Send the records of a stream behind a cursor, no more than ``window`` ahead of what was acknowledged, and no
    faster than ``pace``; as they are, or in the ``view`` of what each commit changed in the object."""

    stream_id: str
    after: str = ""
    window: _Window | None = None
    pace: _Pace = None
    view: _View = "records"


class _Unsubscribe(_Message, frozen=True, kw_only=True, tag="unsubscribe"):
    stream_id: str


class _Acknowledge(_Message, frozen=True, kw_only=True, tag="acknowledge"):
    stream_id: str
    seq: int


class Cancel(_Message, frozen=True, kw_only=True, tag="cancel"):
    """Stop a stream."""

    stream_id: str
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = "cancelled"


class _Ping(_Message, frozen=True, kw_only=True, tag="ping"):
    pass


class _Envelope(msgspec.Struct):
    id: _Id = None


class Say(msgspec.Struct, frozen=True):
    """Send this message."""

    message: bytes


class Start(msgspec.Struct, frozen=True):
    """Submit the tasks; then :meth:`Dialogue.submitted` or :meth:`Dialogue.refused`."""

    message: Submit


class Follow(msgspec.Struct, frozen=True):
    """Find the stream and its cursor, then :meth:`Dialogue.subscribed` or :meth:`Dialogue.refused`, then show it."""

    message: Subscribe


class Stop(msgspec.Struct, frozen=True):
    """Show the stream no more."""

    stream_id: str


class Open(msgspec.Struct, frozen=True):
    """There is room in the stream's window again."""

    stream_id: str


Action: TypeAlias = Say | Start | Follow | Stop | Open | Cancel


class _Subscription(msgspec.Struct):
    window: int | None
    sent: int
    acknowledged: int


_decoder: Final = msgspec.json.Decoder(Submit | Subscribe | _Unsubscribe | _Acknowledge | Cancel | _Ping)
_envelope: Final = msgspec.json.Decoder(_Envelope)
_json: Final = msgspec.json.Encoder()


class Dialogue:
    """One connection. It has at most ``max_subscriptions`` at once."""

    def __init__(self, *, max_subscriptions: int) -> None:
        self._max = max_subscriptions
        self._subscriptions: dict[str, _Subscription | None] = {}  # None: asked for, and not yet granted

    def receive(self, text: str | None) -> Sequence[Action]:
        """What a message asks for. None is a message that is no text. Raises nothing."""
        if text is None:
            return self.refused(None, Problem(400, "a message is JSON in a text frame, not a binary one"))
        try:
            message = _decoder.decode(text)
        except msgspec.ValidationError as error:
            return self.refused(_id_of(text), Problem(400, f"the message does not fit: {error}"))
        except (msgspec.DecodeError, UnicodeError) as error:
            return self.refused(None, Problem(400, f"the message is no valid JSON: {error}"))
        except RecursionError:
            return self.refused(None, Problem(400, "the message is nested too deep"))
        try:
            return self._asked(message)
        except Problem as problem:
            return self.refused(message.id, problem)

    def _asked(self, message: Any) -> Sequence[Action]:
        match message:
            case Submit():
                if message.subscribe:
                    self._check_room(len(message.tasks))
                return [Start(message)]
            case Subscribe(stream_id=stream_id):
                if stream_id in self._subscriptions:
                    raise Problem(409, "this connection has subscribed to this stream already")
                self._check_room(1)
                self._subscriptions[stream_id] = None
                return [Follow(message)]
            case _Unsubscribe(stream_id=stream_id):
                self._subscription(stream_id)
                del self._subscriptions[stream_id]
                return [Stop(stream_id), _reply(message.id, "unsubscribe", stream_id=stream_id)]
            case _Acknowledge(stream_id=stream_id, seq=seq):
                return self._acknowledged(stream_id, seq)
            case Cancel():
                return [message]
        return [_reply(message.id, "ping")]

    def _acknowledged(self, stream_id: str, seq: int) -> Sequence[Action]:
        if stream_id not in self._subscriptions:  # its end was on the way
            return ()
        subscription = self._subscription(stream_id)
        if seq > subscription.sent:
            raise Problem(400, f"seq {seq} cannot be acknowledged: what was sent reaches {subscription.sent}")
        if seq <= subscription.acknowledged:
            return ()
        subscription.acknowledged = seq
        return () if subscription.window is None else [Open(stream_id)]

    def _check_room(self, more: int) -> None:
        if len(self._subscriptions) + more > self._max:
            raise Problem(429, f"a connection may have {self._max} subscriptions at once: end some, or open another")

    def _subscription(self, stream_id: str) -> _Subscription:
        subscription = self._subscriptions.get(stream_id)
        if subscription is None:
            raise Problem(404, "this connection has not subscribed to this stream")
        return subscription

    # --- what came of it ------------------------------------------------------------------------------------------

    def submitted(self, message: Submit, plan_id: str, streams: Mapping[str, str]) -> Sequence[Action]:
        """The plan was accepted."""
        actions: list[Action] = [_reply(message.id, "submit", plan_id=plan_id, streams=streams)]
        if message.subscribe:
            for stream_id in streams.values():
                if stream_id in self._subscriptions:  # it was submitted here before, with the same key
                    continue
                self._subscriptions[stream_id] = None
                actions.append(
                    Follow(
                        Subscribe(
                            id=message.id,
                            stream_id=stream_id,
                            window=message.window,
                            pace=message.pace,
                            view=message.view,
                        )
                    )
                )
        return actions

    def subscribed(self, message: Subscribe, seq: int, cursor: str) -> Sequence[Action]:
        """The stream was found, and is shown behind ``seq``."""
        self._subscriptions[message.stream_id] = _Subscription(message.window, seq, seq)
        return [_reply(message.id, "subscribe", stream_id=message.stream_id, cursor=cursor)]

    def cancelled(self, message: Cancel, first: bool) -> Sequence[Action]:
        """The stream was stopped; not ``first`` if it had ended or was being stopped already."""
        return [_reply(message.id, "cancel", stream_id=message.stream_id, cancelled=first)]

    def refused(self, id: _Id, problem: Problem, stream_id: str | None = None) -> Sequence[Say]:  # noqa: A002
        """What the message ``id`` asked for cannot be. With a ``stream_id`` its subscription is over."""
        if stream_id is not None:
            self._subscriptions.pop(stream_id, None)
        return [Say(problem_message(problem, id, stream_id))]

    # --- showing --------------------------------------------------------------------------------------------------

    def room(self, stream_id: str) -> float:
        """How many records of a stream may be sent now."""
        subscription = self._subscriptions.get(stream_id)
        if subscription is None:
            return 0
        if subscription.window is None:
            return float("inf")
        return subscription.acknowledged + subscription.window - subscription.sent

    def sent(self, stream_id: str, seq: int) -> None:
        """The records up to ``seq`` were sent."""
        self._subscription(stream_id).sent = seq

    def ended(self, stream_id: str) -> None:
        """All of a stream was sent, its end too: the subscription is over."""
        self._subscriptions.pop(stream_id, None)


def problem_message(problem: Problem, id: _Id = None, stream_id: str | None = None) -> bytes:  # noqa: A002
    """A problem document as a message: of what the client asked for as ``id``, about a stream."""
    message: dict[str, Any] = {"type": "problem", "id": id}
    if stream_id is not None:
        message["stream_id"] = stream_id
    return _json.encode(message | msgspec.json.decode(native_problem(problem).body))


def _reply(id: _Id, to: str, **fields: Any) -> Say:  # noqa: A002
    return Say(_json.encode({"type": "reply", "id": id, "to": to, **fields}))


def _id_of(text: str) -> _Id:
    try:
        return _envelope.decode(text).id
    except (msgspec.DecodeError, RecursionError):
        return None
