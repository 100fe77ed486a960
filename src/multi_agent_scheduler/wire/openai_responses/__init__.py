"""OpenAI's Responses API (``POST /v1/responses``), both ways: requests and answers, read and written.

The protocol's source is OpenAI's API reference ("Responses", "Streaming events"). The same shapes are spoken by
Azure, Bedrock, DeepSeek, LM Studio, OpenRouter and xAI, each a little differently; what they differ in is noted where
it matters.
"""

from __future__ import annotations

from .build import build_request
from .decode import Decoder
from .encode import Encoder, body
from .outcome import PROTOCOL, decode_error
from .parse import parse_request

__all__ = ["PROTOCOL", "Decoder", "Encoder", "body", "build_request", "decode_error", "parse_request"]
