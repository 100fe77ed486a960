"""The recorded streams are the bytes that were recorded: no editor and no line-ending filter has touched one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

STREAMS = Path(__file__).parent / "vectors" / "streams"


@pytest.mark.parametrize("folder", sorted(path.name for path in STREAMS.iterdir()))
def test_recorded_streams_are_as_recorded(folder: str) -> None:
    rows = [json.loads(line) for line in (STREAMS / folder / "index.jsonl").read_text().splitlines()]
    recorded = {row["file"]: row["sha256"] for row in rows}
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STREAMS / folder).iterdir()
        if path.name != "index.jsonl"
    }
    assert len(recorded) == len(rows) > 0
    assert present == recorded
