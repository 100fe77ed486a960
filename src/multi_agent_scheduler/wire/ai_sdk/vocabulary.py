"""The words that both directions share."""

from __future__ import annotations

from typing import Final

__all__ = ["NAMESPACE", "PROTOCOL", "RESET"]

PROTOCOL: Final = "ai_sdk"
"""The name of requests that came so; no agent speaks it."""

NAMESPACE: Final = "multiAgentScheduler"
"""Where ``providerMetadata`` holds what is ours; the SDK's own providers use theirs (``anthropic``, ``openai`` ...)."""

RESET: Final = "data-reset"
"""The type of the part that voids parts before it."""
