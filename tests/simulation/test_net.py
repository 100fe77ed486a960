"""The net is live: whatever is broken, one thing at a time, the simulation catches it within 200 seeds."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import msgspec
import pytest

from multi_agent_scheduler import recovery as recovering
from multi_agent_scheduler import runner
from multi_agent_scheduler.agents.crew import Crew
from multi_agent_scheduler.gate import Gate
from multi_agent_scheduler.records import Record
from multi_agent_scheduler.scheduling.admission import Admission
from multi_agent_scheduler.scheduling.plan import Plan
from multi_agent_scheduler.scheduling.slots import Slots
from multi_agent_scheduler.scheduling.window import RequestWindow, TokenWindow
from multi_agent_scheduler.store.core import Core, Lease, StreamSpec
from multi_agent_scheduler.store.follow import Follower
from multi_agent_scheduler.store.growing import GrowingLog
from multi_agent_scheduler.task import Task
from multi_agent_scheduler.views.digest import digest
from multi_agent_scheduler.views.live import Fresh, Live
from multi_agent_scheduler.views.summary import Summary
from tests.simulation.schedule import run
from tests.simulation.store import SimulatedStore

Break: TypeAlias = Callable[[pytest.MonkeyPatch], None]

SEEDS = 200
FIRST = int(os.environ.get("MAS_SIM_SEED", "0"))

# A schedule that ends in the middle leaves tasks and coroutines where they were.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def the_fence(patch: pytest.MonkeyPatch) -> None:
    """An append of whatever epoch is taken while the stream runs."""

    def unfenced(real: Callable[..., Any]) -> Callable[..., Any]:
        def take(self: Core, lease: Lease, *rest: Any) -> Any:
            return real(self, Lease(lease.stream_id, self.get(lease.stream_id).epoch), *rest)

        return take

    patch.setattr(Core, "append", unfenced(Core.append))
    patch.setattr(Core, "finish", unfenced(Core.finish))


def the_check_of_ids(patch: pytest.MonkeyPatch) -> None:
    """A stream that exists already is accepted again."""
    real = Core.submit

    def submit(self: Core, specs: Sequence[StreamSpec], now: float) -> Any:
        infos = real(Core(max_log_bytes=1), specs, now)
        for info in infos:
            self.restore(info)
        return infos

    patch.setattr(Core, "submit", submit)


def the_followers_cursor(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes back is shown everything again."""
    real = Follower.__init__

    def init(self: Follower, store: Any, stream_id: str, after: int | None = None) -> None:
        real(self, store, stream_id, after)
        self.seq = 0

    patch.setattr(Follower, "__init__", init)


def the_claim_of_one(patch: pytest.MonkeyPatch) -> None:
    """A stream that runs may be claimed by another."""
    real = Core.claim

    def claim(self: Core, stream_id: str) -> Lease:
        if self.get(stream_id).state == "running":
            self.expire(stream_id)
        return real(self, stream_id)

    patch.setattr(Core, "claim", claim)


def the_release_of_permits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "close", lambda self, ticket: None)


def the_release_after_an_answer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Admission, "close", lambda self, ticket, now, tokens=None: [])


def the_one_terminal(patch: pytest.MonkeyPatch) -> None:
    """The runner takes a terminal for a record like others, and ends the stream again."""
    patch.setattr(runner, "TERMINALS", ())


def a_wake_up_of_readers(patch: pytest.MonkeyPatch) -> None:
    """Each third wake-up is lost."""
    real, count = GrowingLog.wake, itertools.count()
    patch.setattr(GrowingLog, "wake", lambda self: real(self) if next(count) % 3 else None)


def a_wake_up_of_the_gate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gate, "wake", lambda self, changed: None)


def the_commit_point(patch: pytest.MonkeyPatch) -> None:
    """Whatever a log holds, its task is run again."""
    real = recovering.recovery

    def recovery(log: Sequence[Record], policy: Any) -> Any:
        return recovering.Recovery(log, [], None, real(log, policy).calls)

    _everywhere(patch, real, recovery)


def the_ends_of_open_calls(patch: pytest.MonkeyPatch) -> None:
    """Who ends a stream owes nothing to the Calls that are open."""
    patch.setattr(Summary, "open_calls", ())


def a_stop(patch: pytest.MonkeyPatch) -> None:
    """Who stops a stream is told that it will be, and it is not."""
    patch.setattr(Core, "cancel", lambda self, stream_id, reason: not self.get(stream_id).ended)


def a_stop_that_came_too_early(patch: pytest.MonkeyPatch) -> None:
    """A stop before the start is remembered, and not looked for."""
    real = Core.claim

    def claim(self: Core, stream_id: str) -> Lease:
        self.get(stream_id).stop_reason = None
        return real(self, stream_id)

    patch.setattr(Core, "claim", claim)


def the_wait_for_the_disk(patch: pytest.MonkeyPatch) -> None:
    """What is not committed yet is acknowledged."""

    async def settled(self: SimulatedStore) -> None:
        self._check_open()

    patch.setattr(SimulatedStore, "settled", settled)
    patch.setattr(SimulatedStore, "room", settled)  # which waits for the other


def the_slots(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slots, "free", property(lambda self: True))


def the_requests_of_a_minute(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestWindow, "opens", lambda self, now: now)


def the_tokens_of_a_minute(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TokenWindow, "opens", lambda self, tokens, now: now)


def the_order_of_a_plan(patch: pytest.MonkeyPatch) -> None:
    """Nothing depends on anything."""
    real = Plan.__init__

    def init(self: Plan, tasks: Iterable[Task]) -> None:
        real(self, [msgspec.structs.replace(task, depends_on=()) for task in tasks])

    patch.setattr(Plan, "__init__", init)


def the_resets_of_the_live_view(patch: pytest.MonkeyPatch) -> None:
    """What a reset voids in an earlier batch stands in the live result, and in the log it does not."""
    real = Live.feed

    def feed(self: Live, batch: Any) -> Fresh:
        fresh = real(self, batch)
        return Fresh(fresh.records, fresh.first, ())

    patch.setattr(Live, "feed", feed)


def the_closing_of_losers(patch: pytest.MonkeyPatch) -> None:
    async def aclose(self: Crew) -> None:
        await asyncio.sleep(0)

    patch.setattr(Crew, "aclose", aclose)
    patch.setattr(Crew, "drop", lambda self, feed: [])


def the_digest_of_a_trimmed_log(patch: pytest.MonkeyPatch) -> None:
    """Of a log that is trimmed only the end stays."""
    _everywhere(patch, digest, lambda records: list(records[-1:]))


def _everywhere(patch: pytest.MonkeyPatch, real: object, other: object) -> None:
    """In each module of the package that has imported it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("multi_agent_scheduler") and isinstance(module, ModuleType):
            for attribute, value in list(vars(module).items()):
                if value is real:
                    patch.setattr(module, attribute, other)


BROKEN: tuple[Break, ...] = (
    the_fence, the_check_of_ids, the_followers_cursor, the_claim_of_one, the_release_of_permits,
    the_release_after_an_answer, the_one_terminal, a_wake_up_of_readers, a_wake_up_of_the_gate, the_commit_point,
    the_ends_of_open_calls, a_stop, a_stop_that_came_too_early, the_wait_for_the_disk, the_slots,
    the_requests_of_a_minute, the_tokens_of_a_minute, the_order_of_a_plan, the_resets_of_the_live_view,
    the_closing_of_losers, the_digest_of_a_trimmed_log,
)  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_it_is_caught_when_something_is_broken(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: int | None = None
    with monkeypatch.context() as patch:
        broken(patch)
        for seed in range(FIRST, FIRST + SEEDS):
            try:
                run(seed)
            except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever shows it
                caught = seed
                break
    gc.collect()
    assert caught is not None, f"{broken.__name__} was missing in {SEEDS} schedules, and nobody noticed"
    run(caught)  # unbroken it keeps every promise
