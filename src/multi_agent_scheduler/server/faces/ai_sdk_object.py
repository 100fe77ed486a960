"""The AI SDK's objects: ``experimental_useObject`` with ``api: "/v1/ai-sdk/object"``.

Its protocol is a text: the JSON document as it grows, and nothing else. The page completes what it has and shows it,
and takes what it has at the end for the object, so that an answer that is not whole must not end in order: its
connection is cut. Prose and a code fence around the document are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ...errors import ErrorInfo, StreamReset, agent_error
from ...records import SUCCESSFUL, TERMINALS, Completed, Record
from ...schema import Schema
from ...store.core import StreamInfo
from ...task import Task
from ...views.objects import ObjectView, Partial
from ...wire import ai_sdk
from ...wire.partial_json import Spelling
from ..answering import respond
from ..exchange import Exchange, decoded
from ..face import Asked, Renderer
from ..routing import Route
from ..schemas import check_sizes
from .ai_sdk import AISDK, check_settings
from .failure import failure_of
from .shapes import OBJECT
from .spoken import check_numbers

__all__ = ["FACE", "ROUTES"]

_ANY: Final = Schema.of({})


class _Document(Renderer):
    """The document's text. Its last character comes with the end of the stream: until then it may have failed."""

    heartbeat = b"\n"
    cuts = True

    def __init__(self) -> None:
        self._view = ObjectView(_ANY)
        self._spelling = Spelling()
        self._begun = False
        self._last = b""

    def feed(self, first: int, records: Sequence[Record]) -> bytes:  # noqa: ARG002 - it is fed from the start
        text = self._spelled(self._view.feed(records))
        terminal = records[-1]
        if isinstance(terminal, TERMINALS):
            error = failure_of(terminal)
            if error is None and isinstance(terminal, Completed) and terminal.stop_reason not in SUCCESSFUL:
                error = ErrorInfo("content_filter", f"the answer ended with {terminal.stop_reason}")
            if error is not None:
                raise agent_error(error)
            text += self._spelled(self._view.close()) + self._last
        problem = self._view.problem
        if problem is not None and (self._begun or isinstance(terminal, TERMINALS)):
            raise agent_error(ErrorInfo("invalid_output", str(problem)))
        self.heartbeat = b"" if self._spelling.in_string or self._last else b"\n"
        return text

    def _spelled(self, partial: Partial | None) -> bytes:
        if partial is None:
            return b""
        if partial.restarted is not None and self._begun:
            raise StreamReset(f"a part of the object was taken back ({partial.restarted}), which no text can show")
        text = self._spelling.feed(partial.changes, partial.completed)
        self._begun = self._begun or bool(text)
        if () in partial.completed:
            kept = len(text) - 1 if text[-1:] in b'}]"' else 0  # nothing of a number is shown before all of it is
            text, self._last = text[:kept], text[kept:]
        return text

    def broken(self, error: ErrorInfo) -> bytes:  # noqa: ARG002 - the connection is cut
        return b""


class AISDKObject(AISDK):
    """A client that leaves stops its answer: it has no way back."""

    name = "ai_sdk_object"
    content_type = b"text/plain; charset=utf-8"
    headers = ()

    def parse(self, body: bytes) -> Asked:
        fields = decoded(body, object)
        if isinstance(fields, dict):
            check_settings(fields)
        request = ai_sdk.parse_object(fields)
        check_numbers(request)
        check_sizes(request)
        return Asked(request=request, model=request.model or "", streaming=True)

    def renderer(self, asked: Asked, stream: StreamInfo) -> Renderer:  # noqa: ARG002
        return _Document()


FACE: Final = AISDKObject()


async def make(exchange: Exchange) -> None:
    """``POST /v1/ai-sdk/object``. Without a model the scheduler's choice answers."""
    asked = FACE.parse(await exchange.body())
    model = asked.model or exchange.server.scheduler.select_agent(Task("object", ""))
    await respond(exchange, FACE, msgspec.structs.replace(asked, model=model))


ROUTES: Final = (
    Route(
        method="POST", path="/v1/ai-sdk/object", handler=make, problem=FACE.problem, answers={200: str},
        summary="A JSON document as it grows, for the AI SDK's useObject.", body=OBJECT,
    ),
)  # fmt: skip
