"""Claude, over the Anthropic Messages API (platform.claude.com/docs, "Messages", version 2023-06-01)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ErrorInfo
from ..request import Request
from ..wire import anthropic
from ..wire.decoder import StreamDecoder
from .http import HttpAgent
from .models import max_output_tokens

__all__ = ["ClaudeAgent"]


class ClaudeAgent(HttpAgent):
    """Claude. The key is ``api_key`` or ``ANTHROPIC_API_KEY``.

    The address is ``base_url`` (without ``/v1``) or ``ANTHROPIC_BASE_URL``. ``max_tokens``, which
    the protocol demands, defaults to the model's most.
    """

    protocol = "anthropic"
    default_name = "claude"
    default_model = "claude-sonnet-5"
    default_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"
    base_url_variable = "ANTHROPIC_BASE_URL"

    def _exchange(self, request: Request) -> tuple[str, dict[str, Any], StreamDecoder]:
        model = self._model(request) or ""
        body = anthropic.build_request(request, model=model, max_tokens=max_output_tokens(model))
        return "/v1/messages", body, anthropic.Decoder()

    def _key_headers(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key}

    def _extra_headers(self) -> Mapping[str, str]:
        return {"anthropic-version": "2023-06-01"}

    def _decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        return anthropic.decode_error(status, headers, body)
