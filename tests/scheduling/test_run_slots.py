"""How many tasks run at once, and which is next."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.scheduling.admission import EVERY, PATIENCE
from multi_agent_scheduler.scheduling.run_slots import RunSlots


def test_slots_are_given_while_there_are_some_and_then_by_priority() -> None:
    slots = RunSlots(2)
    assert slots.ask("a", "x", 0, "", 0.0)
    assert slots.ask("b", "x", 0, "", 0.0)
    assert not slots.ask("c", "x", 0, "", 1.0)
    assert not slots.ask("d", "x", 1, "", 2.0)
    assert not slots.ask("e", "x", 1, "", 2.0)
    assert [slots.release(3.0) for _ in range(5)] == [["d"], ["e"], ["c"], [], []]
    assert slots.ask("f", "x", 0, "", 3.0)


def test_who_has_waited_longest_has_a_turn_whatever_the_priorities() -> None:
    slots = RunSlots(1)
    assert slots.ask("running", "x", 0, "", 0.0)
    assert not slots.ask("patient", "x", 0, "", 0.0)
    for number in range(EVERY):
        assert not slots.ask(f"important {number}", "x", 9, "", 0.0)
    given = [slots.release(PATIENCE)[0] for _ in range(EVERY)]
    assert given[-1] == "patient"


def test_slots_are_shared_between_keys_however_many_tasks_each_has() -> None:
    slots = RunSlots(1)
    assert slots.ask("running", "x", 0, "a", 0.0)
    for number in range(100):
        assert not slots.ask(f"a{number}", "x", 0, "a", 0.0)
    for number in range(5):
        assert not slots.ask(f"b{number}", "x", 0, "b", 1.0)
    given = [slots.release(2.0)[0] for _ in range(10)]
    assert sorted(name for name in given if name.startswith("b")) == ["b0", "b1", "b2", "b3", "b4"]
    assert [name for name in given if name.startswith("a")] == ["a0", "a1", "a2", "a3", "a4"]


def test_a_task_that_waits_for_its_agent_lends_its_slot_to_those_of_agents_that_are_free() -> None:
    slots = RunSlots(2)
    assert slots.ask("a0", "a", 0, "", 0.0)
    assert slots.ask("a1", "a", 0, "", 0.0)
    assert not slots.ask("a2", "a", 9, "", 0.0)
    assert not slots.ask("b0", "b", 0, "", 0.0)
    assert not slots.ask("b1", "b", 0, "", 0.0)
    assert slots.lend("a", 0.0) == ["b0"]  # and none of a, which is full
    assert slots.lend("a", 0.0) == ["b1"]
    assert slots.lend("b", 0.0) == []
    assert not slots.free("a")
    assert not slots.free("b")
    assert slots.ask("c0", "c", 0, "", 0.0)
    assert not slots.free("c")
    assert slots.take_back("a", 0.0) == []  # three run
    assert slots.release(0.0) == []
    assert slots.release(0.0) == []
    assert slots.take_back("a", 0.0) == []
    assert slots.release(0.0) == ["a2"]  # a is not known to be full any more


_STEPS = st.one_of(
    st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.sampled_from("xyz")),
    st.sampled_from(["end", "leave"]),
    st.tuples(st.sampled_from(["lend", "take_back"]), st.sampled_from("xyz")),
)


@given(st.integers(1, 4), st.lists(_STEPS))
def test_slots_are_never_idle_and_nobody_is_lost(limit: int, steps: list[Any]) -> None:
    slots, waiting, agents = RunSlots(limit), dict[str, None](), dict[str, str]()
    running, lending = Counter[str](), Counter[str]()

    def started(names: list[str]) -> None:
        for name in names:
            del waiting[name]
            running[agents[name]] += 1
        assert not names or running.total() <= limit

    for number, step in enumerate(steps):
        name, now = str(number), float(number)
        if step == "leave":
            if waiting:
                slots.leave(waiting.popitem()[0])
        elif step == "end":
            if +running:
                running[next(iter(+running))] -= 1
                started(slots.release(now))
        elif step[0] == "lend":
            if running[step[1]]:
                running[step[1]] -= 1
                lending[step[1]] += 1
                started(slots.lend(step[1], now))
        elif step[0] == "take_back":
            if lending[step[1]]:
                lending[step[1]] -= 1
                running[step[1]] += 1
                started(slots.take_back(step[1], now))
        else:
            priority, key, agent = step
            agents[name] = agent
            if slots.ask(name, agent, priority, key, now):
                running[agent] += 1
                assert running.total() <= limit
            else:
                waiting[name] = None
        for agent in "xyz":
            free = running.total() < limit and (not lending[agent] or (running + lending).total() < limit)
            assert slots.free(agent) == free
            assert not free or agent not in {agents[name] for name in waiting}
