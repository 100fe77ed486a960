"""How many tasks run at once, and which is next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.scheduling.run_slots import LEVEL_SECONDS, RunSlots


def test_slots_are_given_while_there_are_some_and_then_by_priority() -> None:
    slots = RunSlots(2)
    assert slots.ask("a", 0, 0.0)
    assert slots.ask("b", 0, 0.0)
    assert not slots.ask("c", 0, 1.0)
    assert not slots.ask("d", 1, 2.0)
    assert not slots.ask("e", 1, 2.0)
    assert [slots.release() for _ in range(5)] == ["d", "e", "c", None, None]
    assert slots.ask("f", 0, 3.0)


def test_waiting_long_enough_beats_any_priority() -> None:
    slots = RunSlots(1)
    assert slots.ask("running", 0, 0.0)
    assert not slots.ask("patient", 0, 0.0)
    assert not slots.ask("important", 3, 3 * LEVEL_SECONDS + 1)
    assert slots.release() == "patient"


@given(st.integers(1, 4), st.lists(st.one_of(st.integers(0, 3), st.none()), max_size=60))
def test_never_more_than_the_limit_and_nobody_is_lost(limit: int, steps: list[int | None]) -> None:
    slots, running, waiting = RunSlots(limit), 0, set()
    for number, priority in enumerate(steps):
        if priority is not None:
            if slots.ask(str(number), priority, float(number)):
                running += 1
                assert not waiting
            else:
                waiting.add(str(number))
        elif running:
            following = slots.release()
            if following is None:
                running -= 1
                assert not waiting
            else:
                waiting.remove(following)
        assert running <= limit
