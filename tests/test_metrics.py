"""Metrics: what is counted, what programs read, and what Prometheus reads."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser

from multi_agent_scheduler.errors import InvalidOption
from multi_agent_scheduler.metrics import Histogram, Metrics, get_metrics
from multi_agent_scheduler.records import Usage


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def exposed(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, as Prometheus' own parser reads it."""
    families = parser.text_string_to_metric_families(metrics.prometheus_text())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


# --- what exists --------------------------------------------------------------------------------------------------


def test_the_scheduler_s_own_metrics_exist_from_the_start_at_0(metrics):
    stats = metrics.get_all_stats()
    assert list(stats) == ["counters", "gauges", "histograms"]
    assert stats["counters"] == dict.fromkeys(
        [
            "tasks.stream_started", "tasks.stream_completed", "tasks.stream_succeeded", "tasks.stream_failed",
            "tasks.stream_cancelled", "tasks.stream_interrupted", "tasks.stream_skipped", "cache.hits", "cache.misses",
        ],
        0,
    )  # fmt: skip
    assert stats["gauges"] == {"streams.active": 0}
    assert list(stats["histograms"]) == [
        "stream.ttft_seconds", "stream.between_chunks_seconds", "stream.latency_seconds", "stream.output_tokens",
        "stream.input_tokens",
    ]  # fmt: skip
    nothing = dict.fromkeys(["count", "sum", "min", "max", "avg", "p50", "p95", "p99"]) | {"count": 0, "sum": 0}
    assert all(histogram == nothing for histogram in stats["histograms"].values())
    json.dumps(stats)


def test_there_is_one_default_and_others_are_apart_from_it(metrics):
    assert get_metrics() is get_metrics()
    before = get_metrics().counter("cache.hits").value
    metrics.counter("cache.hits").inc()
    assert get_metrics().counter("cache.hits").value == before


# --- what the scheduler records -----------------------------------------------------------------------------------


def test_a_stream_from_start_to_end(metrics):
    metrics.stream_started("creative")
    assert metrics.get_all_stats()["gauges"]["streams.active"] == 1
    metrics.stream_ended("creative", "completed", True, 2.0, 0.3, Usage(input_tokens=0, output_tokens=50))
    stats = metrics.get_all_stats()
    assert {name: value for name, value in stats["counters"].items() if value} == {
        "tasks.stream_started": 1, "tasks.stream_started{task_type=creative}": 1,
        "tasks.stream_completed": 1, "tasks.stream_completed{task_type=creative}": 1,
        "tasks.stream_succeeded": 1, "tasks.stream_succeeded{task_type=creative}": 1,
    }  # fmt: skip
    assert stats["gauges"]["streams.active"] == 0
    assert {name: h["sum"] for name, h in stats["histograms"].items() if h["count"]} == {
        "stream.latency_seconds": 2.0, "stream.ttft_seconds": 0.3, "stream.output_tokens": 50, "stream.input_tokens": 0,
    }  # fmt: skip


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "interrupted"])
def test_each_ending_has_its_counter_and_unknown_things_are_not_observed(metrics, state):
    metrics.stream_started("a")
    metrics.stream_ended("a", state, False, 1.0, None, Usage(source="unknown"))
    stats = metrics.get_all_stats()
    assert stats["counters"][f"tasks.stream_{state}"] == 1
    assert stats["counters"]["tasks.stream_succeeded"] == 0
    assert [name for name, h in stats["histograms"].items() if h["count"]] == ["stream.latency_seconds"]


def test_a_skipped_task_never_was_active(metrics):
    metrics.stream_ended("a", "skipped", False, 0.0, None, None)
    stats = metrics.get_all_stats()
    assert (stats["counters"]["tasks.stream_skipped"], stats["gauges"]["streams.active"]) == (1, 0)
    assert stats["histograms"]["stream.latency_seconds"]["count"] == 0


def test_the_plain_name_is_the_total_over_the_labels(metrics):
    for task_type in ("a", "b", "b"):
        metrics.stream_started(task_type)
    counters = metrics.get_all_stats()["counters"]
    assert counters["tasks.stream_started"] == 3
    assert counters["tasks.stream_started{task_type=b}"] == 2


def test_a_label_has_a_bounded_number_of_values_of_bounded_length(metrics):
    for number in range(300):
        metrics.stream_started(f"type {number}")
    metrics.stream_started("type 0")
    counters = metrics.get_all_stats()["counters"]
    assert counters["tasks.stream_started"] == 301
    assert counters["tasks.stream_started{task_type=other}"] == 100
    assert counters["tasks.stream_started{task_type=type 0}"] == 2
    metrics.counter("x", {"label": "y" * 1000}).inc()
    assert max(len(name) for name in metrics.get_all_stats()["counters"]) < 150


# --- own metrics --------------------------------------------------------------------------------------------------


def test_the_same_name_and_labels_give_the_same_object(metrics):
    assert metrics.counter("x", {"a": "1", "b": "2"}) is metrics.counter("x", {"b": "2", "a": "1"})
    assert metrics.counter("x", {"a": "1"}) is not metrics.counter("x", {"a": "2"})
    assert metrics.histogram("h", bounds=(1, 2)) is metrics.histogram("h")


def test_a_gauge_goes_up_and_down(metrics):
    gauge = metrics.gauge("queue.length")
    gauge.set(5)
    gauge.inc(2)
    gauge.dec()
    assert metrics.get_all_stats()["gauges"]["queue.length"] == 6


@pytest.mark.parametrize("amount", [-1, math.nan])
def test_a_counter_only_grows(metrics, amount):
    with pytest.raises(InvalidOption, match="a counter only grows"):
        metrics.counter("x").inc(amount)


@pytest.mark.parametrize("name", ["", "a b", "1a", "a.", "a..b", 'a"', None])
def test_a_name_that_cannot_be_one_is_refused(metrics, name):
    with pytest.raises(InvalidOption, match="a metric's name must be words joined by dots"):
        metrics.counter(name)


@pytest.mark.parametrize("label", ["", "a b", "__a", "le", 'x"'])
def test_a_label_that_cannot_be_one_is_refused(metrics, label):
    with pytest.raises(InvalidOption, match="a label's name must be letters, digits and underscores"):
        metrics.counter("x", {label: "y"})


def test_one_name_is_one_kind(metrics):
    metrics.counter("x")
    with pytest.raises(InvalidOption, match="'x' is a counter; it cannot be a gauge too"):
        metrics.gauge("x")


def test_two_names_that_prometheus_could_not_tell_apart_are_refused(metrics):
    metrics.gauge("a.b")
    with pytest.raises(InvalidOption, match=r"'a_b' and 'a.b' would be the same name for Prometheus: mas_a_b"):
        metrics.gauge("a_b")
    metrics.histogram("h")
    with pytest.raises(InvalidOption, match="would be the same name for Prometheus: mas_h_count"):
        metrics.gauge("h.count")


@pytest.mark.parametrize("bounds", [(), (2.0, 1.0), (1.0, 1.0), (1.0, math.inf), (math.nan,)])
def test_bounds_that_do_not_rise_are_refused(bounds):
    with pytest.raises(InvalidOption, match="the bounds of a histogram must be finite numbers that rise"):
        Histogram(bounds)


# --- histograms ---------------------------------------------------------------------------------------------------


def test_a_bound_belongs_to_the_bucket_below_it():
    histogram = Histogram((1, 2))
    for value in (1, 1.5, 2, 2.5):
        histogram.observe(value)
    assert histogram.cumulative() == ([1, 3, 4], 7.0)


def test_what_is_not_a_number_is_not_counted():
    histogram = Histogram()
    histogram.observe(math.nan)
    histogram.observe(1.0)
    assert histogram.stats()["sum"] == 1.0
    assert histogram.stats()["count"] == 1


def test_percentiles_of_an_even_spread():
    histogram = Histogram(range(10, 101, 10))
    for value in range(1, 101):
        histogram.observe(value)
    stats = histogram.stats()
    assert stats == {"count": 100, "sum": 5050.0, "min": 1, "max": 100, "avg": 50.5, "p50": 50, "p95": 95, "p99": 99}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_percentiles_lie_in_the_bucket_of_the_true_one(values):
    bounds = (-1000.0, -1.0, 0.0, 1.0, 10.0, 1e4)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    stats, ordered = histogram.stats(), sorted(values)
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        true = ordered[max(0, math.ceil(share * len(ordered)) - 1)]
        low = max([bound for bound in bounds if bound < true], default=-math.inf)
        high = min([bound for bound in bounds if bound >= true], default=math.inf)
        tolerance = 1e-9 * 1e6
        assert max(low, ordered[0]) - tolerance <= stats[name] <= min(high, ordered[-1]) + tolerance
    assert stats["p50"] <= stats["p95"] + 1e-3
    assert stats["p95"] <= stats["p99"] + 1e-3
    counts, total = histogram.cumulative()
    assert counts[-1] == len(values)
    assert total == pytest.approx(sum(values), abs=1e-3)


# --- Prometheus ---------------------------------------------------------------------------------------------------


def test_prometheus_reads_the_same_numbers(metrics):
    metrics.stream_started("creative")
    metrics.stream_ended("creative", "completed", True, 2.0, 0.3, None)
    metrics.gauge("g").set(-1.5)
    samples = exposed(metrics)
    creative = (("task_type", "creative"),)
    assert samples["mas_tasks_stream_started_total", creative] == 1
    assert samples["mas_tasks_stream_started_total", ()] == 0, "the total is left to the query: never counted twice"
    assert samples["mas_g", ()] == -1.5
    assert samples["mas_stream_latency_seconds_bucket", (("le", "1.0"),)] == 0
    assert samples["mas_stream_latency_seconds_bucket", (("le", "2.5"),)] == 1
    assert samples["mas_stream_latency_seconds_bucket", (("le", "+Inf"),)] == 1
    assert samples["mas_stream_latency_seconds_sum", ()] == 2.0
    assert samples["mas_stream_latency_seconds_count", ()] == 1


def test_types_and_descriptions(metrics):
    metrics.counter("own", description="two\nlines \\ and a slash")
    families = {f.name: f for f in parser.text_string_to_metric_families(metrics.prometheus_text())}
    assert families["mas_tasks_stream_started"].type == "counter"
    assert families["mas_streams_active"].type == "gauge"
    assert families["mas_stream_ttft_seconds"].type == "histogram"
    assert families["mas_own"].documentation == "two\nlines \\ and a slash"
    assert all(family.documentation for family in families.values())


@given(st.text())
def test_any_label_value_survives(value):
    metrics = Metrics()
    metrics.counter("x", {"label": value}).inc()
    metrics.prometheus_text().encode()
    assert exposed(metrics)["mas_x_total", (("label", value[:100]),)] == 1


def test_a_label_value_that_is_no_text_cannot_break_the_page(metrics):
    metrics.counter("x", {"label": "\ud800"}).inc()
    assert exposed(metrics)["mas_x_total", (("label", "?"),)] == 1


@pytest.mark.parametrize(
    ("value", "text"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (1e300, "1e+300"), (3, "3")]
)
def test_numbers_are_written_as_prometheus_wants_them(metrics, value, text):
    metrics.gauge("g").set(value)
    assert f"\nmas_g {text}\n" in metrics.prometheus_text()
