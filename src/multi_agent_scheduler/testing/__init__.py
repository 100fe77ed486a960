"""For users' tests: an agent that plays a script, a loop in which no time is waited for, and the suites that agents and
stores of one's own must pass (those of :mod:`multi_agent_scheduler.conformance`)."""

from __future__ import annotations

from ..conformance import AgentConformance, Model, Place, StoreConformance, Subject
from .scripted import ScriptedAgent, Step
from .virtual import VirtualClock, VirtualLoop, run_virtual

__all__ = [
    "AgentConformance",
    "Model",
    "Place",
    "ScriptedAgent",
    "Step",
    "StoreConformance",
    "Subject",
    "VirtualClock",
    "VirtualLoop",
    "run_virtual",
]
