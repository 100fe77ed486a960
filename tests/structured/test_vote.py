"""Votes over objects, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multi_agent_scheduler import Vote
from multi_agent_scheduler.agents.ballot import Undecided, elected
from multi_agent_scheduler.agents.structured import Structured
from multi_agent_scheduler.errors import AgentError, ErrorInfo, InvalidConfiguration, agent_error
from multi_agent_scheduler.testing import ScriptedAgent
from tests.structured.recipes import RecipeModel

ONE = '{"title": "Pancakes", "steps": [{"text": "Mix"}], "day": null}'
TWO = 'Sure: {"steps": [{"text": "Mix"}], "title": "Crepes", "day": null}'
THREE = '```json\n{"title": "Pancakes", "steps": [], "day": null}\n```'


async def test_each_field_gets_the_value_that_most_give() -> None:
    vote = Vote(*map(ScriptedAgent, (ONE, TWO, THREE)), by="field")
    assert json.loads((await vote.call("?")).text) == {"title": "Pancakes", "steps": [{"text": "Mix"}], "day": None}
    recipe = await Structured(vote, RecipeModel).object("?")
    assert (recipe.title, recipe.steps[0].text) == ("Pancakes", "Mix")


async def test_answers_that_are_the_same_decide_at_once() -> None:
    vote = Vote(ScriptedAgent(ONE), ScriptedAgent(ONE), ScriptedAgent(TWO), by="field")
    assert (await vote.call("?")).text == ONE


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ((ONE, TWO, '{"title": "Waffles", "steps": [{"text": "Mix"}]}'), "there is no agreement on title: 2 votes"),
        ((ONE, "no object", "[1]"), "1 of 3 candidates gave an object, 2 must"),
        (
            (ONE, agent_error(ErrorInfo("server_error", "x")), agent_error(ErrorInfo("server_error", "x"))),
            "1 of 3 candidates succeeded",
        ),
    ],
)
async def test_without_agreement_it_fails(answers: Any, problem: str) -> None:
    with pytest.raises(AgentError, match=problem):
        await Vote(*map(ScriptedAgent, answers), by="field").call("?")


def test_members_that_are_not_there_are_votes_too() -> None:
    assert elected([{"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, {"a": {}}], 2) == {"a": {"b": 1}}
    assert elected([{"a": 1}, {"a": 1.0}, {"a": 1}], 2) == {"a": 1}
    with pytest.raises(Undecided) as raised:
        elected([{"a": {"b": 1}}, {"a": {"b": 2}}, {"a": 3}], 2)
    assert raised.value.path == ("a", "b")
    with pytest.raises(InvalidConfiguration, match="by must be 'answer' or 'field'"):
        Vote(ScriptedAgent(ONE), by="colour")  # type: ignore[arg-type]


def test_a_number_is_the_same_however_it_is_written() -> None:
    assert elected([{"n": 3, "of": [1]}, {"n": 3.0, "of": [1.0]}, {"n": 4}], 2) == {"n": 3, "of": [1]}
    with pytest.raises(Undecided):
        elected([{"n": 1}, {"n": True}], 2)
