"""Slots: never more than the limit, first come first served, each given back once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from multi_agent_scheduler.scheduling.admission import Admission, Ticket


def test_a_slot_is_granted_at_once_while_there_is_one() -> None:
    admission = Admission()
    admission.limit("a", 1)
    assert admission.ask("a").state == "granted"
    assert admission.ask("a").state == "waiting"
    assert admission.ask("b").state == "granted"  # another agent, without a limit


def test_the_one_that_waited_longest_gets_the_slot() -> None:
    admission = Admission()
    admission.limit("a", 1)
    first, second, third = (admission.ask("a") for _ in range(3))
    assert admission.close(second) is None  # gave up waiting
    assert admission.close(first) is third
    assert admission.close(first) is None  # a second release does nothing
    assert admission.used("a") == 1


class Slots(RuleBasedStateMachine):
    @initialize(slots=st.integers(1, 3))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.admission = Admission()
        self.admission.limit("a", slots)
        self.tickets: list[Ticket] = []

    @rule()
    def ask(self) -> None:
        self.tickets.append(self.admission.ask("a"))

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.tickets:
            ticket = data.draw(st.sampled_from(self.tickets))
            waiting = [other for other in self.tickets if other.state == "waiting" and other is not ticket]
            granted = ticket.state == "granted"
            following = self.admission.close(ticket)
            assert following is (waiting[0] if granted and waiting else None)

    @invariant()
    def the_limit_holds_and_no_slot_is_lost(self) -> None:
        if not hasattr(self, "tickets"):
            return
        granted = sum(ticket.state == "granted" for ticket in self.tickets)
        waiting = sum(ticket.state == "waiting" for ticket in self.tickets)
        assert granted == self.admission.used("a") <= self.slots
        assert granted == self.slots or not waiting


TestSlots = Slots.TestCase
