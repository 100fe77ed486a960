"""The plan: what is refused before anything runs, what starts when, and what is skipped and why."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import (
    CallerError,
    DependencyCycle,
    DuplicateTask,
    InvalidRequest,
    PlanError,
    UnknownDependency,
)
from multi_agent_scheduler.scheduling.plan import Plan, Skip
from multi_agent_scheduler.task import State, Task, Template


def plan(**depends_on: str) -> Plan:
    """A plan in short: ``c="a b"`` is a task c that depends on a and b; a ``!`` in front is on_failure="run"."""
    return Plan(
        Task(task_id, "?", depends_on=names.lstrip("!").split(), on_failure="run" if names.startswith("!") else "skip")
        for task_id, names in depends_on.items()
    )


# --- refused before anything runs ---


def test_a_duplicate_id_is_refused_with_both_places() -> None:
    with pytest.raises(DuplicateTask) as caught:
        Plan([Task("a", "?"), Task("b", "?"), Task("a", "!")])
    assert str(caught.value) == "two tasks have the id 'a': the plan's tasks 1 and 3"
    assert isinstance(caught.value, PlanError) and isinstance(caught.value, CallerError)


def test_an_unknown_dependency_is_refused_with_what_was_perhaps_meant() -> None:
    with pytest.raises(UnknownDependency) as caught:
        plan(research="", review="", draft="reserch")
    assert str(caught.value) == (
        "task 'draft' depends on 'reserch', which the plan does not have; did you mean 'research'?"
    )
    with pytest.raises(UnknownDependency) as caught:
        plan(a="", b="a zzz")
    assert str(caught.value) == "task 'b' depends on 'zzz', which the plan does not have"


@pytest.mark.parametrize(
    ("tasks", "cycle"),
    [
        ({"a": "a"}, "a -> a"),
        ({"a": "b", "b": "a"}, "a -> b -> a"),
        ({"x": "", "a": "x b", "b": "c", "c": "a x", "below": "c"}, "a -> b -> c -> a"),
        ({"below": "c", "c": "b", "b": "a", "a": "c"}, "c -> b -> a -> c"),
    ],
)
def test_a_cycle_is_named_in_order_each_depending_on_the_next(tasks: dict[str, str], cycle: str) -> None:
    with pytest.raises(DependencyCycle) as caught:
        plan(**tasks)
    assert str(caught.value) == f"the tasks wait for each other: {cycle}"
    assert " -> ".join([*caught.value.cycle, caught.value.cycle[0]]) == cycle
    assert pickle.loads(pickle.dumps(caught.value)).cycle == caught.value.cycle


def test_a_cycle_of_a_hundred_thousand_is_found_and_told_in_short() -> None:
    count = 100_000
    with pytest.raises(DependencyCycle) as caught:
        Plan(Task(str(at), "?", depends_on=(str((at + 1) % count),)) for at in range(count))
    assert caught.value.cycle == tuple(str(at) for at in range(count))
    assert str(caught.value).endswith("-> 10 -> 11 -> (99988 more) -> 0")


def test_a_template_may_name_only_what_the_task_depends_on() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Plan(
            [Task("notes", "?"), Task("facts", "?"), Task("page", Template("${notes} ${facts}"), depends_on=["notes"])]
        )
    assert str(caught.value) == (
        "task 'page': its template names ${facts}, but 'facts' is not among its dependencies: add it to depends_on"
    )


# --- what starts when ---


def test_a_task_starts_the_moment_its_last_parent_ends_whatever_else_still_runs() -> None:
    it = plan(quick="", slow="", after_quick="quick", after_both="quick slow")
    assert it.ready() == ["quick", "slow"]
    it.started("quick")
    it.started("slow")
    assert it.ready() == []
    assert it.ended("quick", "completed").ready == ["after_quick"]
    it.started("after_quick")
    assert it.ended("slow", "completed").ready == ["after_both"]
    assert it.ready() == ["after_both"]
    assert not it.done
    it.ended("after_both", "completed")
    it.ended("after_quick", "completed")
    assert it.done


def test_a_dependency_named_twice_is_one() -> None:
    it = plan(a="", b="a a")
    assert it.parents("b") == ["a"] and it.children("a") == ["b"]
    assert it.ended("a", "completed").ready == ["b"]


def test_an_empty_plan_is_done() -> None:
    assert Plan([]).done
    assert len(Plan([])) == 0


def test_only_a_ready_task_can_start() -> None:
    it = plan(a="", b="a")
    with pytest.raises(ValueError, match="task 'b' is waiting, not ready"):
        it.started("b")
    it.started("a")
    with pytest.raises(ValueError, match="task 'a' is running, not ready"):
        it.started("a")


def test_an_end_counts_once() -> None:
    it = plan(a="", b="a", c="a b")
    assert it.ended("a", "completed").ready == ["b"]
    again = it.ended("a", "failed")
    assert not again.ready and not again.skipped
    assert it.state("c") == "waiting"


# --- failures ---


def test_what_depends_on_a_failure_is_skipped_all_the_way_down_with_the_reason() -> None:
    it = plan(a="", other="", b="a", c="b other", d="c", free="other")
    change = it.ended("a", "failed")
    assert change.skipped == [
        Skip("b", "'a', which it depends on, failed", "a"),
        Skip("c", "'a', which it depends on through 'b', failed", "a"),
        Skip("d", "'a', which it depends on through 'c', failed", "a"),
    ]
    assert it.ended("other", "completed").ready == ["free"]
    it.ended("free", "completed")
    assert it.done


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("failed", "failed"),
        ("cancelled", "was cancelled"),
        ("interrupted", "was interrupted"),
        ("skipped", "was skipped"),
        ("completed", "did not succeed"),
    ],
)
def test_whatever_is_no_success_is_a_failure_for_the_dependants(state: State, words: str) -> None:
    it = plan(a="", b="a")
    change = it.ended("a", state, success=False)
    assert [skip.reason for skip in change.skipped] == [f"'a', which it depends on, {words}"]


def test_run_on_failure_waits_for_every_parent_and_then_runs() -> None:
    it = plan(a="", b="", report="!a b c", c="b")
    assert not it.ended("a", "failed").ready
    change = it.ended("b", "cancelled")
    assert [skip.id for skip in change.skipped] == ["c"]
    assert not change.ready, "that c is skipped is not written yet"
    assert it.ended("c", "skipped").ready == ["report"]
    assert not it.ended("c", "skipped").ready


def test_a_task_that_is_stopped_before_it_started_takes_its_dependants_along() -> None:
    it = plan(a="", b="a", c="b")
    assert [skip.id for skip in it.ended("b", "cancelled").skipped] == ["c"]
    assert not it.ended("a", "completed").ready
    assert it.done


def test_a_plan_goes_on_from_the_ends_of_an_earlier_run_in_any_order() -> None:
    it = plan(a="", b="a", c="b", d="c")
    assert it.ended("b", "completed").ready == ["c"]
    it.ended("a", "completed")
    assert it.ready() == ["c"]


# --- any plan, against the definition ---


@st.composite
def plans(draw: st.DrawFn) -> list[Task]:
    count = draw(st.integers(1, 12))
    order = draw(st.permutations(range(count)))
    return [
        Task(
            f"t{at}",
            "?",
            depends_on=[f"t{other}" for other in range(count) if order[other] < order[at] and draw(st.booleans())],
            on_failure=draw(st.sampled_from(["skip", "run"])),
        )
        for at in range(count)
    ]


@given(tasks=plans(), data=st.data())
def test_every_task_runs_or_is_skipped_exactly_when_the_definition_says(
    tasks: Sequence[Task], data: st.DataObject
) -> None:
    it = Plan(tasks)
    good: set[str] = set()
    over: set[str] = set()
    ran: set[str] = set()
    unwritten: list[str] = []
    while it.ready() or unwritten:
        task_id = data.draw(st.sampled_from([*it.ready(), *unwritten]))
        if task_id in unwritten:
            unwritten.remove(task_id)
            over.add(task_id)
            for freed in it.ended(task_id, "skipped").ready:
                assert task_id in it.parents(freed)
            continue
        it.started(task_id)
        ran.add(task_id)
        success = data.draw(st.booleans())
        change = it.ended(task_id, "completed" if success else "failed")
        over.add(task_id)
        if success:
            good.add(task_id)
        for skip in change.skipped:
            assert any(parent in {*over, *unwritten} - good for parent in it.parents(skip.id))
            assert skip.failed in ran - good
            unwritten.append(skip.id)
        for task in tasks:  # ready is just what may run and has not
            parents = set(task.depends_on)
            may = parents <= (good if task.on_failure == "skip" else over)
            assert (it.state(task.id) in ("ready", "running")) == (may and task.id not in over)
            bad = task.on_failure == "skip" and bool(parents & ({*over, *unwritten} - good))
            assert (it.state(task.id) == "skipped" or task.id in over - ran) == bad
    assert it.done
    assert over == {task.id for task in tasks}


@given(edges=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14))
def test_a_plan_is_refused_exactly_if_it_has_a_cycle_and_what_is_named_is_one(edges: set[tuple[int, int]]) -> None:
    tasks = [Task(str(at), "?", depends_on=[str(b) for a, b in sorted(edges) if a == at]) for at in range(8)]
    reach = set(edges)
    while more := {(a, d) for a, b in reach for c, d in reach if b == c} - reach:
        reach |= more
    try:
        Plan(tasks)
    except DependencyCycle as error:
        cycle = [int(name) for name in error.cycle]
        assert all(pair in edges for pair in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        assert len(set(cycle)) == len(cycle)
    else:
        assert not any(a == b for a, b in reach)


# --- size ---


def _seconds(tasks: Sequence[Task]) -> float:
    began = time.process_time()
    it = Plan(tasks)
    todo = list(it.ready())
    for task_id in todo:
        it.started(task_id)
        todo.extend(it.ended(task_id, "completed").ready)
    assert len(todo) == len(tasks) and it.done
    return time.process_time() - began


@pytest.mark.parametrize("shape", ["chain", "fan-out", "fan-in", "failing chain"])
def test_a_hundred_thousand_tasks_need_no_recursion_and_no_long_time(shape: str) -> None:
    count = 100_000
    ids = [f"t{at}" for at in range(count)]
    match shape:
        case "chain" | "failing chain":
            tasks = [Task(task_id, "?", depends_on=ids[at - 1 : at] if at else ()) for at, task_id in enumerate(ids)]
        case "fan-out":
            tasks = [Task(task_id, "?", depends_on=ids[:1] if at else ()) for at, task_id in enumerate(ids)]
        case _:
            tasks = [
                Task(task_id, "?", depends_on=ids[:-1] if at == count - 1 else ()) for at, task_id in enumerate(ids)
            ]
    if shape == "failing chain":
        assert len(Plan(tasks).ended("t0", "failed").skipped) == count - 1
    else:
        assert _seconds(tasks) < 5  # it takes a few tenths; what is quadratic takes minutes
