"""The Anthropic Messages API (https://docs.anthropic.com/en/api/messages), in all four directions.

How the protocol and the records fit together:

- A content block is a ``part``, numbered as the protocol numbers them. Tool calls, the client's and the server's alike,
  are counted from 0 as ``index``; the arguments of a finished call are JSON, ``{}`` where there are none (those that
  ``max_tokens`` cut off are not).
- What has no record of its own is an ``Unknown`` whose ``raw`` is an event of the protocol: unknown events, deltas and
  blocks as they came; for an event that is only partly understood, the event with what is left over. An empty text or
  thinking block, which says nothing, is carried the same way, so that no block is lost and numbers have no gaps.
- Refusing is ``stop_reason: refusal``; the explanation in ``stop_details`` is a ``Refusal`` record.
- What other protocols' records become here is said at :class:`Encoder`.
"""

from __future__ import annotations

from .build import build_request
from .decoder import Decoder
from .encoder import Encoder, body
from .failure import decode_error
from .parse import parse_request

__all__ = ["Decoder", "Encoder", "body", "build_request", "decode_error", "parse_request"]
