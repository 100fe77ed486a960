"""Feeding recorded answers to decoders, in every way that a network can deliver them."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from multi_agent_scheduler.records import Record
from multi_agent_scheduler.wire.decoder import StreamDecoder

VECTORS = Path(__file__).parent.parent / "vectors"


class Recording(NamedTuple):
    """One recorded answer and what the official SDK made of it."""

    file: str
    provider: str
    api: str
    body: bytes
    expected: dict[str, Any]

    def __str__(self) -> str:
        return self.file


def recordings(api: str, *, folders: tuple[str, ...] = ("registry", "fetched")) -> list[Recording]:
    """The recordings of one API ("chat", "responses", "messages", "generatecontent"), of every provider."""
    found = []
    for folder in folders:
        base = VECTORS / "streams" / folder
        for line in (base / "index.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["api"] == api:
                body = (base / row["file"]).read_bytes()
                found.append(Recording(row["file"], row["provider"], api, body, row["expected"]))
    return found


def decode(make: Callable[[], StreamDecoder], pieces: Iterable[bytes]) -> list[Record]:
    """All records of one answer that arrives in these pieces."""
    decoder = make()
    out: list[Record] = []
    for piece in pieces:
        out += decoder.feed(piece)
    out += decoder.close()
    return out


def splits(body: bytes, *, seed: int = 0, rounds: int = 5) -> Iterator[list[bytes]]:
    """The body byte by byte, cut after every event, and cut at random places."""
    yield [body[i : i + 1] for i in range(len(body))]
    yield re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", body)
    rng = random.Random(seed)
    for _ in range(rounds):
        cuts = sorted(rng.randrange(len(body) + 1) for _ in range(rng.randrange(1, 30)))
        edges = [0, *cuts, len(body)]
        yield [body[a:b] for a, b in itertools.pairwise(edges)]


def respellings(body: bytes) -> Iterator[bytes]:
    """The same events with LF, CRLF and CR line ends, and with comments between them."""
    plain = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    yield plain
    yield plain.replace(b"\n", b"\r\n")
    yield plain.replace(b"\n", b"\r")
    yield plain.replace(b"\n\n", b"\n\n: ping\n\n")


def cuts(body: bytes, *, seed: int = 0, rounds: int = 20) -> Iterator[bytes]:
    """Prefixes of the body: one after every event, and some at random bytes."""
    for match in re.finditer(rb"\n\n|\r\n\r\n", body):
        yield body[: match.end()]
    rng = random.Random(seed)
    for _ in range(rounds):
        yield body[: rng.randrange(len(body))]
