"""The plan's graph, as it is drawn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.cli.graph import MOST, overview, tree
from multi_agent_scheduler.task import Task


def plan(**parents: str) -> list[Task]:
    return [Task(name, "x", depends_on=tuple(of.split())) for name, of in parents.items()]


def test_a_task_stands_under_the_first_that_it_waits_for() -> None:
    tasks = plan(facts="", draft="facts", figures="", check="draft figures facts", page="draft", end="check page")
    assert overview(tasks) == [
        "facts",
        "└ draft",
        "  ├ check  (after figures, facts too)",
        "  │ └ end  (after page too)",
        "  └ page",
        "figures",
    ]


def test_lines_can_be_drawn_in_ascii() -> None:
    assert overview(plan(a="", b="a", c="b", d="a"), ascii_only=True) == ["a", "|-b", "| `-c", "`-d"]


def test_of_many_parents_three_are_named() -> None:
    names = {f"p{number}": "" for number in range(8)}
    assert overview(plan(**names, end=" ".join(names)))[1] == "└ end  (after p1, p2, p3 and 4 more too)"


def test_a_child_may_come_before_its_parent() -> None:
    assert overview(plan(page="facts", facts="")) == ["facts", "└ page"]


def test_tasks_that_do_not_wait_for_each_other_need_no_graph() -> None:
    assert overview(plan(a="", b="")) == []


def test_a_large_plan_is_only_counted() -> None:
    tasks = [Task("0", "x"), *(Task(str(number), "x", depends_on=("0",)) for number in range(1, 100_000))]
    assert overview(tasks) == ["100000 tasks, 99999 of which wait for others"]


def test_a_deep_chain_is_drawn() -> None:
    chain = [Task("0", "x"), *(Task(str(n), "x", depends_on=(str(n - 1),)) for n in range(1, MOST))]
    lines = overview(chain)
    assert len(lines) == MOST
    assert lines[-1] == "  " * (MOST - 2) + f"└ {MOST - 1}"


def test_names_cannot_drive_the_terminal() -> None:
    lines = overview([Task("a\x1b[2J\nb", "x"), Task("c", "x", depends_on=("a\x1b[2J\nb",))])
    assert lines == ["a�[2J b", "└ c"]


@given(st.lists(st.sets(st.integers(0, 30), max_size=4), min_size=1, max_size=30))
def test_each_task_has_one_line_under_its_first_parent(waits: list[set[int]]) -> None:
    tasks = [
        Task(str(index), "x", depends_on=tuple(str(parent) for parent in parents if parent < index))
        for index, parents in enumerate(waits)
    ]
    rows = list(tree(tasks))
    assert sorted(row.task_id for row in rows) == sorted(task.id for task in tasks)
    depth = {row.task_id: len(row.branch) // 2 for row in rows}
    place = {row.task_id: index for index, row in enumerate(rows)}
    for task in tasks:
        if task.depends_on:
            first = task.depends_on[0]
            assert depth[task.id] == depth[first] + 1
            assert place[first] < place[task.id]
        else:
            assert depth[task.id] == 0
