"""Sources: ``groundingMetadata`` and ``citationMetadata`` to citations; other providers' citations to the former."""

from __future__ import annotations

from typing import Any

from ...records import Citation
from .usage import count

__all__ = ["cited", "grounded", "is_derived", "to_grounding"]


def grounded(metadata: Any, part: int, branch: str | None) -> list[Citation]:
    """One citation for each (piece of the answer, source) pair, then one for each source that no piece names.

    ``start`` and ``end`` are bytes of UTF-8 in the answer's text, ``text`` is that piece of the answer, ``raw`` holds
    the source as ``groundingChunk``.
    """
    if not isinstance(metadata, dict):
        return []
    chunks = _list(metadata.get("groundingChunks"))
    used: set[int] = set()
    found: list[Citation] = []
    for support in _list(metadata.get("groundingSupports")):
        if not isinstance(support, dict):
            continue
        segment = support.get("segment")
        segment = segment if isinstance(segment, dict) else {}
        for index in _list(support.get("groundingChunkIndices")):
            number = count(index)
            if number is not None and 0 <= number < len(chunks):
                used.add(number)
                found.append(_citation(chunks[number], segment, part, branch))
    found += [_citation(chunk, {}, part, branch) for index, chunk in enumerate(chunks) if index not in used]
    return found


def cited(metadata: Any, part: int, branch: str | None) -> list[Citation]:
    """The sources that the answer recites: ``citationSources`` (Gemini API) or ``citations`` (Vertex AI)."""
    if not isinstance(metadata, dict):
        return []
    sources = _list(metadata.get("citationSources")) or _list(metadata.get("citations"))
    return [
        Citation(
            part=part,
            url=_str(source.get("uri")),
            title=_str(source.get("title")),
            start=count(source.get("startIndex")),
            end=count(source.get("endIndex")),
            raw={"citationSource": source},
            branch=branch,
        )
        for source in sources
        if isinstance(source, dict)
    ]


def is_derived(citation: Citation) -> bool:
    """Whether it was made from metadata that the stream carries whole beside it."""
    raw = citation.raw
    return isinstance(raw, dict) and ("groundingChunk" in raw or "citationSource" in raw)


def to_grounding(citations: list[Citation]) -> dict[str, Any]:
    """The groundingMetadata that says what these citations of other providers say."""
    chunks: list[dict[str, Any]] = []
    supports: list[dict[str, Any]] = []
    for citation in citations:
        source = {"uri": citation.url, "title": citation.title}
        segment = {"startIndex": citation.start, "endIndex": citation.end, "text": citation.text}
        segment = {name: value for name, value in segment.items() if value is not None}
        if segment:
            supports.append({"segment": segment, "groundingChunkIndices": [len(chunks)]})
        chunks.append({"web": {name: value for name, value in source.items() if value is not None}})
    return {"groundingChunks": chunks, "groundingSupports": supports} if supports else {"groundingChunks": chunks}


def _citation(chunk: Any, segment: dict[str, Any], part: int, branch: str | None) -> Citation:
    source: dict[str, Any] = {}
    if isinstance(chunk, dict):  # {"web": {...}}, {"retrievedContext": {...}}, {"maps": {...}}: one kind in each
        source = next((value for value in chunk.values() if isinstance(value, dict)), {})
    return Citation(
        part=part,
        url=_str(source.get("uri")) or _str(source.get("sourceUri")),
        title=_str(source.get("title")),
        text=_str(segment.get("text")),
        start=count(segment.get("startIndex", 0)) if segment else None,  # a start of 0 is left out on the wire
        end=count(segment.get("endIndex")),
        raw={"groundingChunk": chunk},
        branch=branch,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
