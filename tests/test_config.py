"""Agents from mas.toml and from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from multi_agent_scheduler import config
from multi_agent_scheduler.agents import ClaudeAgent, CompatibleAgent, OpenAIAgent
from multi_agent_scheduler.errors import InvalidConfiguration


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "mas.toml"


def test_a_file_makes_agents(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-team")
    toml.write_text(
        """
        [agents.writer]
        type = "claude"
        model = "claude-opus-5"
        api_key_env = "TEAM_KEY"
        max_concurrent = 3
        timeouts = {first_content = 5}

        [agents.fast]
        type = "compatible"
        preset = "groq"
        model = "llama"

        [agents.reasoner]
        type = "openai"
        api = "responses"
        """
    )
    offers = config.load(toml)
    assert list(offers) == ["writer", "fast", "reasoner"]
    writer, fast, reasoner = (offer.make() for offer in offers.values())
    assert isinstance(writer, ClaudeAgent)
    assert (writer.name, writer.model, writer.max_concurrent) == ("writer", "claude-opus-5", 3)
    assert writer.key_missing is None
    assert writer.timeouts is not None
    assert writer.timeouts.first_content == 5
    assert isinstance(fast, CompatibleAgent)
    assert fast.base_url == "https://api.groq.com/openai/v1"
    assert offers["fast"].key_variable == "GROQ_API_KEY"
    assert not offers["fast"].key_set
    assert isinstance(reasoner, OpenAIAgent)
    assert reasoner.api == "responses"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[agents.a]\ntype = 'clod'", r"\[agents.a\]: type must be one of claude, .*, not 'clod'"),
        ("[agents.a]\nmodel = 'x'", r"\[agents.a\]: type must be one of"),
        ("[agents.a]\ntype = 'claude'\napi_key = 'sk-1'", r"\[agents.a\]: no key in a file: set api_key_env"),
        ("agents = 3", "agents must be tables"),
        ("[agents]\na = 3", r"\[agents.a\] must be a table"),
        ("[agents.a", "is no valid TOML: .*line 1"),
    ],
)
def test_a_mistake_in_a_file_is_named(toml: Path, text: str, message: str) -> None:
    toml.write_text(text)
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        config.load(toml)
    assert str(toml) in str(caught.value)
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[agents.a]\ntype = 'claude'\nmodle = 'x'", r"\[agents.a\]: .*unknown keyword 'modle'"),
        ("[agents.a]\ntype = 'claude'\nbase_url = 'nowhere'", r"\[agents.a\]: .*base_url must be a URL"),
        ("[agents.a]\ntype = 'claude'\ntimeouts = {total = -1}", r"\[agents.a\]: .*total must be a number"),
        ("[agents.a]\ntype = 'claude'\ntimeouts = {total = 'soon'}", r"\[agents.a\]: .*timeouts"),
    ],
)
def test_a_keyword_that_cannot_be_is_named_when_the_agent_is_made(toml: Path, text: str, message: str) -> None:
    toml.write_text(text)
    with pytest.raises(InvalidConfiguration, match=message):
        config.load(toml)["a"].make()


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InvalidConfiguration, match=r"nowhere\.toml cannot be read: No such file"):
        config.load(Path("nowhere.toml"))


def test_without_a_file_there_is_the_local_model_and_who_has_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = config.offers()
    assert next(iter(offers)) == "local"
    assert [name for name, offer in offers.items() if offer.key_set] == ["local"]
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-x")
    assert [name for name, offer in config.offers().items() if offer.key_set] == ["local", "claude"]
    assert offers["claude"].make().name == "claude"
    assert offers["groq"].make().name == "groq"
