"""Gemini, over generateContent (ai.google.dev/api/generate-content, streamGenerateContent with alt=sse)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..errors import ErrorInfo, InvalidOption
from ..request import Request
from ..wire import gemini
from ..wire.decoder import StreamDecoder
from .http import HttpAgent

__all__ = ["GeminiAgent"]


class GeminiAgent(HttpAgent):
    """Gemini. The key is ``api_key`` or ``GEMINI_API_KEY``.

    The address is ``base_url`` (without a version) or ``GOOGLE_GEMINI_BASE_URL``.
    """

    protocol = "gemini"
    default_name = "gemini"
    default_model = "gemini-flash-latest"
    default_base_url = "https://generativelanguage.googleapis.com"
    key_variable = "GEMINI_API_KEY"
    base_url_variable = "GOOGLE_GEMINI_BASE_URL"

    def _exchange(self, request: Request) -> tuple[str, dict[str, Any], StreamDecoder]:
        model = self._model(request) or ""
        if ".." in model.split("/"):  # it would lead to another address
            raise InvalidOption(f"model must be the name of a model, not {model!r}")
        path = model if "/" in model else f"models/{model}"
        body = gemini.build_request(request, model=model)
        return f"/v1beta/{quote(path)}:streamGenerateContent?alt=sse", body, gemini.Decoder()

    def _key_headers(self, key: str) -> Mapping[str, str]:
        return {"x-goog-api-key": key}

    def _decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        return gemini.decode_error(status, headers, body)
