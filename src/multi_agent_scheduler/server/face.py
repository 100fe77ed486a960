"""What a protocol has to say so that the server can speak it: one :class:`Face` each.

The server does what they have in common: it submits what was asked, sends the headers once there is content, renders
each commit once, sends heartbeats, follows a reader's leaving, and ends a stream that cannot go on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import ErrorInfo
from ..records import Record
from ..request import Request
from ..store.core import StreamInfo
from .problem import Problem

__all__ = ["Answer", "Asked", "Face", "Headers", "Leaving", "Renderer"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

Leaving: TypeAlias = Literal["cancel", "continue"] | float
"""What becomes of a stream whose reader leaves; a number is how many seconds it goes on without one."""


class Answer(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: Headers = ()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a face has read it.

    ``model`` is the client's word for who is to answer, an agent's name or ``agent/model``; ``options`` is what the
    face's renderer needs beside (whether usage is wanted, say).
    """

    request: Request
    model: str
    streaming: bool
    leaving: Leaving = "cancel"
    options: Any = None
    task_id: str | None = None
    """The id of the task to be made; None makes one up."""
    metadata: Mapping[str, Any] = {}


class Renderer(ABC):
    """One stream's records as a protocol's bytes, for all readers that stand at the same place.

    It is fed the log from its start, in order. Given the same records it gives the same bytes, however they are cut
    into batches: several readers may be served by one renderer, or each by its own.
    """

    stateful: bool = True
    """Whether what is rendered depends on what came before. One that is not may be fed from any place."""

    heartbeat: bytes = b": keep-alive\n\n"
    """What is sent when there has been nothing to send for a while."""

    cuts: bool = False
    """Whether a response that is no whole answer must break off, since the protocol has no word for that."""

    @abstractmethod
    def feed(self, first: int, records: Sequence[Record]) -> bytes:
        """The bytes that show these records, of which the first has seq ``first``; with the terminal, also the end.

        Raises :class:`~multi_agent_scheduler.errors.StreamReset` where a reader cannot be told to forget, and
        :class:`~multi_agent_scheduler.errors.AgentError` where it cannot be told how the stream ended: the server then
        ends the reader with :meth:`broken`.
        """

    @abstractmethod
    def broken(self, error: ErrorInfo) -> bytes:
        """The last bytes for a reader who will get no more, though the stream has not ended for it."""


class Face(ABC):
    """A protocol in which streams are asked for and read."""

    name: str
    """For logs and metrics, and to tell apart what is rendered differently."""

    content_type: bytes = b"text/event-stream; charset=utf-8"
    """Of a streamed answer."""

    headers: Headers = ()
    """Sent with every streamed answer, beside those that every stream has."""

    @abstractmethod
    def parse(self, body: bytes) -> Asked:
        """Read a request's body, which is within its bounds and else unchecked.

        Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` or :class:`~.problem.Problem`.
        """

    @abstractmethod
    def renderer(self, asked: Asked, stream: StreamInfo) -> Renderer:
        """A new renderer for a stream."""

    @abstractmethod
    def whole(self, asked: Asked, stream: StreamInfo, records: Sequence[Record]) -> Answer:
        """The answer to a request that wants no stream, from all records of one that has ended.

        Also the answer to one that wants a stream, where it failed before there was any content: with the status of
        the error, so that clients can tell before they read.
        """

    @abstractmethod
    def problem(self, problem: Problem) -> Answer:
        """A problem in this protocol's shape. The server adds the problem's headers."""
