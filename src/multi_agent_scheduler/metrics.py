"""Counters, gauges and histograms of what the scheduler does, for programs (:meth:`Metrics.get_all_stats`) and for
Prometheus (:meth:`Metrics.prometheus_text`).

Recording takes no lock: each record is a few operations that the interpreter does not interrupt. Names are dotted
(``tasks.stream_started``); a name with labels is written ``tasks.stream_started{task_type=creative}``. Times are
seconds.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from .errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .records import Usage
    from .task import State

__all__ = ["PROMETHEUS_CONTENT_TYPE", "Counter", "Gauge", "Histogram", "Metrics", "get_metrics"]

PROMETHEUS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_LABEL_VALUES: Final = 200
_LABEL_LENGTH: Final = 100
_OTHER: Final = "other"
_PREFIX: Final = "mas_"
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*(?:\.[a-zA-Z0-9_]+)*")
_LABEL: Final = re.compile(r"(?!__|le$)[a-zA-Z_][a-zA-Z0-9_]*")

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_GAPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_TOKENS: Final = (1.0, 10.0, 30.0, 100.0, 300.0, 1e3, 2e3, 4e3, 8e3, 16e3, 32e3, 64e3, 128e3, 256e3, 512e3, 1e6)

_COUNTERS: Final = {
    "tasks.stream_started": "Streams that began.",
    "tasks.stream_completed": "Streams whose model finished, successfully or not.",
    "tasks.stream_succeeded": "Streams that completed with a usable answer.",
    "tasks.stream_failed": "Streams that an error ended.",
    "tasks.stream_cancelled": "Streams that were stopped on request.",
    "tasks.stream_interrupted": "Streams whose provider or run died in the middle.",
    "tasks.stream_skipped": "Tasks that were never run, because a task they depend on did not succeed.",
    "cache.hits": "Answers that were given from the cache.",
    "cache.misses": "Answers that were looked for in the cache in vain.",
}
_GAUGES: Final = {"streams.active": "Streams that have begun and not ended."}
_HISTOGRAMS: Final = {
    "stream.ttft_seconds": ("Time from the start of a stream to its first content.", _SECONDS),
    "stream.between_chunks_seconds": ("Time from one chunk of a stream to the next.", _GAPS),
    "stream.latency_seconds": ("Time from the start of a stream to its end.", _SECONDS),
    "stream.output_tokens": ("Tokens that a stream's models wrote, where known.", _TOKENS),
    "stream.input_tokens": ("Tokens that a stream's prompts counted for, where known.", _TOKENS),
}

Labels: TypeAlias = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)
    kind: Final = "counter"

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        if not amount >= 0:
            raise InvalidOption(f"a counter only grows: {amount!r} cannot be added")
        self.value += amount


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)
    kind: Final = "gauge"

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        self.value = value

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount


class Histogram:
    """How values are distributed over fixed buckets. ``bounds`` are the buckets' upper bounds, inclusive, rising."""

    __slots__ = ("_counts", "_max", "_min", "_sum", "bounds")
    kind: Final = "histogram"

    def __init__(self, bounds: Sequence[float] = _SECONDS) -> None:
        self.bounds = tuple(float(bound) for bound in bounds)
        rising = all(low < high for low, high in zip(self.bounds, self.bounds[1:], strict=False))
        if not self.bounds or not rising or not all(map(math.isfinite, self.bounds)):
            raise InvalidOption(f"the bounds of a histogram must be finite numbers that rise, not {bounds!r}")
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0
        self._min = math.inf
        self._max = -math.inf

    def observe(self, value: float) -> None:
        """Record one value. What is not a number (NaN) is not counted: it would spoil every sum after it."""
        if value != value:
            return
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value
        if value < self._min:
            self._min = value
        if value > self._max:
            self._max = value

    def cumulative(self) -> tuple[list[int], float]:
        """How many values are at most each bound, the last being all of them; and their sum."""
        return list(accumulate(self._counts)), self._sum

    def stats(self) -> dict[str, float | None]:
        """count, sum, min, max, avg, and p50, p95, p99, estimated from the buckets; None where there are no values."""
        counts = list(self._counts)
        count = sum(counts)
        return {
            "count": count,
            "sum": self._sum,
            "min": self._min if count else None,
            "max": self._max if count else None,
            "avg": self._sum / count if count else None,
            "p50": self._percentile(counts, count, 0.50),
            "p95": self._percentile(counts, count, 0.95),
            "p99": self._percentile(counts, count, 0.99),
        }

    def _percentile(self, counts: list[int], count: int, share: float) -> float | None:
        """Linear inside the bucket, as PromQL's histogram_quantile, and never outside of what was seen."""
        if not count:
            return None
        rank, below = share * count, 0
        edges = (self._min, *self.bounds, self._max)
        for index, inside in enumerate(counts):
            if inside and below + inside >= rank:
                low, high = max(edges[index], self._min), min(edges[index + 1], self._max)
                return low + (high - low) * (rank - below) / inside
            below += inside
        return self._max


_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class _Family:
    """One name: its metrics by label, and how many values each label has had."""

    __slots__ = ("bounds", "description", "exposed", "kind", "members", "name", "values")

    def __init__(self, name: str, kind: type[Any], description: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.kind = kind
        self.description = description
        self.bounds = bounds
        self.exposed = _PREFIX + name.replace(".", "_") + ("_total" if kind is Counter else "")
        self.members: dict[Labels, Any] = {}
        self.values: dict[str, set[str]] = {}

    def member(self, labels: Mapping[str, str] | None) -> Any:
        key: Labels = tuple(sorted(labels.items())) if labels else ()
        found = self.members.get(key)
        if found is None and key:
            key = tuple((label, self._value(label, value)) for label, value in key)
            found = self.members.get(key)
        if found is None:
            made = Histogram(self.bounds) if self.kind is Histogram else self.kind()
            found = self.members.setdefault(key, made)  # of two threads, one makes it
        return found

    def _value(self, label: str, value: str) -> str:
        seen = self.values.get(label)
        if seen is None:
            if not _LABEL.fullmatch(label):
                raise InvalidOption(f"a label's name must be letters, digits and underscores, not {label!r}")
            seen = self.values.setdefault(label, set())
        value = str(value)[:_LABEL_LENGTH].encode("utf-8", "replace").decode()
        if value not in seen:
            if len(seen) >= _LABEL_VALUES:
                return _OTHER
            seen.add(value)
        return value


class Metrics:
    """A set of metrics. The scheduler's own exist from the start, at 0.

    :meth:`counter`, :meth:`gauge` and :meth:`histogram` give an object to record with: the same one for the same name
    and labels, so that it can be kept. Of one label, 200 values are told apart; any further ones count as "other".
    """

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}
        self._exposed: dict[str, str] = {}
        for name, description in _COUNTERS.items():
            self.counter(name, description=description)
        for name, description in _GAUGES.items():
            self.gauge(name, description=description)
        for name, (description, bounds) in _HISTOGRAMS.items():
            self.histogram(name, description=description, bounds=bounds)

    # --- recording ------------------------------------------------------------------------------------------------

    def counter(self, name: str, labels: Mapping[str, str] | None = None, *, description: str = "") -> Counter:
        """The counter of this name and labels, made at first use; ``description`` is for Prometheus.

        Raises :class:`~multi_agent_scheduler.errors.InvalidOption` for a name that cannot be one, or that is a gauge's
        or a histogram's already.
        """
        return self._member(name, labels, Counter, description, ())

    def gauge(self, name: str, labels: Mapping[str, str] | None = None, *, description: str = "") -> Gauge:
        """As :meth:`counter`."""
        return self._member(name, labels, Gauge, description, ())

    def histogram(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        *,
        description: str = "",
        bounds: Sequence[float] = _SECONDS,
    ) -> Histogram:
        """As :meth:`counter`. The ``bounds`` of the first call hold for the name; the default is made for seconds."""
        return self._member(name, labels, Histogram, description, tuple(bounds))

    def _member(
        self, name: str, labels: Mapping[str, str] | None, kind: type[_Metric], description: str,
        bounds: tuple[float, ...],
    ) -> _Metric:  # fmt: skip
        family = self._families.get(name)
        if family is None:
            family = self._family(name, kind, description, bounds)
        if family.kind is not kind:
            raise InvalidOption(f"{name!r} is a {family.kind.kind}; it cannot be a {kind.kind} too")
        member: _Metric = family.member(labels)
        return member

    def _family(self, name: str, kind: type[Any], description: str, bounds: tuple[float, ...]) -> _Family:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidOption(f"a metric's name must be words joined by dots, such as 'tasks.done', not {name!r}")
        family = _Family(name, kind, description, bounds)
        for sample in _samples(family):
            owner = self._exposed.setdefault(sample, name)
            if owner != name:
                raise InvalidOption(f"{name!r} and {owner!r} would be the same name for Prometheus: {sample}")
        return self._families.setdefault(name, family)

    # --- what the scheduler records -------------------------------------------------------------------------------

    def stream_started(self, task_type: str) -> None:
        """A stream began."""
        self.counter("tasks.stream_started", {"task_type": task_type}).inc()
        self.gauge("streams.active").inc()

    def stream_ended(
        self,
        task_type: str,
        state: State,
        success: bool,
        latency: float,
        ttft: float | None,
        usage: Usage | None,
    ) -> None:
        """A stream ended: to be called once for each :meth:`stream_started`, and for a skipped task, which has none.

        ``latency`` and ``ttft`` are seconds. Usage that came from a cache is not counted.
        """
        label = {"task_type": task_type}
        self.counter(f"tasks.stream_{state}", label).inc()
        if state == "skipped":
            return
        self.gauge("streams.active").dec()
        if success:
            self.counter("tasks.stream_succeeded", label).inc()
        self.histogram("stream.latency_seconds").observe(latency)
        if ttft is not None:
            self.histogram("stream.ttft_seconds").observe(ttft)
        if usage is None or usage.cached:
            return
        if usage.output_tokens is not None:
            self.histogram("stream.output_tokens").observe(usage.output_tokens)
        if usage.input_tokens is not None:
            self.histogram("stream.input_tokens").observe(usage.input_tokens)

    # --- reading --------------------------------------------------------------------------------------------------

    def get_all_stats(self) -> dict[Literal["counters", "gauges", "histograms"], dict[str, Any]]:
        """Everything, as plain data: ``counters``, ``gauges`` and ``histograms`` by name.

        A counter's plain name is the total over its labels. A histogram is a dict: see :meth:`Histogram.stats`.
        """
        counters: dict[str, Any] = {}
        gauges: dict[str, Any] = {}
        histograms: dict[str, Any] = {}
        for family in list(self._families.values()):
            members = list(family.members.items())
            if family.kind is Counter:
                counters[family.name] = sum(member.value for _, member in members)
                counters.update((_labelled(family.name, key), member.value) for key, member in members if key)
            elif family.kind is Gauge:
                gauges.update((_labelled(family.name, key), member.value) for key, member in members)
            else:
                histograms.update((_labelled(family.name, key), member.stats()) for key, member in members)
        return {"counters": counters, "gauges": gauges, "histograms": histograms}

    def prometheus_text(self) -> str:
        """Everything, in Prometheus' text exposition format 0.0.4; serve it as :data:`PROMETHEUS_CONTENT_TYPE`.

        Names begin with ``mas_`` and have underscores for dots; the total over labels is left to the query.
        """
        lines: list[str] = []
        for family in list(self._families.values()):
            if family.description:
                text = family.description.replace("\\", "\\\\").replace("\n", "\\n")
                lines.append(f"# HELP {family.exposed} {text}")
            lines.append(f"# TYPE {family.exposed} {family.kind.kind}")
            for key, member in list(family.members.items()):
                if isinstance(member, Histogram):
                    lines.extend(_exposed_histogram(family.exposed, key, member))
                else:
                    lines.append(f"{family.exposed}{_exposed_labels(key)} {_number(member.value)}")
        return "\n".join(lines) + "\n"


def _samples(family: _Family) -> tuple[str, ...]:
    if family.kind is not Histogram:
        return (family.exposed,)
    return (family.exposed, *(family.exposed + suffix for suffix in ("_bucket", "_sum", "_count")))


def _labelled(name: str, key: Labels) -> str:
    return f"{name}{{{','.join(f'{label}={value}' for label, value in key)}}}" if key else name


def _exposed_histogram(name: str, key: Labels, histogram: Histogram) -> Iterator[str]:
    counts, total = histogram.cumulative()
    for bound, count in zip((*histogram.bounds, math.inf), counts, strict=True):
        yield f"{name}_bucket{_exposed_labels((*key, ('le', _number(bound))))} {count}"
    yield f"{name}_sum{_exposed_labels(key)} {_number(total)}"
    yield f"{name}_count{_exposed_labels(key)} {counts[-1]}"


def _exposed_labels(key: Labels) -> str:
    if not key:
        return ""
    return "{" + ",".join(f'{label}="{_escape(value)}"' for label, value in key) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    return repr(value)


_default: Metrics | None = None


def get_metrics() -> Metrics:
    """The default metrics of this process: those a scheduler uses unless it is given others."""
    global _default
    if _default is None:
        _default = Metrics()
    return _default
