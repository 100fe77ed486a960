"""The table of routes: one list, from which requests are dispatched and the OpenAPI document is written."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .face import Answer
from .problem import Problem

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["PLACE", "Field", "ProblemBody", "Route", "Router", "native_problem"]

Handler = Callable[["Exchange"], Awaitable[None]]

PLACE: Final = re.compile(r"\{(\w+)\}")
_json: Final = msgspec.json.Encoder()


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document (RFC 9457); its ``type`` is ``about:blank``. ``code`` is one of this project's error codes.
    ``snapshot`` is the path of a stream's JSON, where its events are gone."""

    title: str
    status: int
    detail: str
    code: str
    snapshot: str | None = None


def native_problem(problem: Problem) -> Answer:
    """A problem document."""
    title = _TITLES.get(problem.status, "Problem")
    body = ProblemBody(title, problem.status, problem.detail, problem.code, problem.snapshot)
    return Answer(problem.status, _json.encode(body), b"application/problem+json")


_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Field(msgspec.Struct, frozen=True):
    """A parameter: what it means, and its JSON Schema."""

    description: str
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path. ``path`` has places as ``{name}``, each one segment.

    What follows ``problem`` is for the OpenAPI document: the type of the body (or its schema, with a title), the types
    of the answers by status (None for one without a body), the parameters of the query and the header fields; a string
    is a field's description.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    problem: Callable[[Problem], Answer] = native_problem
    """How this route tells a problem: its face's way."""
    public: bool = False
    """Whether it is answered without a key."""
    token: bool = False
    """Whether a token for its ``stream_id`` opens it as well as a key."""
    body: Any = None
    answers: Mapping[int, Any] = {}
    query: Mapping[str, str | Field] = {}
    headers: Mapping[str, str | Field] = {}
    optional_body: Any = None
    """The type of a body that may be left out, with its content type."""
    streams: bool = False
    """Whether it can answer with server-sent events."""
    events: Any = None
    """The type of events that are no records."""


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = routes
        self._fixed: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        patterns: dict[str, dict[str, Route]] = {}
        for route in routes:
            table = self._fixed if "{" not in route.path else patterns
            table.setdefault(route.path, {})[route.method] = route
        for path, methods in patterns.items():
            pieces = PLACE.split(path)  # text, name, text, name ... text
            pattern = "".join(
                f"(?P<{piece}>[^/]+)" if number % 2 else re.escape(piece) for number, piece in enumerate(pieces)
            )
            self._patterns.append((re.compile(pattern), methods))

    def find(self, path: str) -> tuple[Mapping[str, Route], dict[str, str]]:
        """The routes of a path by method, and what its places hold. Raises Problem 404."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        for pattern, methods in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return methods, match.groupdict()
        raise Problem(404, "there is nothing at this path; /docs lists what there is")
