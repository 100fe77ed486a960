"""What others recorded or proved: JSONTestSuite, prefixes that four parsers were shown, Vercel's repairs."""

from __future__ import annotations

import base64
import json
from itertools import groupby
from typing import Any

import pytest

from multi_agent_scheduler.wire.partial_json import UNSET, PartialJSON
from tests.partial_json.documents import agrees, cuts, same, told
from tests.wire.replay import VECTORS

SUITE = [
    json.loads(line) for path in sorted((VECTORS / "json").rglob("*.jsonl")) for line in path.read_text().splitlines()
]
PREFIXES = [json.loads(line) for line in (VECTORS / "partial_json" / "prefixes.jsonl").read_text().splitlines()]
DOCUMENTS = [list(rows) for _, rows in groupby(PREFIXES, key=lambda row: row["doc"])]
REPAIRS = json.loads((VECTORS / "partial_json" / "fetched" / "ai_fix_json_pairs.json").read_text())


def body(row: dict[str, Any]) -> bytes:
    if "base64" in row:
        return base64.b64decode(row["base64"])
    unit, count = row["repeat"]
    return unit.encode() * count + bytes.fromhex(row.get("suffix_hex", ""))


def test_the_vectors_are_all_there() -> None:
    assert (len(SUITE), len(DOCUMENTS), len(REPAIRS)) == (160, 17, 30)


@pytest.mark.parametrize("row", SUITE, ids=[row["name"] for row in SUITE])
def test_json_test_suite(row: dict[str, Any]) -> None:
    try:
        text = body(row).decode()
    except UnicodeDecodeError:
        assert row["expect"] != "accept"
        return
    outcomes = [told(pieces) for pieces in cuts(text)] if len(text) < 3000 else [told([text])]
    document, completed, error = outcomes[0]
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])
    if row["expect"] == "accept":
        assert error is None
        assert same(document, json.loads(text))
    elif row["expect"] == "reject":
        assert error is not None
        assert 0 <= error[0] <= len(text)
        assert () not in completed or text[error[0] :].strip(" \t\r\n")  # only what follows a document may be wrong


@pytest.mark.parametrize("rows", DOCUMENTS, ids=[str(rows[0]["doc"]) for rows in DOCUMENTS])
class TestPrefixes:
    def test_nothing_is_shown_that_the_finished_document_contradicts(self, rows: list[dict[str, Any]]) -> None:
        finished = json.loads(rows[-1]["prefix"])
        before: Any = UNSET
        for row in rows:
            parser = PartialJSON()
            parser.feed(row["prefix"])
            assert agrees(parser.value, finished), row["prefix"]
            assert agrees(before, parser.value), row["prefix"]
            before = parser.value

    def test_nothing_is_held_back_that_another_parser_rightly_shows(self, rows: list[dict[str, Any]]) -> None:
        """jiter shows strings as they grow, as we do; it shows numbers, too, that may still go on."""
        for row in rows:
            theirs = row["jiter_trailing_strings"].get("v", UNSET)
            if "repr" in row["jiter_trailing_strings"] or row["prefix"][-1:] in "0123456789":
                continue
            parser = PartialJSON()
            parser.feed(row["prefix"])
            ours = parser.value
            if not same(ours, theirs):
                assert row["prefix"][-1:] in ".eE+-" or ours is UNSET or "\\" in row["prefix"][-12:], row["prefix"]

    def test_every_split(self, rows: list[dict[str, Any]]) -> None:
        text = rows[-1]["prefix"]
        whole = told([text])
        assert same(whole.document, json.loads(text))
        assert whole.error is None
        for cut in range(len(text) + 1):
            assert told([text[:cut], text[cut:]]) == whole, cut
        for pieces in cuts(text):
            assert told(pieces) == whole


@pytest.mark.parametrize("row", REPAIRS, ids=range(len(REPAIRS)))
def test_what_others_repair_we_know_of_it_what_is_certain(row: dict[str, str]) -> None:
    if not row["fixed"]:
        return
    repaired = json.loads(row["fixed"])
    parser = PartialJSON()
    if row["input"] == "12.e":
        with pytest.raises(ValueError, match="position 3"):
            parser.feed(row["input"])
        return
    parser.feed(row["input"])
    assert agrees(parser.value, repaired)
