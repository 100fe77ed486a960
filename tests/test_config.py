"""Agents from mas.toml and from the environment."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler import agents, config
from multi_agent_scheduler.agents import ClaudeAgent, CompatibleAgent, LocalAgent, OpenAIAgent
from multi_agent_scheduler.errors import InvalidConfiguration, InvalidOption
from multi_agent_scheduler.scheduling.budget import Budget, LongPrice
from multi_agent_scheduler.scheduling.limits import Limits


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
        ("[agents]\na = 3", r"\[agents.a\]: must be a table"),
        ("[agents.a]\ntype = 3", r"\[agents.a\]: type 3 is unknown"),
        ("[agents.a]\ntype = 'claude'\napi_key_env = 3", r"\[agents.a\]: api_key_env must be the name of a variable"),
        ("[agent.a]\ntype = 'claude'", "unknown setting 'agent'; the settings are agents, budgets, cache, .*line 1"),
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
    with pytest.raises(InvalidOption, match=r"nowhere\.toml cannot be read: No such file"):
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
    with pytest.raises(InvalidOption, match=r"mas\.toml is not UTF-8 text \(byte 9\)"):
        config.load(toml)


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


# --- agents of agents ---


def test_agents_of_agents_name_their_members(toml: Path) -> None:
    toml.write_text(
        """
        [agents.council]
        type = "judge"
        agents = ["steady", "b"]
        judge = "a"
        quorum = 2

        [agents.steady]
        type = "retry"
        agent = "first"
        attempts = 5
        policy = "reset"

        [agents.first]
        type = "hedge"
        agents = ["a", "b"]
        after = "p95"

        [agents.kept]
        type = "cached"
        agent = "council"
        ttl = 60
        max_bytes = 1000

        [agents.rest]
        type = "failover"
        agents = ["race", "vote", "fuse"]
        refusals = true

        [agents.race]
        type = "race"
        agents = ["a", "b"]

        [agents.vote]
        type = "vote"
        agents = ["a", "b", "a"]

        [agents.fuse]
        type = "fuse"
        agents = ["a", "b"]
        synthesiser = "steady"

        [agents.a]
        type = "compatible"
        base_url = "http://127.0.0.1:1"

        [agents.b]
        type = "compatible"
        base_url = "http://127.0.0.1:2"
        """
    )
    offers = config.load(toml)
    assert list(offers) == ["council", "steady", "first", "kept", "rest", "race", "vote", "fuse", "a", "b"]
    made = {name: offer.make() for name, offer in offers.items()}
    assert {name: agent.name for name, agent in made.items()} == {name: name for name in offers}
    council, steady, first, kept, rest, _, _, fuse, *_ = made.values()
    assert isinstance(council, agents.Judge) and isinstance(steady, agents.Retry) and isinstance(first, agents.Hedge)
    assert isinstance(kept, agents.Cached) and isinstance(rest, agents.Failover) and isinstance(fuse, agents.Fuse)
    assert (council.agents, council.judge, council.quorum) == ((steady, made["b"]), made["a"], 2)
    assert (steady.agents, steady.rules.attempts, steady.rules.policy) == ((first,), 5, "reset")
    assert first.agents == (made["a"], made["b"])  # each agent is made once, whoever names it
    assert (kept.agents, kept.cache.ttl, kept.cache.max_bytes) == ((council,), 60, 1000)
    assert rest.agents == (made["race"], made["vote"], fuse)
    assert fuse.synthesiser is steady
    assert all(offer.missing is None for offer in offers.values())


def test_what_a_member_lacks_its_ensemble_lacks(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text(
        "[agents.f]\ntype = 'failover'\nagents = ['c', 'o']\n[agents.c]\ntype = 'claude'\n[agents.o]\ntype = 'openai'"
    )
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-x")
    offer = config.load(toml)["f"]
    assert not offer.key_set
    assert offer.missing == "o: set OPENAI_API_KEY"


A = "[agents.a]\ntype = 'compatible'\nbase_url = 'http://127.0.0.1:1'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type = 'failover'", r"\[agents.x\]: failover needs agents = \[\"NAME\", ...\], the agents .* \(line 4\)"),
        ("type = 'failover'\nagents = []", r"failover needs agents = .* \(line 6\)"),
        ("type = 'failover'\nagents = 'a'", "failover needs agents = "),
        ("type = 'failover'\nagents = [3]", "failover needs agents = "),
        (
            "type = 'retry'\nagents = ['a']",
            "retry: unknown keyword 'agents'; the keywords are agent, attempts, policy, ",
        ),
        ("type = 'retry'", 'retry needs agent = "NAME"'),
        ("type = 'judge'\nagents = ['a']", 'judge needs judge = "NAME", an agent'),
        (
            "type = 'judge'\nagents = ['a']\njudge = 'y'",
            r"judge: there is no agent 'y'; the agents are a, x \(line 7\)",
        ),
        ("type = 'race'\nagents = ['a', 'z']", r"agents: there is no agent 'z'; the agents are a, x \(line 6\)"),
        ("type = 'race'\nagents = ['a', 'x']", r"an agent cannot be a member of itself: x -> x"),
        ("type = 'race'\nagents = ['a']\nafter = 3", "race: unknown keyword 'after'; the keywords are agents"),
        ("type = 'vote'\nagents = ['a']\nquorum = '2'", r"quorum must be a whole number, not '2' \(line 7\)"),
        ("type = 'vote'\nagents = ['a']\nquorum = true", "quorum must be a whole number, not True"),
        ("type = 'failover'\nagents = ['a']\nrefusals = 1", "refusals must be true or false, not 1"),
        ("type = 'hedge'\nagents = ['a']\nafter = []", r"after must be a number or a string, not \[\]"),
        ("type = 'vote'\nagents = ['a']\napi_key_env = 'K'", "vote: unknown keyword 'api_key_env'"),
    ],
)
def test_a_mistake_in_an_agent_of_agents_is_named(toml: Path, text: str, message: str) -> None:
    toml.write_text(f"{A}[agents.x]\n{text}")
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        config.load(toml)
    assert str(caught.value).startswith(f"{toml}: [agents.x]: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type = 'vote'\nagents = ['a']\nquorum = 3", r"quorum must be a whole number from 1 to 1, not 3 \(line 7\)"),
        ("type = 'hedge'\nagents = ['a']", r"hedge needs after: seconds, or a percentile such as \"p95\""),
        ("type = 'retry'\nagent = 'a'\npolicy = 'maybe'", "policy must be 'off', 'continue' or 'reset', not 'maybe'"),
        ("type = 'retry'\nagent = 'a'\nattempts = 0", "attempts must be a whole number above 0, not 0"),
        ("type = 'cached'\nagent = 'a'\nttl = 0", r"ttl must be a number of seconds above 0, not 0 \(line 7\)"),
        ("type = 'judge'\nagents = ['a']\njudge = 'a'\nmode = 'x'", "mode must be 'choice' or 'text', not 'x'"),
    ],
)
def test_a_value_that_an_agent_of_agents_cannot_have_is_named_when_it_is_made(
    toml: Path, text: str, message: str
) -> None:
    toml.write_text(f"{A}[agents.x]\n{text}")
    offer = config.load(toml)["x"]
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        offer.make()
    assert str(caught.value).startswith(f"{toml}: [agents.x]: ")


def test_a_cycle_is_named_in_order(toml: Path) -> None:
    toml.write_text(
        A + "[agents.x]\ntype = 'race'\nagents = ['a', 'y']\n[agents.y]\ntype = 'retry'\nagent = 'z'\n"
        "[agents.z]\ntype = 'fuse'\nagents = ['a']\nsynthesiser = 'x'\n"
    )
    with pytest.raises(InvalidConfiguration, match=r"\[agents.z\]: an agent cannot .*: x -> y -> z -> x \(line 10\)"):
        config.load(toml)


# --- the other tables ---


def test_the_other_settings(toml: Path) -> None:
    toml.write_text(
        f"""
        store = "sqlite:///streams.db"
        default_agent = "a"
        {A}
        [limits.a]
        concurrency = 3
        tokens_per_minute = 90_000

        [task_types.video]
        agent = "a"
        concurrency = 2

        [task_types.text]
        agent = "a"

        [cache]
        ttl = 60

        [budgets.alice]
        cost = 2.5

        [prices."our-model-2.1"]
        input = 1
        output = 3.5
        long = {{over = 200000, input = 2, output = 7}}

        [server]
        port = 9000
        whatever = "it says"
        """
    )
    said = config.read(toml, {})
    assert list(said.agents) == ["a"]
    assert said.store == f"sqlite:///{toml.parent / 'streams.db'}"
    assert said.default_agent == "a"
    assert said.limits == {"a": Limits(concurrency=3, tokens_per_minute=90_000)}
    assert said.routes == {"video": "a", "text": "a"}
    assert said.task_type_limits == {"video": 2}
    assert said.cache is not None and said.cache.ttl == 60
    assert said.budgets == {"alice": Budget(cost=2.5)}
    price = said.prices["our-model-2.1"]
    assert (price.input, price.output) == (1, 3.5)
    assert price.long == LongPrice(over=200000, input=2, output=7)
    assert said.server == {"port": 9000, "whatever": "it says"}


def test_without_tables_of_agents_they_are_what_the_environment_offers(toml: Path) -> None:
    toml.write_text("[limits.claude]\nconcurrency = 2")
    said = config.read(toml, {})
    assert "local" in said.agents
    assert said.limits["claude"].concurrency == 2
    assert config.read(None, {}).agents.keys() == said.agents.keys()
    assert said.store is said.cache is said.default_agent is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits.b]\nconcurrency = 1", r"\[limits.b\]: there is no agent 'b'; the agents are a \(line 4\)"),
        ("[limits.a]\nconcurency = 1", r"\[limits.a\]: unknown key 'concurency'; the keys are concurrency, .*line 5"),
        ("[limits.a]\nconcurrency = 0", r"\[limits.a\]: limits: concurrency must be a whole number .*line 5"),
        ("[limits.a]\nrequests_per_minute = 'x'", r"\[limits.a\]: Expected `int \| null`, got `str` .*line 5"),
        ("[limits]\na = 3", r"\[limits.a\]: must be a table \(line 5\)"),
        ("[task_types.v]\nagent = 'b'", r"\[task_types.v\]: agent: there is no agent 'b'; the agents are a \(line 5\)"),
        ("[task_types.v]\nlimit = 4", r"\[task_types.v\]: unknown key 'limit'; the keys are agent, concurrency"),
        ("[task_types.v]\nconcurrency = 0", r"\[task_types.v\]: concurrency must be a whole number above 0, not 0"),
        ("[cache]\nttl = -1", r"\[cache\]: ttl must be a number of seconds above 0, not -1.* \(line 5\)"),
        (
            "[budgets.x]\ntokens = -1",
            r"\[budgets.x\]: budget: tokens must be a whole number above 0, not -1 \(line 5\)",
        ),
        ('[prices."m-1.5"]\ninput = 1', r'\[prices."m-1.5"\]: .*missing required field `output` \(line 4\)'),
        ("[prices.m]\ninput = -1\noutput = 1", r"\[prices.m\]: price: input must be dollars .*, not -1.* \(line 5\)"),
        ("[agents.x]\ntype = 'claude'\nmodle = 3", None),
        (
            "[agents.x]\ntype = 'race'\nagents = ['a']\n[limits.x]\nconcurrency = 1",
            r"\[limits.x\]: x is an agent of agents: limit those that it asks \(a\) \(line 7\)",
        ),
    ],
)
def test_a_mistake_in_another_table_is_named(toml: Path, text: str, message: str | None) -> None:
    toml.write_text(A + text)
    if message is None:
        with pytest.raises(InvalidConfiguration, match=r"\[agents.x\]: .*'modle'.* \(line 6\)"):
            config.read(toml, {}).agents["x"].make()
        return
    with pytest.raises(InvalidConfiguration, match=message):
        config.read(toml, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("store = 3", r"store must be a URL, .*, not 3 \(line 1\)"),
        ("default_agent = ['a']", r"default_agent must be an agent's name, not \['a'\] \(line 1\)"),
        ("default_agent = 'b'", r"default_agent: there is no agent 'b'; the agents are a \(line 1\)"),
        ("cache = true", r"cache must be a table, \[cache\] \(line 1\)"),
        ("server = 3", r"server must be a table, \[server\] \(line 1\)"),
    ],
)
def test_a_mistake_before_all_tables_is_named(toml: Path, text: str, message: str) -> None:
    toml.write_text(f"{text}\n{A}")
    with pytest.raises(InvalidConfiguration, match=message):
        config.read(toml, {})


# --- the environment ---


def test_variables_stand_over_the_file(toml: Path) -> None:
    toml.write_text(A + "model = 'one'\n[server]\nport = 1\n")
    said = config.read(
        toml,
        {
            "MAS_CONFIG": "elsewhere.toml",
            "MAS_DEBUG": "1",
            "MAS_STORE": "sqlite:///here.db",
            "MAS_DEFAULT_AGENT": "b",
            "MAS_AGENTS__A__MODEL": "two",
            "MAS_AGENTS__A__TIMEOUTS": "{total = 5}",
            "MAS_AGENTS__B__TYPE": "failover",
            "MAS_AGENTS__B__AGENTS": '["a"]',
            "MAS_LIMITS__A__CONCURRENCY": "7",
            "MAS_SERVER_PORT": "3",
        },
    )
    agent = said.agents["a"].make()
    assert isinstance(agent, CompatibleAgent)
    assert (agent.model, agent.base_url) == ("two", "http://127.0.0.1:1")
    assert agent.timeouts is not None and agent.timeouts.total == 5
    assert said.agents["b"].make().name == said.default_agent == "b"
    assert said.limits["a"].concurrency == 7
    assert said.store == "sqlite:///here.db"
    assert said.server == {"port": 1}  # the server's own variables are its own to read


def test_agents_can_come_from_variables_alone() -> None:
    said = config.read(None, {"MAS_AGENTS__A__TYPE": "local", "MAS_AGENTS__A__SLOTS": "2"})
    assert list(said.agents) == ["a"]
    assert said.agents["a"].make().max_concurrent == 2


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "MAS_AGENT__A__TYPE",
            "local",
            "MAS_AGENT__A__TYPE names no setting: it is MAS_TABLE__KEY or .*the tables are agents",
        ),
        ("MAS_AGENTS__A__", "local", "MAS_AGENTS__A__ names no setting"),
        ("MAS_AGENTS__A__TYPE", "5", r"MAS_ variables: \[agents.a\]: type 5 is unknown"),
        ("MAS_AGENTS__A__TYPE__X", "5", r"MAS_ variables: \[agents.a\]: type {'x': 5} is unknown"),
        ("MAS_STORE__X", "5", "store must be a URL"),
        ("MAS_CACHE__TTL", "soon", r"MAS_ variables: \[cache\]: Expected `float`, got `str`"),
    ],
)
def test_a_variable_that_cannot_be_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        config.read(None, {variable: value})


def test_a_variable_for_what_is_no_table(toml: Path) -> None:
    toml.write_text("store = 'memory://'")
    with pytest.raises(InvalidConfiguration, match=r"MAS_STORE__X: 'store' is no table in .*mas\.toml"):
        config.read(toml, {"MAS_STORE__X": "1"})


def test_which_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.find(None, {}) is None
    Path("mas.toml").write_text("")
    assert config.find(None, {}) == Path("mas.toml")
    assert config.find(None, {"MAS_CONFIG": "b.toml"}) == Path("b.toml")
    assert config.find("c.toml", {"MAS_CONFIG": "b.toml"}) == Path("c.toml")


TOML = st.text(st.sampled_from("abm[]{}.=\"'#\n 1,_-"), max_size=40) | st.sampled_from(["[agents.a]", "[limits.a]\n"])


@given(st.lists(TOML, max_size=5).map("\n".join))
def test_whatever_stands_in_a_file_nothing_but_its_mistake_is_raised(text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "mas.toml"
        file.write_text(text, encoding="utf-8")
        with contextlib.suppress(InvalidConfiguration):
            config.read(file, {})
