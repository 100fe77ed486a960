"""For whoever writes an agent or a store: what every one of them must do, as tests for pytest with pytest-asyncio.

:class:`AgentConformance` and :class:`StoreConformance` are classes of tests: inherit from one, say where an agent or a
store comes from (:class:`Subject`, :class:`Place`), and pytest runs them. :class:`Model` drives a store through any
order of steps and compares all that it shows with a plain description of what should have happened.
"""

from __future__ import annotations

from .agents import AgentConformance, Behaviour, Subject
from .stores import Model, Place, StoreConformance, everything

__all__ = ["AgentConformance", "Behaviour", "Model", "Place", "StoreConformance", "Subject", "everything"]
