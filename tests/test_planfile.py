"""Plan files: the same plan in three notations, and complaints that name the line and the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from multi_agent_scheduler.errors import InvalidConfiguration, PlanError
from multi_agent_scheduler.planfile import read_plan
from multi_agent_scheduler.task import Task, Template, Timeouts

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
        (YAML.replace('template: "Write', 'prompt: x\n    template: "Write'), 6, "one of prompt"),
        (YAML + "  - just text\n", 12, "task 3 must be a table, not 'just text'"),
        (YAML + "name: bees\n", 12, "unknown field 'name'; a plan has tasks"),
        (YAML.replace("[research]", "[research"), 7, "no valid YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = plan(tmp_path, "p.yaml", text)
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}, line {line}: "), caught.value
    assert message in str(caught.value)


def test_a_mistake_in_toml_and_json_is_told_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"p\.toml, line 5: task 'draft': priority must be"):
        read_plan(plan(tmp_path, "p.toml", TOML.replace("priority = 5", "priority = 'x'")))
    with pytest.raises(PlanError, match=r"p\.toml is no valid TOML: .*line 1"):
        read_plan(plan(tmp_path, "p.toml", "tasks = = 1"))
    with pytest.raises(PlanError, match=r"p\.json, line 2: no valid JSON"):
        read_plan(plan(tmp_path, "p.json", '{"tasks": [\n}'))


@pytest.mark.parametrize("text", ["", "tasks: []", "tasks: 3", "- a", "just text"])
def test_a_plan_without_tasks(tmp_path: Path, text: str) -> None:
    with pytest.raises(PlanError, match="a plan needs tasks"):
        read_plan(plan(tmp_path, "p.yaml", text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nowhere\.yaml cannot be read: No such file"):
        read_plan(tmp_path / "nowhere.yaml")
    with pytest.raises(InvalidConfiguration, match=r"ends in \.yaml, \.yml, \.toml or \.json"):
        read_plan(tmp_path / "plan.txt")
    path = tmp_path / "p.yaml"
    path.write_bytes(b"tasks:\n  - \xff")
    with pytest.raises(InvalidConfiguration, match=r"is not UTF-8 text \(byte 11\)"):
        read_plan(path)
