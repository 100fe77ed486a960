"""How many tasks run at once, and which is next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.scheduling.admission import EVERY, PATIENCE
from multi_agent_scheduler.scheduling.run_slots import RunSlots


def test_slots_are_given_while_there_are_some_and_then_by_priority() -> None:
    slots = RunSlots(2)
    assert slots.ask("a", 0, "", 0.0)
    assert slots.ask("b", 0, "", 0.0)
    assert not slots.ask("c", 0, "", 1.0)
    assert not slots.ask("d", 1, "", 2.0)
    assert not slots.ask("e", 1, "", 2.0)
    assert [slots.release(3.0) for _ in range(5)] == ["d", "e", "c", None, None]
    assert slots.ask("f", 0, "", 3.0)


def test_who_has_waited_longest_has_a_turn_whatever_the_priorities() -> None:
    slots = RunSlots(1)
    assert slots.ask("running", 0, "", 0.0)
    assert not slots.ask("patient", 0, "", 0.0)
    for number in range(EVERY):
        assert not slots.ask(f"important {number}", 9, "", 0.0)
    given = [slots.release(PATIENCE) for _ in range(EVERY)]
    assert given[-1] == "patient"


def test_slots_are_shared_between_keys_however_many_tasks_each_has() -> None:
    slots = RunSlots(1)
    assert slots.ask("running", 0, "a", 0.0)
    for number in range(100):
        assert not slots.ask(f"a{number}", 0, "a", 0.0)
    for number in range(5):
        assert not slots.ask(f"b{number}", 0, "b", 1.0)
    given = [str(slots.release(2.0)) for _ in range(10)]
    assert sorted(name for name in given if name.startswith("b")) == ["b0", "b1", "b2", "b3", "b4"]
    assert [name for name in given if name.startswith("a")] == ["a0", "a1", "a2", "a3", "a4"]


@given(
    st.integers(1, 4),
    st.lists(st.one_of(st.tuples(st.integers(0, 3), st.sampled_from("ab")), st.sampled_from(["end", "leave"]))),
)
def test_never_more_than_the_limit_and_nobody_is_lost(limit: int, steps: list[tuple[int, str] | str]) -> None:
    slots, running, waiting = RunSlots(limit), 0, dict[str, None]()
    for number, step in enumerate(steps):
        if isinstance(step, tuple):
            if slots.ask(str(number), *step, float(number)):
                running += 1
                assert not waiting
            else:
                waiting[str(number)] = None
        elif step == "leave":
            if waiting:
                slots.leave(waiting.popitem()[0])
        elif running:
            following = slots.release(float(number))
            if following is None:
                running -= 1
                assert not waiting
            else:
                del waiting[following]
        assert running <= limit
        assert slots.free == (running < limit)
