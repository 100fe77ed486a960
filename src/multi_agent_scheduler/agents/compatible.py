"""Any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Unpack
from urllib.parse import quote

from ..errors import ErrorInfo, InvalidConfiguration
from ..request import Request
from ..wire import openai_chat
from ..wire.decoder import StreamDecoder
from ..wire.openai_chat.build import ReasoningField
from .http import HttpAgent, HttpSettings

__all__ = ["PRESETS", "CompatibleAgent", "Preset"]


class Preset(NamedTuple):
    """What is known of a provider: where it is, which variable holds its key, and how it differs."""

    base_url: str | None
    key_variable: str | None
    needs_key: bool = True
    token_field: str = "max_tokens"
    usage_option: bool = True
    """Whether it accepts stream_options.include_usage."""
    reasoning_field: ReasoningField | None = None
    """Where it takes the reasoning of earlier turns."""


PRESETS: Final[Mapping[str, Preset]] = {
    "azure": Preset(None, "AZURE_OPENAI_API_KEY", token_field="max_completion_tokens"),
    "deepseek": Preset("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "groq": Preset("https://api.groq.com/openai/v1", "GROQ_API_KEY", token_field="max_completion_tokens"),
    "llama.cpp": Preset("http://127.0.0.1:8080/v1", None, needs_key=False),
    "mistral": Preset("https://api.mistral.ai/v1", "MISTRAL_API_KEY", usage_option=False),
    "ollama": Preset("http://127.0.0.1:11434/v1", None, needs_key=False),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", reasoning_field="reasoning_details"),
    "together": Preset("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "vllm": Preset("http://127.0.0.1:8000/v1", None, needs_key=False),
    "xai": Preset("https://api.x.ai/v1", "XAI_API_KEY"),
}

_PLAIN: Final = Preset(None, None, needs_key=False)


class CompatibleAgent(HttpAgent):
    """An OpenAI-compatible endpoint: ``base_url`` (with ``/v1``), or a ``preset`` of :data:`PRESETS`, or both.

    ``api_version`` is Azure's, whose ``base_url`` is ``https://NAME.openai.azure.com`` and whose ``model`` is the
    deployment; the key then travels as ``api-key``.
    """

    protocol = "openai_chat"
    default_name = "compatible"

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        preset: str | None = None,
        api_version: str | None = None,
        **settings: Unpack[HttpSettings],
    ) -> None:
        if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
            raise InvalidConfiguration(f"unknown preset {preset!r}; the presets are {', '.join(sorted(PRESETS))}")
        self.preset = preset
        self._kind = PRESETS[preset] if preset is not None else _PLAIN
        # llama.cpp's server goes on with a last message of the assistant's, and keeps to schemas by a grammar.
        self.continues_prefix = self.enforces_schema = preset == "llama.cpp"
        self.key_variable = self._kind.key_variable
        self.needs_key = self._kind.needs_key
        if preset is not None:
            settings.setdefault("name", preset)
        super().__init__(api_key, model=model, base_url=base_url or self._kind.base_url, **settings)
        self._api_version = api_version or ("2024-10-21" if preset == "azure" else None)

    def _exchange(self, request: Request) -> tuple[str, dict[str, Any], StreamDecoder]:
        model = self._model(request)
        if not model:
            raise InvalidConfiguration(f"{self.name}: name a model, with model= here or in the call")
        body = openai_chat.build_request(
            request,
            model=model,
            token_field=self._kind.token_field,
            include_usage=self._kind.usage_option,
            reasoning_field=self._kind.reasoning_field,
        )
        return self._path(model), body, openai_chat.Decoder()

    def _path(self, model: str) -> str:
        if self._api_version is None:
            return "/chat/completions"
        return f"/openai/deployments/{quote(model, safe='')}/chat/completions?api-version={quote(self._api_version)}"

    def _key_headers(self, key: str) -> Mapping[str, str]:
        if self._api_version is not None:
            return {"api-key": key}
        return super()._key_headers(key)

    def _decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        return openai_chat.decode_error(status, headers, body)
