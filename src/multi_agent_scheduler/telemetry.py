"""OpenTelemetry: a span for each task, one below it for each of its Calls, and what Calls took as metrics.

Names are those of the GenAI semantic conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/). What a span
tells is read from the records of a run, and its parent is named explicitly: nothing is attached to a running task, so
that nothing has to be detached from it when a reader leaves. It needs the ``otel`` extra.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .__about__ import VERSION
from .errors import CallerError, InvalidConfiguration
from .records import CallEnded, CallStarted, Record, Usage
from .request import ImagePart, Message, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from .runner import Watcher

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from .agents.context import Context
    from .request import Request
    from .runner import Run
    from .task import Result, Task

__all__ = ["Telemetry"]

_SCOPE: Final = "multi_agent_scheduler"

# The conventions' names of providers, by the protocol that a Call speaks. Where another provider speaks the same, it is
# the protocol's that is told, as the conventions allow.
_PROVIDERS: Final = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "anthropic": "anthropic",
    "gemini": "gcp.gemini",
}
_OWN: Final = _SCOPE  # a function of the user's in this process is nobody's API
_REQUEST: Final = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
    "stop": "gen_ai.request.stop_sequences",
}
_USAGE: Final = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
}
# The bounds that the conventions recommend.
_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKENS: Final = tuple(float(4**power) for power in range(14))


class Telemetry:
    """What a scheduler tells OpenTelemetry: ``MultiAgentScheduler(agents, telemetry=Telemetry())``.

    Without providers the global ones are used, as the program has set them. ``capture_content`` adds what was asked and
    answered to the spans of tasks; it is off because prompts may be private. Raises InvalidConfiguration if
    OpenTelemetry is not installed.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        capture_content: bool = False,
    ) -> None:
        _check_installed("opentelemetry.trace")
        from opentelemetry import metrics, trace

        self.capture_content = capture_content
        self.tracer: Tracer = trace.get_tracer(_SCOPE, VERSION, tracer_provider)
        meter = metrics.get_meter(_SCOPE, VERSION, meter_provider)

        def histogram(name: str, unit: str, description: str, bounds: Sequence[float]) -> Histogram:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)

        self.duration = histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", _SECONDS)
        self.first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", _FIRST
        )
        self.tokens = histogram("gen_ai.client.token.usage", "{token}", "Number of tokens used.", _TOKENS)

    @classmethod
    def from_environment(cls) -> Telemetry | None:
        """What programs of ours tell: nothing (None) unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` says to whom.

        Sent as OTLP over HTTP; OpenTelemetry's other variables hold (``OTEL_SERVICE_NAME``, ``OTEL_SDK_DISABLED``...),
        and ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true`` turns ``capture_content`` on. What was not sent
        yet is sent at the end of the process. Raises InvalidConfiguration if the ``otel`` extra is not installed.
        """
        if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _is_true("OTEL_SDK_DISABLED"):
            return None
        _check_installed("opentelemetry.sdk")
        _check_installed("opentelemetry.exporter.otlp.proto.http")
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "mas"})
        tracers = TracerProvider(resource=resource)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
        content = _is_true("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
        return cls(tracer_provider=tracers, meter_provider=meters, capture_content=content)

    def current(self) -> Mapping[str, str]:
        """The header fields that name the span that is current here: none if there is none."""
        return _fields(None)

    def watcher(self, inner: Watcher, task: Task, context: Context, request: Callable[[], Request]) -> Watcher:
        """A watcher of one run that tells it here as well. The run's Calls carry its span's ``traceparent``."""
        return _Traced(self, inner, task, context, request)


class _Traced(Watcher):
    """One run: its span, and those of the Calls that are open."""

    def __init__(
        self, telemetry: Telemetry, inner: Watcher, task: Task, context: Context, request: Callable[[], Request]
    ) -> None:
        self._telemetry = telemetry
        self._inner = inner
        self._task = task
        self._context = context
        self._request = request
        self._asked: dict[str, Any] = {}
        self._span: Span | None = None
        self._below: Any = None
        self._calls: dict[int, _Call] = {}

    def started(self, run: Run) -> None:
        from opentelemetry.trace import set_span_in_context

        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": run.agent_name,
            "mas.stream.id": run.stream_id,
            "mas.task.id": self._task.id,
            "mas.task.type": self._task.task_type,
        }
        self._span = self._telemetry.tracer.start_span(
            f"invoke_agent {run.agent_name}", context=_extracted(self._context.trace), attributes=attributes
        )
        self._below = set_span_in_context(self._span)
        self._context.trace = {**_without_trace(self._context.trace), **_fields(self._below)}
        self._tell_request(self._span)
        self._inner.started(run)

    def batch(self, run: Run, records: Sequence[Record], now: float) -> None:
        for record in records:
            if type(record) is CallStarted:
                self._calls[record.call] = _Call(self._telemetry, record, self._below, self._asked, now)
            elif type(record) is CallEnded and record.call in self._calls:
                self._calls.pop(record.call).end(record, now)
        self._inner.batch(run, records, now)

    def ended(self, run: Run, result: Result) -> None:
        for number, call in self._calls.items():  # those that the end of the run has ended
            call.end(CallEnded(number, result.state, error=result.error), self._context.clock())
        self._calls.clear()
        span = self._span
        if span is not None and span.is_recording():
            span.set_attribute("mas.task.state", result.state)
            if result.model:
                span.set_attribute("gen_ai.response.model", result.model)
            if result.stop_reason is not None:
                span.set_attribute("gen_ai.response.finish_reasons", [result.stop_reason])
            span.set_attributes(_used(result.usage))
            if result.error is not None and result.state != "cancelled":
                _mark_failed(span, result.error.code)
            if self._telemetry.capture_content:
                self._tell_answer(span, result)
        self._close()
        self._inner.ended(run, result)

    def broken(self, run: Run) -> None:
        self._close()
        self._inner.broken(run)

    def _close(self) -> None:
        for call in self._calls.values():
            call.span.end()
        self._calls.clear()
        if self._span is not None:
            self._span.end()
            self._span = None

    def _tell_request(self, span: Span) -> None:
        try:
            request = self._request()
        except CallerError:  # the run fails for the same reason
            return
        asked = {name: getattr(request, field) for field, name in _REQUEST.items()}
        self._asked = {name: value for name, value in asked.items() if value is not None and value != ()}
        if self._telemetry.capture_content and span.is_recording():
            span.set_attribute("gen_ai.input.messages", _json([_message(message) for message in request.messages]))

    def _tell_answer(self, span: Span, result: Result) -> None:
        parts: list[dict[str, Any]] = [{"type": "text", "content": result.text}] if result.text else []
        parts += [
            {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
            for call in result.tool_calls
        ]
        answer = {"role": "assistant", "parts": parts, "finish_reason": result.stop_reason or "error"}
        span.set_attribute("gen_ai.output.messages", _json([answer]))


class _Call:
    """One Call: its span from the start to the end, and its metrics at the end."""

    def __init__(
        self, telemetry: Telemetry, started: CallStarted, below: Any, asked: Mapping[str, Any], now: float
    ) -> None:
        from opentelemetry.trace import SpanKind

        provider = _PROVIDERS.get(started.protocol or "", _OWN)
        operation = "generate_content" if provider == "gcp.gemini" else "chat"
        self._telemetry = telemetry
        self._started = started
        self._now = now
        self._labels: dict[str, Any] = {"gen_ai.operation.name": operation, "gen_ai.provider.name": provider}
        if started.model:
            self._labels["gen_ai.request.model"] = started.model
        attributes = {**self._labels, **asked, "gen_ai.request.stream": True}
        attributes |= {"mas.agent.name": started.agent, "mas.call": started.call, "mas.call.attempt": started.attempt}
        if started.branch is not None:
            attributes["mas.branch"] = started.branch
        if started.cached:
            attributes["mas.cached"] = True
        remote = provider != _OWN and not started.cached
        self.span = telemetry.tracer.start_span(
            f"{operation} {started.model}" if started.model else operation,
            context=below,
            kind=SpanKind.CLIENT if remote else SpanKind.INTERNAL,
            attributes=attributes,
        )

    def end(self, ended: CallEnded, now: float) -> None:
        span, labels = self.span, self._labels
        if ended.model:
            labels["gen_ai.response.model"] = ended.model
            span.set_attribute("gen_ai.response.model", ended.model)
        if ended.response_id:
            span.set_attribute("gen_ai.response.id", ended.response_id)
        if ended.stop_reason is not None:
            span.set_attribute("gen_ai.response.finish_reasons", [ended.stop_reason])
        if ended.ttft is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", ended.ttft)
        span.set_attribute("mas.call.outcome", ended.outcome)
        span.set_attributes(_used(ended.usage))
        if ended.error is not None and ended.outcome != "cancelled":
            _mark_failed(span, ended.error.code)
        if not self._started.cached:
            self._measure(ended, max(0.0, now - self._now) if ended.latency is None else ended.latency)
        span.end()

    def _measure(self, ended: CallEnded, seconds: float) -> None:
        telemetry, labels = self._telemetry, self._labels
        failed = ended.error is not None or ended.outcome == "cancelled"
        outcome = {"error.type": "cancelled" if ended.error is None else ended.error.code} if failed else {}
        telemetry.duration.record(seconds, {**labels, **outcome})
        if ended.ttft is not None:
            telemetry.first_chunk.record(ended.ttft, labels)
        for kind in ("input", "output"):
            tokens = None if ended.usage is None else getattr(ended.usage, f"{kind}_tokens")
            if tokens is not None:
                telemetry.tokens.record(tokens, {**labels, "gen_ai.token.type": kind})


def _check_installed(package: str) -> None:
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # not even what it is in
        found = None
    if found is None:
        raise InvalidConfiguration("telemetry needs OpenTelemetry: pip install 'multi-agent-scheduler[otel]'")


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() == "true"


def _mark_failed(span: Span, code: str) -> None:
    """The error's code says what it was; its sentence may quote the provider, and stays here."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, code))


def _used(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    numbers = {name: getattr(usage, field) for field, name in _USAGE.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _fields(context: Any) -> dict[str, str]:
    """The W3C trace context of a context (None: of the current one) as header fields; baggage is not for providers."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    fields: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(fields, context)
    return fields


def _without_trace(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name.lower() not in ("traceparent", "tracestate")}


def _extracted(fields: Mapping[str, str]) -> Any:
    """The context that header fields name; what has no valid ``traceparent`` begins a trace of its own."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    lower = {name.lower(): value for name, value in fields.items()}
    return TraceContextTextMapPropagator().extract(lower, Context())


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": [_part(part) for part in message.parts]}


def _part(part: Any) -> dict[str, Any]:
    """A part in the conventions' form; of an image and the like only the kind is told."""
    match part:
        case TextPart(text=text) | RefusalPart(text=text):
            return {"type": "text", "content": text}
        case ReasoningPart():
            return {"type": "reasoning", "content": part.text}
        case ToolCallPart():
            return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": part.arguments}
        case ToolResultPart():
            return {"type": "tool_call_response", "id": part.id, "response": [_part(inner) for inner in part.content]}
        case ImagePart():
            return {"type": "image"}
    return {"type": "unknown"}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
