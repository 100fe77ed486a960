"""The protocols of others in which streams can be asked for and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..routing import Route
from . import ai_sdk, ai_sdk_object, chat, messages, models, responses

__all__ = ["ROUTES"]

ROUTES: Final[Sequence[Route]] = (
    *chat.ROUTES,
    *responses.ROUTES,
    *messages.ROUTES,
    *ai_sdk.ROUTES,
    *ai_sdk_object.ROUTES,
    *models.ROUTES,
)
