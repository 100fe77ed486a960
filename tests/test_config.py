"""Agents from mas.toml and from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from multi_agent_scheduler import agents, config
from multi_agent_scheduler.agents import ClaudeAgent, CompatibleAgent, LocalAgent, OpenAIAgent
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
        ("[agents.a]\ntype = 'clod'", r"\[agents.a\]: type 'clod' is unknown: it must be one of claude, "),
        ("[agents.a]\nmodel = 'x'", r"\[agents.a\]: type is missing: it is one of claude, "),
        ("[agents.a]\ntype = 'claude'\napi_key = 'sk-1'", r"\[agents.a\]: no key in a file: set api_key_env"),
        ("agents = 3", "agents must be tables"),
        ("[agents]\na = 3", r"\[agents.a\] must be a table"),
        ("[agents.a]\ntype = 3", r"\[agents.a\]: type 3 is unknown"),
        ("[agents.a]\ntype = 'claude'\napi_key_env = 3", r"\[agents.a\]: api_key_env must be the name of a variable"),
        ("[agent.a]\ntype = 'claude'", "unknown setting 'agent'; the settings are agents, limits, server, store"),
        ("[agents.a]\ntype = claude\n", "is no valid TOML: .*line 2"),
        ("[agents.a", "is no valid TOML: .*end of document"),
        ("a = " + "[" * 5000, "is no valid TOML"),
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
        ("[agents.a]\ntype = 'claude'\ntimeouts = {total = 'soon'}", r"\[agents.a\]: timeouts: total must be a number"),
        ("[agents.a]\ntype = 'claude'\ntimeouts = {first = 1}", r"\[agents.a\]: timeouts: unknown limit 'first'"),
        ("[agents.a]\ntype = 'claude'\ntimeouts = 5", r"\[agents.a\]: timeouts must be a table of queue, .*, not 5"),
        ("[agents.a]\ntype = 'claude'\nname = 5", r"\[agents.a\]: name must be a string, not 5"),
        ("[agents.a]\ntype = 'local'\nmodle = 'x'", r"\[agents.a\]: .*unknown keyword 'modle'; .*model_path"),
        ("[agents.a]\ntype = 'local'\nmax_concurrent = 'x'", r"\[agents.a\]: max_concurrent must be a whole number"),
        ("[agents.a]\ntype = 'local'\nmodel_path = 5", r"\[agents.a\]: model_path must be the name of a file, not 5"),
        ("[agents.a]\ntype = 'local'\napi_key_env = 'X'", r"\[agents.a\]: the embedded model needs no key"),
        ("[agents.a]\ntype = 'compatible'\npreset = 'olama'", r"\[agents.a\]: unknown preset 'olama'"),
        (
            "[agents.a]\ntype = 'claude'\napi_key_env = 'NO_SUCH_KEY'",
            r"\[agents.a\]: set NO_SUCH_KEY, which api_key_env",
        ),
        ("[agents.a]\ntype = 'claude'\napi_key_env = 'NO_SUCH_KEY'\nmodle = 'x'", "unknown keyword 'modle'"),
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
    assert [name for name, offer in offers.items() if offer.key_set] == ["local", "llama.cpp", "ollama", "vllm"]
    assert [name for name, offer in offers.items() if offer.by_name_only] == ["llama.cpp", "ollama", "vllm"]
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-x")
    assert [name for name, offer in config.offers().items() if offer.key_set] == [
        "local",
        "claude",
        "llama.cpp",
        "ollama",
        "vllm",
    ]
    assert offers["claude"].make().name == "claude"
    assert offers["groq"].make().name == "groq"


def test_a_file_that_is_no_text(toml: Path) -> None:
    toml.write_bytes(b"store = '\xff'")
    with pytest.raises(InvalidConfiguration, match=r"mas\.toml is not UTF-8 text \(byte 9\)"):
        config.load(toml)


def test_what_other_commands_read_is_left_to_them(toml: Path) -> None:
    toml.write_bytes(b"\xef\xbb\xbfstore = 'memory://'\n[server]\nport = 1\n[limits.a]\nconcurrency = 2\n")
    assert config.load(toml) == {}


def test_another_account_s_key_does_not_stand_in(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-private")
    toml.write_text("[agents.a]\ntype = 'claude'\napi_key_env = 'TEAM_KEY'")
    offer = config.load(toml)["a"]
    assert not offer.key_set
    with pytest.raises(InvalidConfiguration, match="set TEAM_KEY"):
        offer.make()


def test_files_are_named_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "tiny-1.Q4_K_M.gguf").write_bytes(b"GGUF")
    (folder / "mas.toml").write_text("[agents.a]\ntype = 'local'\nmodel_path = 'tiny-1.Q4_K_M.gguf'")
    agent = config.load(folder / "mas.toml")["a"].make()
    assert isinstance(agent, LocalAgent)
    assert agent.missing is None or "xllamacpp" in agent.missing
    (folder / "mas.toml").write_text("[agents.a]\ntype = 'local'\nmodel_path = 'other.gguf'")
    missing = config.load(folder / "mas.toml")["a"].missing
    assert missing is not None
    assert "xllamacpp" in missing or str(folder / "other.gguf") in missing


@pytest.mark.parametrize("kind", sorted(config.TYPES))
def test_the_usual_variable_of_a_type_is_its_agent_s(kind: str) -> None:
    agent = getattr(agents, config.TYPES[kind].class_name)
    assert config.TYPES[kind].key_variable == getattr(agent, "key_variable", None)


VALUES = ("3", "-1", "0", "1.5", "true", "inf", "nan", "''", "'x'", "['a']", "{a = 1}", "2020-01-01")
KEYWORDS = {
    "claude": "model base_url max_concurrent errors auth headers ca client_cert proxy max_response_bytes defaults",
    "compatible": "preset api_version",
    "gemini": "model",
    "local": "model_path slots context threads max_concurrent errors defaults",
    "openai": "api",
}


@pytest.mark.parametrize("kind, keyword", [(kind, word) for kind, words in KEYWORDS.items() for word in words.split()])  # noqa: PT006
def test_a_value_of_any_kind_is_taken_or_refused_by_name(toml: Path, kind: str, keyword: str) -> None:
    """Nothing but InvalidConfiguration comes out, neither when the agent is made nor when it is given a request."""
    for value in VALUES:
        toml.write_text(f"[agents.a]\ntype = '{kind}'\n{keyword} = {value}\n")
        try:
            agent = config.load(toml)["a"].make()
        except InvalidConfiguration as error:
            assert "[agents.a]: " in str(error)  # noqa: PT017
            continue
        assert agent.request("Hi", model="m").messages
        assert repr(agent)
