"""Google's Gemini: ``generateContent`` and ``streamGenerateContent?alt=sse``, of the Gemini API and of Vertex AI.

Source: https://ai.google.dev/api/generate-content and Google's own client, google-genai. What this package decides
where the protocol leaves room is told in :mod:`.decode`, :mod:`.encode`, :mod:`.build` and :mod:`.parse`.
"""

from __future__ import annotations

from .build import build_request
from .decode import Decoder
from .encode import Encoder
from .failure import decode_error
from .finish import PROTOCOL
from .parse import parse_request

__all__ = ["PROTOCOL", "Decoder", "Encoder", "build_request", "decode_error", "parse_request"]
