"""Tasks are checked by name before anything runs; templates put in what was asked for, once, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import InvalidRequest, InvalidTemplate
from multi_agent_scheduler.task import Task, Template


def test_a_template_is_filled_from_the_tasks_that_it_names() -> None:
    template = Template("Compare ${step 1} with ${b/c}, ${step 1} first, for $$5.")
    assert template.names == ("step 1", "b/c")
    assert template.substitute({"step 1": "X", "b/c": "Y"}) == "Compare X with Y, X first, for $5."


def test_what_a_model_wrote_is_never_filled_in_again() -> None:
    assert Template("${a}|${b}").substitute({"a": "${b} $$ $ ${", "b": "\\1 \\g<0>"}) == "${b} $$ $ ${|\\1 \\g<0>"


def test_a_prompt_that_is_a_string_is_sent_as_it_is() -> None:
    assert Task("t", "${a} $$ $").filled({"a": "X"}) == "${a} $$ $"
    assert Task("t", Template("${a}$$"), depends_on=["a"]).filled({"a": "X"}) == "X$"


@pytest.mark.parametrize(
    ("text", "position", "where"),
    [
        ("it costs $5", 9, "line 1, column 10"),
        ("$$ ${a}\n and ${b", 13, "line 2, column 6"),
        ("${}", 0, "line 1, column 1"),
        ("$$$", 2, "line 1, column 3"),
        ("${a\n}", 0, "line 1, column 1"),
        ("${a${b}}", 0, "line 1, column 1"),
    ],
)
def test_a_malformed_template_is_refused_with_the_position(text: str, position: int, where: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        Template(text)
    assert caught.value.position == position
    assert str(caught.value) == (
        f"template: the '$' at position {position} ({where}) begins no place: "
        "write ${TASK} for a task's text, $$ for a dollar sign"
    )


def test_a_template_without_the_text_it_needs_is_an_error() -> None:
    with pytest.raises(InvalidTemplate, match=r"^template: there is no text for \$\{b\}$"):
        Template("${a} ${b}").substitute({"a": "X"})
    with pytest.raises(InvalidTemplate, match="must be a string, not int"):
        Template(5)  # type: ignore[arg-type]


@given(pieces=st.lists(st.tuples(st.text(), st.text(alphabet="ab -/", min_size=1)), max_size=5), end=st.text())
def test_any_text_survives_in_a_template_and_places_are_filled_in_order(
    pieces: list[tuple[str, str]], end: str
) -> None:
    text = "".join(f"{before.replace('$', '$$')}${{{name}}}" for before, name in pieces) + end.replace("$", "$$")
    texts = {name: f"<{name}$$>" for _, name in pieces}
    expected = "".join(f"{before}<{name}$$>" for before, name in pieces) + end
    template = Template(text)
    assert template.substitute(texts) == expected
    assert template.names == tuple(dict.fromkeys(name for _, name in pieces))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, "a task's id must be a non-empty string, not ''"),
        ({"task_type": None}, "task 't': task_type must be a non-empty string, not None"),
        ({"depends_on": "a"}, "task 't': depends_on must be a list of task ids, not 'a'"),
        ({"depends_on": ["a", 1]}, "task 't': depends_on must be a list of task ids, not ('a', 1)"),
        ({"priority": -1}, "task 't': priority must be a whole number from 0 up (higher runs first), not -1"),
        ({"priority": True}, "task 't': priority must be a whole number from 0 up (higher runs first), not True"),
        ({"priority": 1.5}, "task 't': priority must be a whole number from 0 up (higher runs first), not 1.5"),
        ({"on_failure": "retry"}, "task 't': on_failure must be 'skip' or 'run', not 'retry'"),
        ({"timeouts": 5}, "task 't': timeouts must be a Timeouts, not 5"),
        ({"options": None}, "task 't': options must be a dict of keywords, not None"),
        ({"options": {1: 2}}, "task 't': options must be a dict of keywords, not {1: 2}"),
        ({"metadata": 4}, "task 't': metadata must be a dict with strings for keys, not 4"),
        ({"metadata": {1: 2}}, "task 't': metadata must be a dict with strings for keys, not {1: 2}"),
        ({"agent": 4}, "task 't': agent must be the name of an agent, or None, not 4"),
        ({"agent": ""}, "task 't': agent must be the name of an agent, or None, not ''"),
        ({"prompt": 4}, "task 't': prompt must be a string, a list of messages or a Template, not 4"),
        ({"prompt": b"x"}, "task 't': prompt must be a string, a list of messages or a Template, not b'x'"),
        ({"budget": 4}, "task 't': budget must be a Budget, not 4"),
        ({"options": {"timeouts": 5}}, "task 't': timeouts is a field of a task, not an option"),
        ({"schema": "{}"}, "task 't': schema must be a type or a JSON Schema as a dict, not '{}'"),
        ({"schema": {}, "options": {"schema": {}}}, "task 't': schema is given twice: as a field and in options"),
    ],
)
def test_a_task_that_cannot_run_is_refused_by_the_name_of_its_field(fields: dict[str, Any], message: str) -> None:
    task = Task(**{"id": "t", "prompt": "?", **fields})
    with pytest.raises(InvalidRequest) as caught:
        task.check()
    assert str(caught.value) == message


def test_the_keywords_of_a_task_are_its_options_and_its_schema() -> None:
    assert Task("t", "?", options={"max_tokens": 5}).keywords == {"max_tokens": 5}
    assert Task("t", "?", options={"max_tokens": 5}, schema={"type": "object"}).keywords == {
        "max_tokens": 5,
        "schema": {"type": "object"},
    }
