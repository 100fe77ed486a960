"""The agents that a scheduler has, by name, and which of them gets a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .agents.base import Agent, LeafAgent
from .agents.cached import Cache, Cached
from .agents.composite import Composite
from .agents.function import FunctionAgent
from .agents.structured import Structured
from .errors import InvalidConfiguration, InvalidOption, InvalidRequest, UnknownAgent
from .request import Request
from .task import Task, Template

__all__ = ["Roster"]


class Roster:
    """``agents`` by name (an async generator function is taken as an agent), ``routes`` from task types to names, and
    the ``default`` for what neither a task nor a route names: the first agent unless said otherwise. With a ``cache``
    every agent's answers are kept.

    Raises :class:`~multi_agent_scheduler.errors.CallerError` for what is no agent, and for names that no agent has.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent | Callable[..., Any]],
        *,
        routes: Mapping[str, str] | None = None,
        default: str | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.agents = _named(agents)
        if cache is not None and not isinstance(cache, Cache):
            raise InvalidOption(f"cache must be a Cache, not {cache!r}")
        self._running = {
            name: agent if cache is None or isinstance(agent, Cached) else Cached(agent, cache, name=name)
            for name, agent in self.agents.items()
        }
        if routes is not None and not isinstance(routes, Mapping):
            raise InvalidConfiguration(f"routes must map task types to names of agents, not {routes!r}")
        self._routes = dict(routes or {})
        for task_type, name in self._routes.items():
            self.check(name, f"routes[{task_type!r}]")
        if default is not None:
            self.check(default, "default_agent")
        self.default = default or next(iter(self.agents))
        self.names = {id(agent): name for name, agent in reversed(self.agents.items())}
        """By identity: the first name that an agent has."""

    def check(self, name: str, where: str) -> None:
        """Raise UnknownAgent, saying ``where`` it was named, unless there is such an agent."""
        if not isinstance(name, str) or name not in self.agents:
            raise UnknownAgent(f"{where}: unknown agent {name!r}; the agents are {', '.join(sorted(self.agents))}")

    def select(self, task: Task) -> str:
        """The name of the agent for a task: its own ``agent``, its type's route, or the default agent."""
        if task.agent is not None:
            self.check(task.agent, f"task {task.id!r}: agent")
            return task.agent
        return self._routes.get(task.task_type, self.default)

    def chosen(self, task: Task, agent_name: str | None = None) -> str:
        """The name of the agent, for a task that this agent can run. Raises CallerError for a task that it cannot."""
        if not isinstance(task, Task):
            raise InvalidRequest(f"a task must be a Task, not {type(task).__name__}")
        task.check()
        if agent_name is None:
            agent_name = self.select(task)
        else:
            self.check(agent_name, f"task {task.id!r}")
        agent = self.running(agent_name, task)
        if isinstance(task.prompt, Template):  # its text is not known yet
            agent.request("a prompt", **task.keywords)
        else:
            agent.check(agent.request(task.prompt, **task.keywords))
        return agent_name

    def chosen_of_many(self, task: Task) -> str:
        """The same for one task of a plan: whatever is wrong with it is told with its name."""
        try:
            return self.chosen(task)
        except (InvalidRequest, InvalidOption) as error:
            problem = str(error)
            if not isinstance(task, Task) or problem.startswith(("task ", "a task's id ")):
                raise
            raise type(error)(f"task {task.id!r}: {problem}") from None

    def running(self, agent_name: str, task: Task) -> Agent:
        """The agent that runs a task of this one's: itself, with a cache before it, and a check of its answer."""
        agent = self._running[agent_name]
        if task.ask_again is None:
            return agent
        return Structured(agent, task.schema, ask_again=task.ask_again)

    def models(self, task: Task, agent_name: str) -> Sequence[str | None]:
        """The models that a task may reach."""
        agent = self.running(agent_name, task)
        prompt = "a prompt" if isinstance(task.prompt, Template) else task.prompt
        return list(_models(agent, agent.request(prompt, **task.keywords)))

    async def aclose(self) -> None:
        """Close the agents."""
        for agent in self.agents.values():
            await agent.aclose()


def _models(agent: Agent, request: Request) -> Iterator[str | None]:
    if isinstance(agent, Composite):
        for member in agent.members:
            yield from _models(member, member.adopt(request))
    else:
        yield agent._model(request) if isinstance(agent, LeafAgent) else None


def _named(agents: Mapping[str, Agent | Callable[..., Any]]) -> dict[str, Agent]:
    if not isinstance(agents, Mapping) or not agents:
        raise InvalidConfiguration("agents must be a mapping of names to agents, with at least one")
    named: dict[str, Agent] = {}
    for name, agent in agents.items():
        if not isinstance(name, str) or not name:
            raise InvalidConfiguration(f"agents: a name must be a non-empty string, not {name!r}")
        if not isinstance(agent, Agent):
            if isinstance(agent, type) and issubclass(agent, Agent):
                raise InvalidConfiguration(f"agents[{name!r}] must be an agent, not its class: {agent.__name__}(...)")
            if not callable(agent) or isinstance(agent, type):
                raise InvalidConfiguration(f"agents[{name!r}] must be an agent, not {agent!r}")
            agent = FunctionAgent(agent, name=name)
        named[name] = agent
    return named
