"""Multi-Agent Scheduler: schedule tasks over many LLM agents and stream what they say, live.

    from multi_agent_scheduler import LocalAgent

    async for chunk in LocalAgent().call_stream("Explain Python async"):
        print(chunk, end="", flush=True)

The names below are all that most programs need. Each is loaded when it is first used: importing the package costs
next to nothing (docs/decisions/0002).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .__about__ import VERSION as __version__

if TYPE_CHECKING:
    from .agents import (
        Agent,
        Cache,
        Cached,
        ClaudeAgent,
        CompatibleAgent,
        Failover,
        FunctionAgent,
        Fuse,
        GeminiAgent,
        Hedge,
        Judge,
        LocalAgent,
        OpenAIAgent,
        Race,
        Retry,
        Structured,
        Vote,
    )
    from .buffering import buffered
    from .errors import AgentError, CallerError, SchedulerError, StoreError
    from .events import EventBus, get_event_bus
    from .metrics import Metrics, get_metrics
    from .pacing import paced
    from .request import ImagePart, Message, TextPart, Tool
    from .scheduler import Handle, Limits, MultiAgentScheduler, PlanHandle
    from .scheduling.budget import Price
    from .task import Budget, Result, Task, Template, Timeouts

__all__ = [
    "Agent",
    "AgentError",
    "Budget",
    "Cache",
    "Cached",
    "CallerError",
    "ClaudeAgent",
    "CompatibleAgent",
    "EventBus",
    "Failover",
    "FunctionAgent",
    "Fuse",
    "GeminiAgent",
    "Handle",
    "Hedge",
    "ImagePart",
    "Judge",
    "Limits",
    "LocalAgent",
    "Message",
    "Metrics",
    "MultiAgentScheduler",
    "OpenAIAgent",
    "PlanHandle",
    "Price",
    "Race",
    "Result",
    "Retry",
    "SchedulerError",
    "StoreError",
    "Structured",
    "Task",
    "Template",
    "TextPart",
    "Timeouts",
    "Tool",
    "Vote",
    "__version__",
    "buffered",
    "get_event_bus",
    "get_metrics",
    "paced",
]

_HOMES = {
    "agents": (
        "Agent",
        "Cache",
        "Cached",
        "ClaudeAgent",
        "CompatibleAgent",
        "Failover",
        "FunctionAgent",
        "Fuse",
        "GeminiAgent",
        "Hedge",
        "Judge",
        "LocalAgent",
        "OpenAIAgent",
        "Race",
        "Retry",
        "Structured",
        "Vote",
    ),
    "buffering": ("buffered",),
    "errors": ("AgentError", "CallerError", "SchedulerError", "StoreError"),
    "events": ("EventBus", "get_event_bus"),
    "metrics": ("Metrics", "get_metrics"),
    "pacing": ("paced",),
    "request": ("ImagePart", "Message", "TextPart", "Tool"),
    "scheduler": ("Handle", "Limits", "MultiAgentScheduler", "PlanHandle"),
    "scheduling.budget": ("Price",),
    "task": ("Budget", "Result", "Task", "Template", "Timeouts"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:  # PEP 562
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found  # the next use is an ordinary one
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
