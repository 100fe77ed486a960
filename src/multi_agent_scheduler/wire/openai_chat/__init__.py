"""OpenAI's chat completions, and what providers that call themselves compatible with it really send.

Sources: the API reference (https://platform.openai.com/docs/api-reference/chat), OpenAI's own client, the references of
the providers named in :mod:`.decode`, and recordings of them. What this package decides where the protocol leaves room
is told in :mod:`.decode`, :mod:`.encode`, :mod:`.build` and :mod:`.parse`.
"""

from __future__ import annotations

from .build import build_request
from .decode import Decoder
from .encode import Encoder
from .failure import decode_error
from .finish import PROTOCOL
from .parse import parse_request, wants_usage

__all__ = ["PROTOCOL", "Decoder", "Encoder", "build_request", "decode_error", "parse_request", "wants_usage"]
