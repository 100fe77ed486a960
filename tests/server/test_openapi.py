"""The OpenAPI document says what there is, and every route keeps to it, whatever it is sent."""

from __future__ import annotations

import html.parser
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import hypothesis
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from multi_agent_scheduler.server import Settings
from multi_agent_scheduler.server.app import ROUTES
from multi_agent_scheduler.server.openapi import document
from multi_agent_scheduler.testing import ScriptedAgent

from .served import serving
from .threaded import threaded

DOCUMENT: Final = document(ROUTES)


def test_every_route_is_in_the_document() -> None:
    assert {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods} == {
        (route.method, route.path) for route in ROUTES
    }
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith(".")


def test_the_document_is_valid() -> None:
    schema().validate()


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    class Seen(html.parser.HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.links: list[str] = []
            self.ids: set[str] = set()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img", "iframe")
            told = dict(attrs)
            if tag == "a":
                self.links.append(told["href"] or "")
            self.ids.add(told.get("id") or "")

    async with serving({"a": ScriptedAgent("x")}) as served:
        page = await served.http.get("/docs")
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        seen = Seen()
        seen.feed(page.text)
        assert "openapi.json" in seen.links
        assert {link[1:] for link in seen.links if link.startswith("#")} <= seen.ids
        assert (await served.http.get("/openapi.json")).json() == DOCUMENT


# --- whatever it is sent ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with threaded({"a": ScriptedAgent("{}"), "b": ScriptedAgent("{}")}) as url:
        yield url


def can_be_wrong(operation: dict[str, Any]) -> bool:
    """Whether there is something in its requests that does not fit any string."""
    fields = [field["schema"] for field in operation["parameters"]]
    return "requestBody" in operation or any(field != {"type": "string"} for field in fields)


def without_schemas(body: Any) -> Any:
    """A body whose JSON Schemas say nothing: which of them cannot be (a reference that leads nowhere, ``properties``
    that are a number) is their own standard's to say, not the document's; they are made of words of this code."""
    if isinstance(body, list):
        return [without_schemas(inner) for inner in body]
    if not isinstance(body, dict):
        return body
    schemas = {name for name in ("schema", "parameters", "input_schema") if isinstance(body.get(name), dict)}
    return {name: {} if name in schemas else without_schemas(inner) for name, inner in body.items()}


@contextmanager
def quietly() -> Iterator[None]:
    """Its dependencies warn of themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


OPERATIONS: Final = [
    (path, method, mode)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    for mode in ("POSITIVE", "NEGATIVE")
    if path != "/docs" and (mode == "POSITIVE" or can_be_wrong(operation))
]


@cache
def schema() -> Any:
    with quietly():
        import schemathesis

        return schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS, ids=lambda it: it.replace("/", "_"))
def test_each_operation_answers_as_the_document_says(url: str, path: str, method: str, mode: str) -> None:
    with quietly():
        from schemathesis import GenerationMode
        from schemathesis.checks import not_a_server_error
        from schemathesis.specs.openapi import checks

        cases = schema()[path][method.upper()].as_strategy(generation_mode=GenerationMode[mode])
        asked = [
            not_a_server_error,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_headers_conformance,
            checks.response_schema_conformance,
            checks.negative_data_rejection,
            checks.positive_data_acceptance,
            checks.missing_required_header,
            checks.unsupported_method,
            checks.allow_header_conformance,
        ]

        @hypothesis.settings(
            max_examples=10, phases=[Phase.generate], derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=cases)
        def holds(case: Any) -> None:
            if mode == "POSITIVE" and case.headers:
                case.headers.pop("Idempotency-Key", None)  # it would be used twice: 422
            if mode == "POSITIVE" and isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "a"  # which the document cannot know
            if mode == "POSITIVE":
                case.body = without_schemas(case.body)
            case.call_and_validate(base_url=url, checks=asked, timeout=10)

        holds()


@hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=st.sampled_from([route.path for route in ROUTES]) | st.text(max_size=20).map("/v1/{}".format),
    place=st.text(min_size=1, max_size=20),
    query=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    headers=st.dictionaries(
        st.sampled_from(["accept", "last-event-id", "x-request-id", "content-type", "origin", "idempotency-key"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
        max_size=3,
    ),
    body=st.binary(max_size=50),
)
def test_no_request_breaks_the_server(
    url: str, method: str, path: str, place: str, query: dict[str, str], headers: dict[str, str], body: bytes
) -> None:
    filled = quote(re.sub(r"\{\w+\}", lambda _: place, path), safe="/")
    answer = httpx.request(method, url + filled, params=query, headers=headers, content=body, timeout=10)
    assert answer.status_code < 500, answer.text


def test_the_guide_has_every_setting_with_its_default() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "USAGE_GUIDE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*?) \| (.*?) \| .* \|$", guide.partition("## The server")[2].partition("\n## ")[0], re.M)
    told = {
        name: default
        for names, values in rows
        for name, default in zip(re.findall(r"`(.+?)`", names), re.findall(r"`(.+?)`", values), strict=True)
    }
    defaults = msgspec.json.decode(msgspec.json.encode(Settings()))
    assert {name: msgspec.json.decode(default) for name, default in told.items()} == defaults
