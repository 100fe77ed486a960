"""The control state: only the live epoch appends, seqs have no gap, an end is final."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from multi_agent_scheduler.errors import LogFull, StoreError, StreamNotFound
from multi_agent_scheduler.store.core import Core, Fenced, Lease, StreamSpec


def test_a_stream_lives_once() -> None:
    core = Core(max_log_bytes=100)
    core.submit([StreamSpec("s", "t")], 0.0)
    with pytest.raises(StoreError, match="exists already"):
        core.submit([StreamSpec("s", "t")], 0.0)
    lease = core.claim("s")
    with pytest.raises(Fenced, match="cannot be claimed: it is running"):
        core.claim("s")
    assert core.append(lease, 2, 10) == 1
    assert core.finish(lease, "completed", 1, 10, 9.0) == 3
    with pytest.raises(Fenced, match="the stream is completed"):
        core.append(lease, 1, 1)
    with pytest.raises(Fenced):
        core.finish(lease, "failed", 1, 1, 9.0)
    assert core.get("s").ended


def test_an_old_epoch_is_fenced_off() -> None:
    core = Core(max_log_bytes=100)
    core.submit([StreamSpec("s", "t")], 0.0)
    lease = core.claim("s")
    with pytest.raises(Fenced, match="epoch 0"):
        core.append(Lease("s", lease.epoch - 1), 1, 1)
    assert core.get("s").seq == 0


def test_the_cap_stops_appends_but_not_the_end() -> None:
    core = Core(max_log_bytes=10)
    core.submit([StreamSpec("s", "t")], 0.0)
    lease = core.claim("s")
    core.append(lease, 1, 10)
    with pytest.raises(LogFull, match="cap of 10 bytes"):
        core.append(lease, 1, 1)
    assert core.finish(lease, "failed", 1, 50, 9.0) == 2


def test_only_the_first_stop_counts_and_none_after_the_end() -> None:
    core = Core(max_log_bytes=10)
    core.submit([StreamSpec("s", "t")], 0.0)
    assert core.cancel("s", "one")
    assert not core.cancel("s", "two")
    assert core.get("s").stop_reason == "one"
    core.finish(core.claim("s"), "cancelled", 1, 1, 9.0)
    assert not core.cancel("s", "three")
    with pytest.raises(StreamNotFound, match="no stream 'other'"):
        core.cancel("other", "x")


def test_only_an_ended_stream_is_dropped() -> None:
    core = Core(max_log_bytes=10)
    core.submit([StreamSpec("s", "t")], 0.0)
    with pytest.raises(StoreError, match="it is queued"):
        core.forget("s")
    core.finish(core.claim("s"), "skipped", 1, 1, 9.0)
    core.forget("s")
    with pytest.raises(StreamNotFound):
        core.get("s")


def test_only_the_log_of_an_ended_stream_is_trimmed() -> None:
    core = Core(max_log_bytes=10)
    core.submit([StreamSpec("s", "t")], 0.0)
    with pytest.raises(StoreError, match="cannot be trimmed: it is queued"):
        core.trim("s", 1)
    core.finish(core.claim("s"), "completed", 3, 9, 9.0)
    core.trim("s", 4)
    info = core.get("s")
    assert (info.state, info.seq, info.size, info.trimmed) == ("completed", 3, 4, True)


class Streams(RuleBasedStateMachine):
    """Any order of transitions, against a model that is as simple as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core(max_log_bytes=1000)
        self.logs: dict[str, list[int]] = {}
        self.live: dict[str, Lease] = {}
        self.ended: set[str] = set()

    names = st.sampled_from(["a", "b"])

    @rule(name=names)
    def submit(self, name: str) -> None:
        if name in self.logs:
            with pytest.raises(StoreError):
                self.core.submit([StreamSpec(name, "t")], 0.0)
        else:
            self.core.submit([StreamSpec(name, "t")], 0.0)
            self.logs[name] = []

    @rule(name=names)
    def claim(self, name: str) -> None:
        if name in self.logs and name not in self.live and name not in self.ended:
            self.live[name] = self.core.claim(name)
        elif name in self.logs:
            with pytest.raises(Fenced):
                self.core.claim(name)

    @rule(name=names, count=st.integers(1, 5), older=st.integers(0, 2))
    def append(self, name: str, count: int, older: int) -> None:
        if name not in self.logs:
            return
        live = self.live.get(name)
        lease = Lease(name, (live.epoch if live else 1) - older)
        if live is None or older:
            with pytest.raises(Fenced):
                self.core.append(lease, count, count)
            return
        first = self.core.append(lease, count, count)
        self.logs[name] += range(first, first + count)

    @rule(name=names)
    def finish(self, name: str) -> None:
        if name in self.live:
            first = self.core.finish(self.live.pop(name), "completed", 1, 1, 9.0)
            self.logs[name].append(first)
            self.ended.add(name)

    @rule(name=names)
    def cancel(self, name: str) -> None:
        if name in self.logs and self.core.cancel(name, "why"):
            assert name not in self.ended

    @invariant()
    def seqs_have_no_gap(self) -> None:
        for name, log in self.logs.items():
            assert log == list(range(1, len(log) + 1))
            assert self.core.get(name).seq == len(log)
            assert self.core.get(name).ended == (name in self.ended)


TestStreams = Streams.TestCase
