"""Server-sent events: the standard's parsing at every split, the bounds, and framing that nothing can break."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.wire import sse
from tests.wire.replay import VECTORS

ROWS = [json.loads(line) for line in (VECTORS / "sse_parse" / "vectors.jsonl").read_text().splitlines()]


def parse(pieces: Iterable[bytes], **options: Any) -> tuple[list[tuple[str, str, str]], str, int | None]:
    decoder = sse.Decoder(**options)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    told = [(event.type, event.data.decode("utf-8", "replace"), event.id) for event in events]
    return told, decoder.last_event_id, decoder.retry


def wanted(row: dict[str, Any]) -> tuple[list[tuple[str, str, str]], str, int | None]:
    events = [(event["type"], event["data"], event["lastEventId"]) for event in row["events"]]
    return events, row["last_event_id_at_end"], row["retry"]


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
class TestTheStandard:
    def test_whole(self, row: dict[str, Any]) -> None:
        assert parse([bytes.fromhex(row["hex"])]) == wanted(row)

    def test_cut_in_two_at_every_place(self, row: dict[str, Any]) -> None:
        body = bytes.fromhex(row["hex"])
        step = max(1, len(body) // 300)
        for cut in range(0, len(body) + 1, step):
            assert parse([body[:cut], body[cut:]]) == wanted(row), cut

    def test_byte_by_byte_and_with_empty_reads(self, row: dict[str, Any]) -> None:
        body = bytes.fromhex(row["hex"])
        assert parse(body[i : i + 1] for i in range(len(body))) == wanted(row)
        assert parse(piece for i in range(len(body)) for piece in (b"", body[i : i + 1])) == wanted(row)

    def test_after_other_events(self, row: dict[str, Any]) -> None:
        """The quick ways for usual events leave nothing behind that changes what comes next."""
        body = bytes.fromhex(row["hex"])
        if body.startswith(b"\xef\xbb\xbf"):
            return  # a byte order mark counts at the very start only
        before = b"\n\ndata: a\n\n", b"event: e\ndata: b\n\n", b"data: c\n\nevent: f\ndata: d\n\n"
        events, last_id, retry = wanted(row)
        first = [("message", "a", ""), ("e", "b", ""), ("message", "c", ""), ("f", "d", "")]
        assert parse([*before, body]) == (first + events, last_id, retry)


FIELDS = b"data: x|data:y|data|event: e|event:|id: 7|id|id: \0|retry: 5|: c|data: |z|\xe2\x80|\xef\xbb\xbf".split(b"|")
FRAGMENTS = st.sampled_from([*FIELDS, b"\n", b"\r", b"\r\n", b"\n\n", b"\n\n"])


def reference(body: bytes) -> tuple[list[tuple[str, str, str]], str, int | None]:
    """The standard's text, line by line, without any thought for speed or splits."""
    lines = re.split("\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace"))
    events, kind, data, new_id, last_id, retry = [], "", "", "", "", None
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            last_id = new_id
            if data:
                events.append((kind or "message", data.removesuffix("\n"), last_id))
            kind = data = ""
        elif name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            new_id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return events, last_id, retry


@given(st.lists(FRAGMENTS, max_size=40).map(b"".join), st.data())
def test_any_stream_at_any_split_is_what_the_standard_says(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    edges = [0, *cuts, len(body)]
    pieces = [body[a:b] for a, b in pairwise(edges)]
    assert parse(pieces) == reference(body)


class TestAtOnce:
    @pytest.mark.parametrize(
        "body", [b"data: x\n\n", b"data: x\r\r", b"data: x\r\n\r\n", b"event: message\ndata: x\n\n"]
    )
    def test_a_read_that_ends_with_the_event_gives_it(self, body: bytes) -> None:
        decoder = sse.Decoder()
        for _ in range(3):
            assert decoder.feed(body) == [sse.Event("message", b"x")]

    def test_a_last_cr_dispatches_and_its_lf_is_swallowed(self) -> None:
        decoder = sse.Decoder()
        assert decoder.feed(b"data: x\r\n\r") == [sse.Event("message", b"x")]
        assert decoder.feed(b"\n") == []
        assert decoder.feed(b"data: y\r") == []
        assert decoder.feed(b"\ndata: z\r\n\r\n") == [sse.Event("message", b"y\nz")]

    def test_a_retry_too_long_for_a_number_is_not_taken(self) -> None:
        assert parse([b"retry: 7\nretry: " + b"9" * 5000 + b"\n\n"]) == ([], "", 7)
        assert parse([b"retry: " + b"0" * 5000 + b"7\n\n"]) == ([], "", 7)


class TestBounds:
    def endless(self, first: bytes, piece: bytes, total: int) -> Iterable[bytes]:
        yield first
        for _ in range(total // len(piece)):
            yield piece

    def feed_all(self, decoder: sse.Decoder, pieces: Iterable[bytes], taken: list[int]) -> None:
        for piece in pieces:
            decoder.feed(piece)
            taken.append(len(piece))

    @pytest.mark.parametrize("size", [1, 100, 65_536])
    @pytest.mark.parametrize("first", [b"data: ", b": ", b"", b"event: "])
    def test_a_line_without_an_end_is_given_up_at_the_limit(self, first: bytes, size: int) -> None:
        decoder = sse.Decoder(limit=100_000)
        taken: list[int] = []
        with pytest.raises(sse.TooLong, match="a line of more than 100000 bytes"):
            self.feed_all(decoder, self.endless(first, b"x" * size, 1 << 30), taken)
        assert sum(taken) <= 100_000
        with pytest.raises(sse.TooLong):
            decoder.feed(b"\n\ndata: x\n\n")

    def test_memory_stays_bounded(self) -> None:
        tracemalloc.start()
        try:
            for first, piece in ((b"data: ", b"x" * 16_384), (b"", b"data: wxyz\n" * 1500), (b"", b"data\n" * 3000)):
                decoder = sse.Decoder(limit=200_000)
                with pytest.raises(sse.TooLong):
                    self.feed_all(decoder, self.endless(first, piece, 1 << 30), [])
                del decoder
            assert tracemalloc.get_traced_memory()[1] < 2_500_000
        finally:
            tracemalloc.stop()

    def test_many_data_lines_make_an_event_that_is_too_long(self) -> None:
        decoder = sse.Decoder(limit=20)
        with pytest.raises(sse.TooLong, match="an event of more than 20 bytes"):
            decoder.feed(b"data: 0123456789\n" * 2)

    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
    def test_the_limit_itself_is_allowed(self, end: bytes) -> None:
        line = b"data: 01234567890123"
        assert len(line) == 20
        for body in (line + end + end, b"data: 012345678" + end + b"data: 0123456789" + end + end):
            assert len(parse([body], limit=20)[0]) == 1
            assert len(parse((body[i : i + 1] for i in range(len(body))), limit=20)[0]) == 1
        for body in (line + b"4" + end, b"data: 012345678" + end + b"data: 01234567890" + end):
            with pytest.raises(sse.TooLong):
                parse([body], limit=20)
            with pytest.raises(sse.TooLong):
                parse((body[i : i + 1] for i in range(len(body))), limit=20)

    def test_what_came_before_in_the_same_read_is_told(self) -> None:
        decoder = sse.Decoder(limit=20)
        with pytest.raises(sse.TooLong) as caught:
            decoder.feed(b"data: a\n\ndata: b\n\n: " + b"x" * 30)
        assert [event.data for event in caught.value.events] == [b"a", b"b"]

    def test_any_number_of_bytes_in_short_lines_is_fine(self) -> None:
        decoder = sse.Decoder(limit=50)
        assert sum(len(decoder.feed(b": ping\n\ndata: x\n\n" * 1000)) for _ in range(10)) == 10_000

    def test_a_long_line_in_small_pieces_is_held_once(self) -> None:
        """Quadratic copying of 8 MB in 16-byte pieces would be 2 TB: this would not end."""
        decoder = sse.Decoder()
        decoder.feed(b"data: ")
        for _ in range(500_000):
            decoder.feed(b"0123456789abcdef")
        (event,) = decoder.feed(b"\n\n")
        assert event.data == b"0123456789abcdef" * 500_000


ONE_LINE = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
ANY = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\r\n\0:\ufeff\u2028 "))


class TestEncoding:
    @given(ANY, ONE_LINE | st.none(), ONE_LINE | st.none(), st.integers(0, 10**17) | st.none(), ANY | st.none())
    def test_what_is_encoded_is_decoded(
        self, data: str, event: str | None, last_id: str | None, retry: int | None, comment: str | None
    ) -> None:
        frame = sse.encode(data, event=event, id=last_id, retry=retry, comment=comment)
        plain = re.sub("\r\n|\r", "\n", data)
        want = ([(event or "message", plain, last_id or "")], last_id or "", retry)
        assert parse([frame]) == want
        assert parse([frame[:-1], frame[-1:]]) == want
        twice, _, _ = parse([frame + frame])
        assert twice == want[0] * 2
        assert sse.encode(data.encode(), event=event, id=last_id, retry=retry, comment=comment) == frame

    def test_the_bytes(self) -> None:
        assert sse.encode(b'{"a":1}') == b'data: {"a":1}\n\n'
        assert sse.encode("") == b"data: \n\n"
        assert sse.encode("a\r\nb\rc\n", event="e", id="", retry=5, comment="x\ny") == (
            b": x\n: y\nevent: e\nid: \nretry: 5\ndata: a\ndata: b\ndata: c\ndata: \n\n"
        )
        assert sse.encode(None, comment="ping") == b": ping\n\n"
        assert sse.encode(None) == b""

    def test_an_empty_id_forgets_the_last_one(self) -> None:
        assert parse([sse.encode("a", id="1"), sse.encode("b", id="")])[1] == ""

    @pytest.mark.parametrize("field", ["event", "id"])
    @pytest.mark.parametrize("value", ["a\nb", "a\r", "\0", "x\r\ndata: forged", "\ud800"])
    def test_a_field_that_cannot_be_framed_is_refused_by_name(self, field: str, value: str) -> None:
        with pytest.raises(ValueError, match=f"^{field}: "):
            sse.encode("x", **{field: value})

    @pytest.mark.parametrize("value", [-1, True, 1.5, "5"])
    def test_a_bad_retry_is_refused(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^retry: "):
            sse.encode("x", retry=value)

    def test_an_event_without_data_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^event: "):
            sse.encode(None, event="e")

    def test_lone_surrogates_become_the_replacement_character(self) -> None:
        assert sse.encode("a\ud800b\U0001f600") == "data: a\ufffdb\U0001f600\n\n".encode()
