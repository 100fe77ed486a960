# ruff: noqa: RUF001 - full-width marks are meant
"""How chunks are gathered: the pure part."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multi_agent_scheduler.views.buffering import Amount, Lines, Sentences

# Texts that are full of what matters to lines and sentences.
PROSE = st.lists(
    st.sampled_from(
        [
            "Dr",
            ".",
            "!",
            "?",
            "…",
            "。",
            "！",
            "」",
            '"',
            ")",
            "*",
            " ",
            "  ",
            "\n",
            "\n\n",
            "\r\n",
            "a",
            "B",
            "e.g",
            "12",
            "word",
        ]
    )
    | st.text(max_size=3)
).map("".join)
CUTS = st.lists(st.integers(0, 6), max_size=30)


def gathered(buffer, chunks):
    pieces = [piece for chunk in chunks for piece in buffer.push(chunk, 0.0)]
    rest = buffer.take()
    return [*pieces, rest] if rest else pieces


def chunked(text, cuts):
    chunks = []
    for size in cuts:
        chunks.append(text[:size])
        text = text[size:]
    return [*chunks, text]


# --- amounts ------------------------------------------------------------------------------------------------------


def test_by_count():
    assert gathered(Amount(2, None), ["a", "b", "", "c"]) == ["ab", "c"]


def test_by_time_since_the_first_chunk_held():
    buffer = Amount(None, 0.05)
    assert buffer.due is None
    assert buffer.push("a", 10.0) == []
    assert buffer.due == 10.05
    assert buffer.push("b", 10.04) == []
    assert buffer.due == 10.05, "a later chunk does not put it off"
    assert buffer.push("c", 10.05) == ["abc"]
    assert (buffer.due, buffer.take()) == (None, "")


def test_an_empty_chunk_starts_no_clock():
    buffer = Amount(None, 0.05)
    assert buffer.push("", 1.0) == []
    assert buffer.due is None


def test_by_count_or_time_whichever_is_first():
    buffer = Amount(2, 1.0)
    assert buffer.push("a", 0.0) == []
    assert buffer.push("b", 0.1) == ["ab"]
    assert buffer.push("c", 5.0) == []
    assert buffer.due == 6.0


# --- lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        (["a\nb\nc"], ["a\n", "b\n", "c"]),
        (["a", "b\n", "\n"], ["ab\n", "\n"]),
        (["a\r", "\nb"], ["a\r\n", "b"]),
        (["a\u2028b\x0bc\rd"], ["a\u2028b\x0bc\rd"]),
        ([], []),
    ],
)
def test_lines(chunks, lines):
    assert gathered(Lines(), chunks) == lines


@given(PROSE, CUTS)
def test_lines_are_the_same_however_the_text_was_cut(text, cuts):
    assert gathered(Lines(), chunked(text, cuts)) == re.findall(r"[^\n]*\n|[^\n]+", text)


def test_a_line_is_given_out_with_the_chunk_that_completes_it():
    buffer = Lines()
    assert buffer.push("a", 0.0) == []
    assert buffer.push("b\nc", 0.0) == ["ab\n"]
    assert buffer.due is None


# --- sentences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentences",
    [
        ["Hello world. ", "How are you? ", "Fine! ", "And you"],
        ["One.\n", "Two."],
        ["It is 3.14 and v1.2.3, see example.com/a.b?c=d. ", "Next."],
        ["Dr. Smith met Mrs. Jones vs. St. Mary. ", "They left."],
        ["J. R. Tolkien, e.g. The Hobbit, i.e. A book. ", "Yes."],
        ["See Fig. 3 and no. 5, approx. Ten. ", "Then he said no. ", "She too."],
        ["Modern art. ", "Then more."],
        ["He came... and went. ", "Then… ", "Nothing."],
        ['She said "Stop!" ', "He did."],
        ['"Stop!" she said. ', '"Why?" ', "(He knew.) ", "*Really.* ", "**So.** ", "Yes."],
        ["What?! ", "No!!! ", "Yes."],
        ["In 2024. ", "Then 2025."],
        ["1. First do this. ", "2. Then that."],
        ["Do:\n1. this\n2. that\n\n", "Done"],
        ["# Title\n\n", "Some text.\n\n", "- item\n\n", "- item"],
        ["今天很好。", "你呢？", "好！」", "再见"],
        ["真的？！ ", "真的。"],
        ["  Hello. ", "You."],
        ["Wait. ...and more. ", "Yes."],
        ["Visit https://a.example/x. ", "Then go."],
        ["¿Qué? ", "Él vino. ", "Ça va."],
        ["no end"],
    ],
)
def test_sentences(sentences):
    text = "".join(sentences)
    assert gathered(Sentences(), [text]) == sentences
    assert gathered(Sentences(), list(text)) == sentences


@given(PROSE, CUTS)
@example("a. ", [])
@example("\n\n\n", [1, 1])
def test_sentences_are_the_same_however_the_text_was_cut(text, cuts):
    pieces = gathered(Sentences(), chunked(text, cuts))
    assert "".join(pieces) == text
    assert pieces == gathered(Sentences(), [text])
    assert all(piece.strip() for piece in pieces[:-1]), "no piece but the last is only white space"


def test_a_sentence_is_given_out_with_the_first_character_after_it():
    buffer = Sentences()
    assert buffer.push("It is done.", 0.0) == []
    assert buffer.push(" ", 0.0) == []
    assert buffer.push("\n", 0.0) == []
    assert buffer.push("Next", 0.0) == ["It is done. \n"]
    assert (buffer.take(), buffer.take()) == ("Next", "")


@pytest.mark.parametrize("make", [Lines, Sentences])
@pytest.mark.parametrize("filler", [" ", ".", "a", '"', "\n "])
def test_a_model_that_runs_away_costs_no_more_with_every_chunk(make, filler):
    buffer = make()
    for _ in range(50_000):  # reading all that is held again with each chunk would take minutes
        buffer.push(filler, 0.0)
    assert buffer.take() is not None
