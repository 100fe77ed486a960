"""The tool calls of recorded answers: their arguments as they grow, and in the end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from multi_agent_scheduler.records import Completed, Record, ToolCall
from multi_agent_scheduler.views.summary import summarise
from multi_agent_scheduler.views.tool_calls import ToolCallsView
from multi_agent_scheduler.wire import anthropic, gemini, openai_chat, openai_responses
from multi_agent_scheduler.wire.partial_json import apply
from tests.partial_json.documents import agrees
from tests.wire.replay import decode, recordings

DECODERS: dict[str, Any] = {
    "chat": openai_chat.Decoder,
    "responses": openai_responses.Decoder,
    "messages": anthropic.Decoder,
    "generatecontent": gemini.Decoder,
}
ALL = {
    str(recording): decode(decoder, [recording.body])
    for api, decoder in DECODERS.items()
    for recording in recordings(api)
}
LOGS = {
    name: log
    for name, log in ALL.items()
    if any(isinstance(record, ToolCall) for record in log)
    and isinstance(log[-1], Completed)
    and log[-1].stop_reason != "length"
}
"""Answers that came whole, and have calls."""


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_arguments_as_they_grow(log: list[Record]) -> None:
    # Calls that the provider runs itself may have other things than JSON for arguments.
    wanted = [
        json.loads(call.arguments or "{}") if call.kind == "function" else None for call in summarise(log).tool_calls
    ]
    view, documents = ToolCallsView(), dict[int, Any]()
    for part in [*(view.feed([record]) for record in log), view.close()]:
        for call in part:
            documents[call.index] = apply(documents.get(call.index, UNSET), call.changes)
            if wanted[call.index] is not None:
                assert call.problem is None
                assert agrees(call.value, wanted[call.index])
    for index, value in enumerate(wanted):
        assert value is None or documents[index] == value


def test_there_are_such_recordings() -> None:
    assert len(LOGS) > 20
