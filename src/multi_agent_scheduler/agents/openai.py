"""OpenAI, over chat completions or the Responses API (platform.openai.com/docs/api-reference)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

from ..errors import ErrorInfo, InvalidOption
from ..request import Request
from ..wire import openai_chat, openai_responses
from ..wire.decoder import StreamDecoder
from .http import HttpAgent, HttpSettings

__all__ = ["OpenAIAgent"]


class OpenAIAgent(HttpAgent):
    """OpenAI. ``api`` is ``"chat"`` (chat completions) or ``"responses"``.

    The key is ``api_key`` or ``OPENAI_API_KEY``; the address is ``base_url`` (with ``/v1``) or ``OPENAI_BASE_URL``.
    """

    default_name = "openai"
    default_model = "gpt-5.4-mini"
    default_base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"
    base_url_variable = "OPENAI_BASE_URL"

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        api: Literal["chat", "responses"] = "chat",
        **settings: Unpack[HttpSettings],
    ) -> None:
        if api not in ("chat", "responses"):
            raise InvalidOption(f"api must be 'chat' or 'responses', not {api!r}")
        super().__init__(api_key, model=model, base_url=base_url, **settings)
        self.api = api
        self.protocol = "openai_chat" if api == "chat" else "openai_responses"

    def _exchange(self, request: Request) -> tuple[str, dict[str, Any], StreamDecoder]:
        model = self._model(request) or ""
        if self.api == "responses":
            return "/responses", openai_responses.build_request(request, model=model), openai_responses.Decoder()
        body = openai_chat.build_request(request, model=model, token_field="max_completion_tokens")
        return "/chat/completions", body, openai_chat.Decoder()

    def _decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        decode = openai_chat.decode_error if self.api == "chat" else openai_responses.decode_error
        return decode(status, headers, body)
