"""The names that users import: what the facade offers is a decision, so adding to it or taking away is one too."""

from __future__ import annotations

import importlib
import inspect
from typing import Final

import pytest

import multi_agent_scheduler

FACADE: Final = frozenset(
    {
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
    }
)
"""Every name that a newcomer finds at the top, and no other."""

HOMES: Final = {
    "agents": (
        "BaseAgent",
        "ClaudeAgent",
        "CompatibleAgent",
        "FunctionAgent",
        "GeminiAgent",
        "LocalAgent",
        "OpenAIAgent",
    ),
    "errors": ("SchedulerError",),
    "events": ("EventBus", "get_event_bus"),
    "metrics": ("get_metrics",),
    "scheduler": ("MultiAgentScheduler", "Task", "Timeouts"),
}
"""Where the guides import from; these paths do not move."""


def test_the_facade_offers_these_names_and_says_what_they_are() -> None:
    assert set(getattr(multi_agent_scheduler, "__all__", ())) == FACADE
    assert set(dir(multi_agent_scheduler)) >= FACADE
    for name in sorted(FACADE):
        found = getattr(multi_agent_scheduler, name)
        if inspect.isclass(found) or inspect.isroutine(found):
            assert found.__name__ == name
            assert inspect.getdoc(found), name


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in HOMES.items() for name in names])
def test_the_guides_find_it_where_they_import_it(module: str, name: str) -> None:
    home = importlib.import_module(f"multi_agent_scheduler.{module}")
    assert hasattr(home, name)
    assert name in home.__all__
