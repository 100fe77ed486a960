"""Documents with prose or a fence around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.wire.partial_json import UNSET, EmbeddedJSON
from tests.partial_json.documents import cuts, documents, told

# text, value, before, after, fence
CASES = [
    ('{"a": 1}', {"a": 1}, "", "", None),
    ("\n [1, 2]\n", [1, 2], "", "", None),
    ('{"a": 1} I hope that helps {"b": 2}', {"a": 1}, "", 'I hope that helps {"b": 2}', None),
    ('Sure! Here it is: {"a": "b"}. Enjoy!', {"a": "b"}, "Sure! Here it is:", ". Enjoy!", None),
    ("The list [1], as {asked}:\n  [1, 2]\nDone.", [1, 2], "The list [1], as {asked}:", "Done.", None),
    ('A set {1} and then { \n "a": []}', {"a": []}, "A set {1} and then", "", None),
    ("An empty one: {}", {}, "An empty one:", "", None),
    ('Sure!\n\n```json\n{"a": [1]}\n```\n\nAnything else?', {"a": [1]}, "Sure!", "Anything else?", "json"),
    ('```JSON\r\n{"a": 1}\r\n```', {"a": 1}, "", "", "json"),
    ('~~~~ json5 \n"text"\n~~~~\nbye', "text", "", "bye", "json5"),
    ("```json\n42\n```", 42, "", "", "json"),
    ("```\n\n [42]\n```", [42], "", "", ""),
    ('Say `{x}` or ```{"a":1}``` inline', {"a": 1}, "Say `{x}` or ```", "``` inline", None),
    ('```python\nx = {1}\n```\n```json\n{"a": 1}\n```', {"a": 1}, "```python\nx = {1}\n```", "", "json"),
    ("See\n[the guide](x)\n[nul, and\n[\n 1]", [1], "See\n[the guide](x)\n[nul, and", "", None),
    ("Flags:\n[true, null]", [True, None], "Flags:", "", None),
    ('\ufeff[1, {"a": 2}]', [1, {"a": 2}], "\ufeff", "", None),
    ('{"code": "```json\\n{}```"}', {"code": "```json\n{}```"}, "", "", None),
]


@pytest.mark.parametrize(("text", "value", "before", "after", "fence"), CASES)
def test_the_document_is_found_in_any_pieces(
    text: str, value: object, before: str, after: str, fence: str | None
) -> None:
    for pieces in cuts(text):
        parser = EmbeddedJSON()
        found = told(pieces, parser)
        assert (found.document, found.error) == (value, None)
        assert (parser.before, parser.after, parser.fence) == (before, after, fence)
        assert parser.position == len(text)


@pytest.mark.parametrize("text", ["", "I cannot do that.", "So {x} and [1]", "```json", "see {", "a\n  "])
def test_a_text_without_a_document(text: str) -> None:
    for pieces in cuts(text):
        parser = EmbeddedJSON()
        error = told(pieces, parser).error
        assert error == (len(text), "there is no JSON document in the text")
        assert parser.value is UNSET
        assert not parser.before or text.startswith(parser.before)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ('Here: {"a": 1,}', 14),
        ("{'a': 1}", 1),
        ('```json\n{"a": tru}\n```', 17),
        ('```json\n{"a": 1', 15),
        ("Well: { \n]", 10),
    ],
)
def test_positions_count_from_the_begin_of_the_text(text: str, position: int) -> None:
    for pieces in cuts(text):
        error = told(pieces, EmbeddedJSON()).error
        assert error is not None
        assert error[0] == position


@given(document=documents(), before=st.text(alphabet="ab \n.`{[1", max_size=20), after=st.text(max_size=20))
def test_a_fence_holds_any_document(document: str, before: str, after: str) -> None:
    """However the prose goes: what it holds that looks like a document would be one."""
    text = f"Text\n{before}x\n```json\n{document}\n```{after}"
    parser = EmbeddedJSON()
    whole = told([text], parser)
    for pieces in cuts(text):
        again = EmbeddedJSON()
        assert told(pieces, again) == whole
        assert (again.before, again.after, again.fence) == (parser.before, parser.after, parser.fence)
    if "{" not in before and "[" not in before and "`" not in before:
        assert whole.error is None
        assert parser.fence == "json"


def test_prose_is_not_read_again_and_again() -> None:
    for line in ("word " * 20, "{ " * 50, " " * 100, "``` ", "[", "~~~json "):
        parser = EmbeddedJSON()
        longest = 0
        for piece in ["x", *([line] * 200)]:
            parser.feed(piece)
            longest = max(longest, len(parser._waiting))
        assert longest < 500
