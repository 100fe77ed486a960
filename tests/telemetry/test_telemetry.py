"""What OpenTelemetry is told: read back from the SDK's own exporters in memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from multi_agent_scheduler.agents import CompatibleAgent, Hedge, Retry
from multi_agent_scheduler.errors import InvalidConfiguration, StoreError
from multi_agent_scheduler.events import EventBus
from multi_agent_scheduler.metrics import Metrics
from multi_agent_scheduler.scheduler import MultiAgentScheduler
from multi_agent_scheduler.store.memory import MemoryStore
from multi_agent_scheduler.task import Task, Template
from multi_agent_scheduler.telemetry import Telemetry
from tests.agents.server import Provider, answer, chat

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
BROKEN = answer(b'{"error": {"message": "the secret prompt was"}}', status=500)


class Watched:
    """Telemetry, and what came of it."""

    def __init__(self, **options: Any) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider([self._reader])
        self.telemetry = Telemetry(tracer_provider=self.tracers, meter_provider=meters, **options)

    def scheduler(self, agents: Any, **options: Any) -> MultiAgentScheduler:
        return MultiAgentScheduler(agents, telemetry=self.telemetry, event_bus=EventBus(), metrics=Metrics(), **options)

    def spans(self, beginning: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name.startswith(beginning)]

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


def compatible(provider: Provider) -> CompatibleAgent:
    return CompatibleAgent("secret-key", base_url=f"{provider.url}/v1", model="m-1")


async def test_a_task_has_a_span_and_its_call_one_below_it() -> None:
    watched = Watched()
    async with Provider(answer(chat("Hel", "lo"))) as provider:
        async with watched.scheduler({"a": compatible(provider)}) as scheduler:
            task = Task("t1", "the secret prompt", "creative", options={"max_tokens": 9, "stop": "END"})
            result = await scheduler.execute_task(task)
        headers = provider.requests[0].headers
    (span,), (call,) = watched.spans("invoke_agent"), watched.spans("chat")
    assert (span.name, span.kind, span.status.status_code) == ("invoke_agent a", SpanKind.INTERNAL, StatusCode.UNSET)
    assert span.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "a",
        "gen_ai.response.model": result.model,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "mas.stream.id": result.stream_id,
        "mas.task.id": "t1",
        "mas.task.type": "creative",
        "mas.task.state": "completed",
    }
    assert (call.name, call.kind) == ("chat m-1", SpanKind.CLIENT)
    assert call.parent is not None and call.parent.span_id == span.context.span_id
    told = dict(call.attributes or {})
    assert 0 < told.pop("gen_ai.response.time_to_first_chunk") < 10  # type: ignore[operator]
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.stream": True,
        "gen_ai.response.model": result.model,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.id": told["gen_ai.response.id"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "mas.agent.name": "a",
        "mas.call": 1,
        "mas.call.attempt": 1,
        "mas.call.outcome": "completed",
    }
    assert headers["traceparent"].startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-0")
    assert "secret" not in span.to_json() + call.to_json()


async def test_what_calls_took_is_measured_without_ids() -> None:
    watched = Watched()
    async with Provider(answer(chat("Hi"))) as provider, watched.scheduler({"a": compatible(provider)}) as scheduler:
        await scheduler.execute_task(Task("t1", "x"))
    labels = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m-1"}
    (duration,) = watched.points("gen_ai.client.operation.duration")
    assert duration.count == 1
    assert {name: duration.attributes[name] for name in labels} == labels
    assert set(duration.attributes) <= {*labels, "gen_ai.response.model"}
    assert duration.explicit_bounds[0] == 0.01
    assert watched.points("gen_ai.client.operation.time_to_first_chunk")[0].count == 1
    tokens = watched.points("gen_ai.client.token.usage")
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in tokens} == {"input": 3, "output": 1}


async def test_a_failure_is_told_by_its_type_and_nothing_of_the_providers_text() -> None:
    watched = Watched()
    async with Provider(BROKEN) as provider, watched.scheduler({"a": compatible(provider)}) as scheduler:
        await scheduler.execute_task(Task("t1", "x"))
    for span in (*watched.spans("invoke_agent"), *watched.spans("chat")):
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None and span.attributes["error.type"] == "server_error"
        assert "secret" not in span.to_json()
    (duration,) = watched.points("gen_ai.client.operation.duration")
    assert duration.attributes["error.type"] == "server_error"
    assert watched.points("gen_ai.client.operation.time_to_first_chunk") == []


async def test_each_retry_and_candidate_is_a_call_of_the_same_task() -> None:
    watched = Watched()
    async with Provider(BROKEN, answer(chat("a")), answer(chat("b"))) as provider:
        agent = Retry(compatible(provider), attempts=2, base=0.001)
        async with watched.scheduler({"a": agent}) as scheduler:
            assert (await scheduler.execute_task(Task("t1", "x"))).success
    calls = watched.spans("chat")
    assert [dict(call.attributes or {})["mas.call.outcome"] for call in calls] == ["failed", "completed"]
    assert [dict(call.attributes or {})["mas.call.attempt"] for call in calls] == [1, 2]
    (span,) = watched.spans("invoke_agent")
    assert {call.parent.span_id for call in calls if call.parent} == {span.context.span_id}


async def test_a_loser_that_was_closed_is_no_error() -> None:
    async def slow(prompt: str, **_: Any) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def quick(prompt: str, **_: Any) -> AsyncIterator[str]:
        yield "here"

    watched = Watched()
    async with watched.scheduler({"a": Hedge(slow, quick, after=0.0)}) as scheduler:  # type: ignore[arg-type]
        assert (await scheduler.execute_task(Task("t1", "x"))).success
    outcomes = {dict(call.attributes or {})["mas.call.outcome"]: call for call in watched.spans("chat")}
    assert set(outcomes) == {"cancelled", "completed"}
    assert outcomes["cancelled"].status.status_code is StatusCode.UNSET
    assert outcomes["cancelled"].kind is SpanKind.INTERNAL


async def test_a_trace_that_comes_in_goes_on() -> None:
    watched = Watched()
    async with Provider(answer(chat("Hi"))) as provider:
        async with watched.scheduler({"a": compatible(provider)}) as scheduler:
            await scheduler.execute_task(Task("t1", "x"), trace={**PARENT, "X-Mine": "1"})
        headers = provider.requests[0].headers
    (span,) = watched.spans("invoke_agent")
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None and f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert headers["x-mine"] == "1"
    assert re.fullmatch(rf"00-{TRACE}-(?!b7ad6b7169203331)[0-9a-f]{{16}}-0[13]", headers["traceparent"])


async def test_a_broken_traceparent_begins_a_trace_of_its_own() -> None:
    watched = Watched()
    async with Provider(answer(chat("Hi"))) as provider:
        async with watched.scheduler({"a": compatible(provider)}) as scheduler:
            await scheduler.execute_task(Task("t1", "x"), trace={"traceparent": "nonsense"})
        assert provider.requests[0].headers["traceparent"] != "nonsense"
    assert watched.spans("invoke_agent")[0].parent is None


async def test_the_span_that_is_current_where_a_plan_is_submitted_is_the_parent_of_all_its_tasks() -> None:
    async def echo(prompt: str, **_: Any) -> AsyncIterator[str]:
        yield prompt

    watched = Watched()
    plan = [Task("one", "x"), Task("two", Template("${one}"), depends_on=["one"]), Task("three", "y")]
    async with watched.scheduler({"a": echo}, max_running=1) as scheduler:
        with watched.tracers.get_tracer("test").start_as_current_span("request") as request:
            handle = await scheduler.submit_plan(plan)
        await handle.result()
    assert len(watched.spans("invoke_agent")) == 3
    for span in watched.spans("invoke_agent"):
        assert span.parent is not None and span.parent.span_id == request.get_span_context().span_id


async def test_a_reader_that_leaves_early_detaches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "opentelemetry")

    async def endless(prompt: str, **_: Any) -> AsyncIterator[str]:
        while True:
            yield "x"
            await asyncio.sleep(0)

    watched = Watched()
    async with watched.scheduler({"a": endless}) as scheduler:
        with watched.tracers.get_tracer("test").start_as_current_span("request"):
            stream = scheduler.execute_task_stream(Task("t1", "x"))
            await anext(stream)
        await asyncio.create_task(stream.aclose())
    assert caplog.records == []
    (span,), (call,) = watched.spans("invoke_agent"), watched.spans("chat")
    assert dict(span.attributes or {})["mas.task.state"] == "cancelled"
    assert span.status.status_code is call.status.status_code is StatusCode.UNSET


async def test_a_run_that_its_store_left_alone_ends_its_spans() -> None:
    class Gone(MemoryStore):
        def finish(self, *_: Any) -> None:
            raise StoreError("the disk is gone")

    async def hello(prompt: str, **_: Any) -> AsyncIterator[str]:
        yield "x"

    watched = Watched()
    async with watched.scheduler({"a": hello}, store=Gone()) as scheduler:
        with pytest.raises(StoreError):
            await scheduler.execute_task(Task("t1", "x"))
    assert len(watched.spans("invoke_agent")) == 1


async def test_content_is_told_only_to_those_who_ask_for_it() -> None:
    watched = Watched(capture_content=True)
    async with Provider(answer(chat("Hello"))) as provider, watched.scheduler({"a": compatible(provider)}) as scheduler:
        await scheduler.execute_task(Task("t1", "Hi", options={"system": "Be kind"}))
    told = dict(watched.spans("invoke_agent")[0].attributes or {})
    assert json.loads(str(told["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be kind"}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
    ]
    assert json.loads(str(told["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "stop"}
    ]
    assert "Hello" not in watched.spans("chat")[0].to_json()


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidConfiguration, match=r"^telemetry needs OpenTelemetry: pip install .*\[otel\]'$"):
        Telemetry()


EXPORTED = """
import asyncio
from multi_agent_scheduler import MultiAgentScheduler, Task
from multi_agent_scheduler.telemetry import Telemetry

async def echo(prompt, **_):
    yield prompt

async def main():
    async with MultiAgentScheduler({"a": echo}, telemetry=Telemetry.from_environment()) as scheduler:
        await scheduler.execute_task(Task("t1", "x"))

asyncio.run(main())
"""


async def test_the_environment_says_where_to_send_it() -> None:
    accepted = answer(b"", status=200, headers={"Content-Type": "application/x-protobuf"}, framing="length")
    async with Provider(accepted, accepted) as provider:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": provider.url, "OTEL_SERVICE_NAME": "shop", "NO_PROXY": "*"}
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", EXPORTED, env={**os.environ, **variables}, stderr=asyncio.subprocess.PIPE
        )
        _, err = await program.communicate()
    assert (program.returncode, err) == (0, b"")
    sent = {request.target: request.body for request in provider.requests}
    assert set(sent) == {"/v1/traces", "/v1/metrics"}
    assert b"invoke_agent a" in gzipped_or_not(sent["/v1/traces"])
    assert b"shop" in gzipped_or_not(sent["/v1/traces"])
    assert b"gen_ai.client.operation.duration" in gzipped_or_not(sent["/v1/metrics"])


def gzipped_or_not(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


@pytest.mark.parametrize(
    "variables", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}]
)
def test_nothing_is_told_unless_the_environment_says_to_whom(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Telemetry.from_environment() is None
