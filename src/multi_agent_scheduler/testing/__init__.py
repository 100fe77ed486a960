"""For users' tests: an agent that plays a script, and a loop in which no time is waited for.

The suites that agents and stores of one's own must pass are in :mod:`multi_agent_scheduler.conformance`.
"""

from __future__ import annotations

from .scripted import ScriptedAgent, Step
from .virtual import VirtualClock, VirtualLoop, run_virtual

__all__ = ["ScriptedAgent", "Step", "VirtualClock", "VirtualLoop", "run_virtual"]
