"""The OpenAPI document, made from the table of routes and the types of their bodies; and a page that shows it.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

import msgspec

from ..__about__ import VERSION
from .exchange import Exchange
from .face import Answer
from .problem import Problem
from .routing import PLACE, Field, ProblemBody, Route, native_problem

__all__ = ["ROUTES", "document"]

_COMPONENTS: Final = "#/components/schemas/{name}"
_EVENTS: Final = {"schema": {"description": "server-sent events"}}
_STATUSES: Final = {
    200: "The answer.", 201: "It was made.", 202: "It was accepted.", 204: "There is nothing more.",
    410: "The records that were asked for are gone; the field `Link` says where what they said is still kept, as JSON.",
}  # fmt: skip
_ANY: Final[dict[str, Any]] = {"type": "object"}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """All routes, with everything that they take and answer."""
    types = [kind for route in routes for kind in _types(route) if _is_struct(kind)]
    _, components = msgspec.json.schema_components([*types, ProblemBody], ref_template=_COMPONENTS)
    components |= {route.body["title"]: route.body for route in routes if isinstance(route.body, Mapping)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    key = {"type": "http", "scheme": "bearer", "description": "a key of mas keys create; any, or none, without keys"}
    header = {"type": "apiKey", "in": "header", "name": "x-api-key"}
    token = {"type": "apiKey", "in": "query", "name": "token", "description": "opens one stream for reading"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Multi-Agent Scheduler", "version": VERSION, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": key, "header": header, "token": token},
        },
    }


_ABOUT: Final = (
    "Tasks go in, streams come out. A stream is read as server-sent events, left, and come back to with its cursor. "
    "Without keys every request of this machine is answered."
)


def _types(route: Route) -> Iterator[Any]:
    kinds = (route.body, route.optional_body, route.events, *route.answers.values())
    yield from (kind for kind in kinds if kind is not None)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _schema(kind: Any) -> dict[str, Any]:
    if isinstance(kind, Mapping):
        return {"$ref": _COMPONENTS.format(name=kind["title"])}
    if _is_struct(kind):
        return {"$ref": _COMPONENTS.format(name=kind.__name__)}
    return {"type": "string"} if kind is str else _ANY


def _operation(route: Route) -> dict[str, Any]:
    name = (
        PLACE.sub(lambda place: place[1], route.path.strip("/")).replace("/", "_").replace("-", "_").replace(".", "_")
    )
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{name}",
        "summary": route.summary,
        "parameters": list(_parameters(route)),
        "responses": _responses(route),
        "security": [] if route.public else [{}, {"bearer": []}, {"header": []}],
    }
    if route.token:
        operation["security"].append({"token": []})
    body = route.body or route.optional_body
    if body is not None:
        content = {"application/json": {"schema": _schema(body)}}
        operation["requestBody"] = {"required": route.body is not None, "content": content}
    return operation


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in PLACE.findall(route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    for place, fields in (("query", route.query), ("header", route.headers)):
        for name, field in fields.items():
            said = Field(field) if isinstance(field, str) else field
            yield {
                "name": name,
                "in": place,
                "required": False,
                "description": said.description,
                "schema": dict(said.schema),
            }


def _responses(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {}
    told = route.problem(Problem(400, "")).content_type.decode().partition(";")[0]
    shape = _schema(ProblemBody) if route.problem is native_problem else _schema(str if told == "text/plain" else dict)
    problem = {told: {"schema": shape}}
    for status, kind in (route.answers or {200: None}).items():
        response: dict[str, Any] = {"description": _STATUSES[status]}
        if status >= 400:
            response["content"] = problem
        elif kind is str:
            response["content"] = {"text/plain": {"schema": {"type": "string"}}}
        elif kind is not None:
            response["content"] = {"application/json": {"schema": _schema(kind)}}
        if route.streams and status == 200:
            response.setdefault("content", {})["text/event-stream"] = _EVENTS
        found[str(status)] = response
    found["4XX"] = {"description": "What was wrong with the request.", "content": problem}
    found["5XX"] = {"description": "What this server cannot do now.", "content": problem}
    return found


# --- the routes -------------------------------------------------------------------------------------------------


async def _document(exchange: Exchange) -> None:
    await exchange.json(document(exchange.server.router.routes))


async def _page(exchange: Exchange) -> None:
    headers = ((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),)
    html = _html(document(exchange.server.router.routes))
    await exchange.answer(Answer(200, html.encode(), b"text/html; charset=utf-8", headers))


def _html(described: Mapping[str, Any]) -> str:
    """A page without scripts and without anything from elsewhere."""
    sections = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>{_section(operation)}"
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = "".join(
        f"<h3 id='{escape(name)}'><code>{escape(name)}</code></h3>"
        f"<p>{escape(schema.get('description', ''))}</p>{_code(schema)}"
        for name, schema in described["components"]["schemas"].items()
    )
    title, about = escape(described["info"]["title"]), escape(described["info"]["description"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1><p>{about} The same for programs: <a href=openapi.json>openapi.json</a>.</p>"
        f"{''.join(sections)}<h2>Bodies</h2>{schemas}</html>"
    )


_STYLE: Final = (
    "body{font:16px/1.5 system-ui;max-width:56rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "pre{overflow:auto;padding:.5rem;border:1px solid #8884}h2{margin-top:2.5rem;font-size:1.1rem}"
)


def _section(operation: Mapping[str, Any]) -> str:
    parts = [f"<p>{escape(operation['summary'])}</p>"]
    rows = [
        f"<li><code>{escape(field['name'])}</code> ({field['in']}): {escape(field.get('description', ''))}"
        for field in operation["parameters"]
    ]
    if rows:
        parts.append(f"<ul>{''.join(rows)}</ul>")
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_named(operation['requestBody']['content']['application/json']['schema'])}</p>")
    answers = [
        f"{status} {_named(media['schema'])}"
        for status, response in operation["responses"].items()
        for media in response.get("content", {}).values()
    ]
    parts.append(f"<p>Answers: {', '.join(dict.fromkeys(answers)) or '204'}</p>")
    return "".join(parts)


def _named(schema: Mapping[str, Any]) -> str:
    if "$ref" not in schema:
        return escape(str(schema.get("type", "any")))
    name = escape(schema["$ref"].rpartition("/")[2])
    return f"<a href='#{name}'><code>{name}</code></a>"


def _code(schema: Mapping[str, Any]) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema.get("properties", schema)), indent=2).decode()
    return f"<pre>{escape(text)}</pre>"


ROUTES: Final = (
    Route(
        method="GET", path="/openapi.json", handler=_document, public=True, answers={200: dict},
        summary="This document.",
    ),
    Route(method="GET", path="/docs", handler=_page, public=True, summary="This document as a page."),
)  # fmt: skip
