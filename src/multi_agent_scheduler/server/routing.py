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

__all__ = ["Route", "Router", "native_problem"]

Handler = Callable[["Exchange"], Awaitable[None]]

_PLACE: Final = re.compile(r"\{(\w+)\}")
_json: Final = msgspec.json.Encoder()


def native_problem(problem: Problem) -> Answer:
    """A problem document (RFC 9457). ``code`` is this project's; ``type`` is left at its default, ``about:blank``."""
    document = {"title": _TITLES.get(problem.status, "Problem"), "status": problem.status}
    document |= {"detail": problem.detail, "code": problem.code}
    if problem.instance is not None:
        document["instance"] = problem.instance
    return Answer(problem.status, _json.encode(document), b"application/problem+json")


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


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path. ``path`` has places as ``{name}``, each one segment.

    What follows ``problem`` is for the OpenAPI document: the type of the body, the types of the answers by status (None
    for one without a body), the parameters of the query and the header fields with what they mean.
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
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    optional_body: Any = None
    """The type of a body that may be left out, with its content type."""
    streams: bool = False
    """Whether it can answer with server-sent events."""


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
            pieces = _PLACE.split(path)  # text, name, text, name ... text
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
