"""The AI SDK's UI message stream, which ``useChat`` reads, and what its ``DefaultChatTransport`` posts.

Sources: the npm package ``ai``, versions 6 and 7 (``uiMessageChunkSchema``, ``processUIMessageStream``,
``convertToModelMessages``), and its page on stream protocols (https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol). Both
versions call the stream ``v1``; a client stops at a part whose type it does not know, so that only types that both know
are sent.

The way of the records into the browser and back:

- What must be sent back to a provider as it came (seals of reasoning and of tool calls, ids) is in ``providerMetadata``
  under :data:`NAMESPACE`, with the protocol of the agent that it is from; clients keep it and post it again, and
  :func:`parse_request` reads it, so that only an agent of the same protocol gets it.
- A :class:`~multi_agent_scheduler.records.Reset` is a part of type ``data-reset``, whose ``data`` is
  ``{"void": N, "reason": ...}``: the N parts of the message before it (``step-start`` not counted) are void. A page
  leaves them out; ``parse_request`` does too.
"""

from __future__ import annotations

from .encode import HEADERS, Encoder
from .parse import Chat, parse_object, parse_request
from .vocabulary import NAMESPACE

__all__ = ["HEADERS", "NAMESPACE", "Chat", "Encoder", "parse_object", "parse_request"]
