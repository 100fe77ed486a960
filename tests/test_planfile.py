"""Plan files: the same plan in three notations, and complaints that name the line and the field."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multi_agent_scheduler.errors import DependencyCycle, DuplicateTask, InvalidOption, PlanError, UnknownDependency
from multi_agent_scheduler.planfile import read_plan
from multi_agent_scheduler.task import Budget, Task, Template, Timeouts

YAML = """\
tasks:
  - id: research
    prompt: List facts about ${bees}
  - id: draft
    template: "Write from: ${research}"
    depends_on: [research]
    agent: claude
    priority: 5
    on_failure: run
    timeouts: {total: 30}
    options: {max_tokens: 400}
"""
TOML = """\
[[tasks]]
id = "research"
prompt = "List facts about ${bees}"

[[tasks]]
id = "draft"
template = "Write from: ${research}"
depends_on = ["research"]
agent = "claude"
priority = 5
on_failure = "run"
timeouts = {total = 30}
options = {max_tokens = 400}
"""
JSON = """{"tasks": [
  {"id": "research", "prompt": "List facts about ${bees}"},
  {"id": "draft", "template": "Write from: ${research}", "depends_on": ["research"], "agent": "claude", "priority": 5,
   "on_failure": "run", "timeouts": {"total": 30}, "options": {"max_tokens": 400}}
]}"""


def plan(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text"), [("p.yaml", YAML), ("p.yml", YAML), ("p.toml", TOML), ("p.json", JSON)])
def test_the_notations_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    assert read_plan(plan(tmp_path, name, text)) == [
        Task("research", "List facts about ${bees}"),
        Task(
            "draft",
            Template("Write from: ${research}"),
            agent="claude",
            depends_on=["research"],
            priority=5,
            on_failure="run",
            timeouts=Timeouts(total=30),
            options={"max_tokens": 400},
        ),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (YAML.replace("priority: 5", "priority: high"), 8, "task 'draft': priority must be a whole number, not 'high'"),
        (YAML.replace("priority: 5", "priority: -1"), 8, "priority must be a whole number from 0 up"),
        (YAML.replace("priority: 5", "priorty: 5"), 8, "unknown field 'priorty'; the fields are id, prompt"),
        (YAML.replace("on_failure: run", "on_failure: explode"), 9, "on_failure must be 'skip' or 'run'"),
        (YAML.replace("depends_on: [research]", "depends_on: research"), 6, "depends_on must be a list"),
        (YAML.replace("depends_on: [research]", "depends_on: []"), 5, "'research' is not among its dependencies"),
        (YAML.replace("${research}", "$oops"), 5, "template: the '$' at position 12"),
        (YAML.replace("  - id: draft\n    template", "  - template"), 4, "task 2: id is missing"),
        (YAML.replace("    prompt: List", "    prompts: List"), 3, "unknown field 'prompts'"),
        (YAML.replace("timeouts: {total: 30}", "timeouts: {total: -3}"), 10, "timeouts: total must be a number"),
        (YAML.replace("timeouts: {total: 30}", "timeouts: {totl: 3}"), 10, "timeouts: unknown field 'totl'"),
        (YAML.replace("timeouts: {total: 30}", "timeouts: {total: soon}"), 10, "timeouts: total must be a number, not"),
        (YAML.replace("timeouts: {total: 30}", "budget: {tokens: 0}"), 10, "budget: tokens must be a whole number"),
        (YAML.replace("priority: 5", "agent: gpt"), 8, "'agent' is there twice in one table"),
        (YAML.replace("depends_on: [research]", "depends_on: [1]"), 6, "depends_on must be a list of task ids"),
        (YAML.replace('template: "Write', 'prompt: x\n    template: "Write'), 6, "one of prompt"),
        (YAML + "  - just text\n", 12, "task 3 must be a table, not 'just text'"),
        (YAML + "name: bees\n", 12, "unknown field 'name'; a plan has tasks"),
        (YAML.replace("- id: draft", "- id: research"), 4, "two tasks have the id 'research'"),
        (
            YAML.replace("on: [research]", "on:\n      - research\n      - reserch"),
            8,
            "depends on 'reserch', which the plan does",
        ),
        (YAML.replace("on: [research]", "on: [draft, research]"), 6, "draft -> draft"),
        (YAML.replace("List facts about ${bees}", "x\n    depends_on: [draft]"), 4, "research -> draft -> research"),
        (
            YAML.replace("timeouts: {total: 30}", "timeouts:\n      connect: 1\n      total: 0"),
            12,
            "timeouts: total must",
        ),
        (YAML.replace("priority: 5", "metadata: {id: 1}\n    agnet: {fields: x}"), 9, "unknown field 'agnet'"),
        (YAML.replace("[research]", "[research"), 7, "no valid YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = plan(tmp_path, "p.yaml", text)
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}, line {line}: "), caught.value
    assert message in str(caught.value)


TOML_MISTAKES = {
    "a field": ("[[tasks]]\nid = 'a'\nprompt = 'x'\n\n[[tasks]] # two\nid = 'b'\nprompt = 'x'\npriority = 'x'\n", 8),
    "an unknown field": ("[[tasks]]\nid = 'a'\n'promt' = 'x'\n", 3),
    "a field in a table of its own": ("[[tasks]]\nid = 'a'\nprompt = 'x'\n[tasks.timeouts]\n# s\ntotal = -1\n", 6),
    "behind a text of several lines": ("[[tasks]]\nid = 'a'\nprompt = '''\nagent = 1\n'''\nagent = 7\n", 6),
    "a field that is missing": ("[[tasks]]\nid = 'a'\nprompt = 'x'\n[[tasks]]\nprompt = 'x'\n", 4),
    "behind a list of several lines": ("[[tasks]]\nid = 'a'\nprompt = [\n 'agent.x',\n'[[tasks]]',\n]\nagent = 7\n", 7),
    "behind a comment with quotes": (
        '[[tasks]] # \'\'\'\nid = \'a\'\nprompt = """\\"""\nagent = 1""""\nagent = 7\n',
        5,
    ),
    "a dependency": ("[[tasks]]\nid = 'a'\nprompt = 'x'\ndepends_on = [\n'b']\n", 4),
    "in quotes": ('[["tasks"]]\nid = "a"\nprompt = 7\n', None),
    "inline": ("tasks = [\n{id = 'a', prompt = 7},\n]\n", None),
    "beside the tasks": ("name = 'x'\n[[tasks]]\nid = 'a'\nprompt = 'x'\n", 1),
    "no TOML": ("tasks = = 1", None),
}
JSON_MISTAKES = {
    "a field": ('{"tasks": [\n{"id": "a", "prompt": "x"},\n {"id": "b",\n "prompt": "{[\\n",\n"priority" : "x"}]}', 5),
    "an unknown field": ('{\n"tasks": [{"id": "a",\n\n "promt": []}]}', 4),
    "no task": ('{"tasks": [{"id": "a", "prompt": "x", "metadata": {"k": [1, {}]}},\n 7]}', 2),
    "beside the tasks": ('{"tasks": [{"id": "a", "prompt": "x"}],\n"name": 1}', 2),
    "a dependency": (
        '{"tasks": [{"id": "a", "prompt": "x"},\n{"id": "b", "prompt": "x", "depends_on": ["a",\n"c"]}]}',
        3,
    ),
    "a cycle": ('{"tasks": [{"id": "a", "prompt": "x", "depends_on":\n ["a"]}]}', 2),
    "an id": ('{"tasks": [{"id": "a", "prompt": "x"},\n {"prompt": "x",\n "id": "a"}]}', 3),
    "in a table": ('{"tasks": [{"id": "a", "prompt": "x", "timeouts": {\n "connect": 1,\n "total": -1}}]}', 3),
    "a name twice": (
        '{"tasks": [{"id": "a", "prompt": "\\"prompt\\": {",\n "metadata": {"prompt": [1, {}]},\n "prompt" : "y"}]}',
        3,
    ),
    "a name twice, inside": (
        '{"tasks": [{"id": "a", "prompt": "x", "metadata":\n {"k": {"\\u0061": 1,\n "a": 2}}}]}',
        3,
    ),
    "no JSON": ('{"tasks": [\n}', 2),
}


@pytest.mark.parametrize(("text", "line"), TOML_MISTAKES.values(), ids=TOML_MISTAKES)
def test_a_mistake_in_toml_is_told_with_its_line(tmp_path: Path, text: str, line: int | None) -> None:
    path = plan(tmp_path, "p.toml", text)
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ") if line else f"{path}, line" not in str(caught.value)


@pytest.mark.parametrize(("text", "line"), JSON_MISTAKES.values(), ids=JSON_MISTAKES)
def test_a_mistake_in_json_is_told_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = plan(tmp_path, "p.json", text)
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")


def test_a_plan_that_is_wrong_as_a_whole_is_told_by_its_kind(tmp_path: Path) -> None:
    cycle = "tasks:\n- {id: a, prompt: x, depends_on: [b]}\n- {id: b, prompt: x, depends_on: [a]}\n"
    with pytest.raises(DependencyCycle) as caught:
        read_plan(plan(tmp_path, "p.yaml", cycle))
    assert caught.value.cycle == ("a", "b")
    with pytest.raises(UnknownDependency, match="line 3"):
        read_plan(plan(tmp_path, "p.yaml", cycle.replace("[a]", "[c]").replace("[b]", "[]")))
    with pytest.raises(DuplicateTask, match="line 3"):
        read_plan(plan(tmp_path, "p.yaml", cycle.replace("id: b", "id: a")))


def test_a_name_that_json_has_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="line 1: 'prompt' is there twice"):
        read_plan(plan(tmp_path, "p.json", '{"tasks": [{"id": "a", "prompt": "x", "prompt": "y"}]}'))


def test_a_task_may_have_a_budget(tmp_path: Path) -> None:
    [task] = read_plan(plan(tmp_path, "p.yaml", "tasks: [{id: a, prompt: x, budget: {tokens: 500, cost: 0.5}}]"))
    assert task.budget == Budget(tokens=500, cost=0.5)


@pytest.mark.parametrize("name", ["p.json", "p.toml", "p.yaml"])
def test_a_plan_that_is_nested_too_deeply_is_refused(tmp_path: Path, name: str) -> None:
    opened = "tasks = " if name == "p.toml" else '{"tasks": '
    with pytest.raises(PlanError):
        read_plan(plan(tmp_path, name, opened + "[" * 100_000))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=15,
)


@given(JSON, st.sampled_from([None, 0, 1]))
def test_a_json_file_is_a_plan_or_a_complaint(tmp_path_factory: Any, data: Any, indent: int | None) -> None:
    path = plan(tmp_path_factory.getbasetemp(), "p.json", json.dumps({"tasks": data}, indent=indent))
    with contextlib.suppress(PlanError):
        assert read_plan(path)


def test_a_mistake_in_notation_is_told(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"p\.toml is no valid TOML: .*line 1"):
        read_plan(plan(tmp_path, "p.toml", "tasks = = 1"))
    with pytest.raises(PlanError, match=r"p\.json, line 2: no valid JSON"):
        read_plan(plan(tmp_path, "p.json", '{"tasks": [\n}'))


@pytest.mark.parametrize("text", ["", "tasks: []", "tasks: 3", "- a", "just text"])
def test_a_plan_without_tasks(tmp_path: Path, text: str) -> None:
    with pytest.raises(PlanError, match="a plan needs tasks"):
        read_plan(plan(tmp_path, "p.yaml", text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"nowhere\.yaml cannot be read: No such file"):
        read_plan(tmp_path / "nowhere.yaml")
    with pytest.raises(InvalidOption, match=r"ends in \.yaml, \.yml, \.toml or \.json"):
        read_plan(tmp_path / "plan.txt")
    path = tmp_path / "p.yaml"
    path.write_bytes(b"tasks:\n  - \xff")
    with pytest.raises(InvalidOption, match=r"is not UTF-8 text \(byte 11\)"):
        read_plan(path)
