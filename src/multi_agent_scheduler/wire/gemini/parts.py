"""The items of ``contents[].parts`` to the parts of a request."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...errors import InvalidRequest
from ...request import ImagePart, Part, ReasoningPart, TextPart, ToolCallPart, ToolResultPart, UnknownPart
from .fields import Fields, camel_keys, listed, mapping
from .finish import PROTOCOL

__all__ = ["PartReader"]

_encode: Final = msgspec.json.Encoder().encode


class PartReader:
    """Reads the parts of one conversation in order, so that calls and results without an id find each other."""

    def __init__(self, contents: list[Any]) -> None:
        self._given = _given_ids(contents)
        self._number = 0
        self._waiting: list[tuple[str, str]] = []  # (name, id) of the calls without a result

    def read(self, part: Any, path: str) -> Part:
        """One part. Raises :class:`~multi_agent_scheduler.errors.InvalidRequest` for a known kind that is malformed."""
        raw = mapping(part, path)
        fields = Fields(camel_keys(raw), path)
        if fields.get("text") is not None:
            return _text(fields)
        if fields.get("functionCall") is not None:
            return self._call(fields, path)
        if fields.get("functionResponse") is not None:
            return self._result(fields, path)
        if fields.get("inlineData") is not None:
            return _inline(raw, fields, path)
        if fields.get("fileData") is not None:
            return _file(raw, fields, path)
        if fields.names() == {"thoughtSignature"}:
            return ReasoningPart(signature=fields.take_str("thoughtSignature"))
        return UnknownPart(raw=dict(raw), protocol=PROTOCOL)

    def _call(self, fields: Fields, path: str) -> Part:
        call = Fields(camel_keys(mapping(fields.take("functionCall"), f"{path}.functionCall")), f"{path}.functionCall")
        name = call.take_str("name")
        if not name:
            raise InvalidRequest(f"{path}.functionCall.name must be a non-empty string")
        arguments = call.take("args")
        text = "{}" if arguments is None else _compact(mapping(arguments, f"{path}.functionCall.args"))
        identity = call.take_str("id") or self._new_id()
        self._waiting.append((name, identity))
        signature = fields.take_str("thoughtSignature")
        extra = _extra(fields, "functionCall", call)
        return ToolCallPart(id=identity, name=name, arguments=text, signature=signature, extra=extra)

    def _result(self, fields: Fields, path: str) -> Part:
        path = f"{path}.functionResponse"
        result = Fields(camel_keys(mapping(fields.take("functionResponse"), path)), path)
        name = result.take_str("name")
        if not name:
            raise InvalidRequest(f"{path}.name must be a non-empty string")
        identity = self._answered(name, result.take_str("id"))
        response = result.take("response")
        text, is_error = _response({} if response is None else mapping(response, f"{path}.response"), response is None)
        content: list[Any] = [TextPart(text=text)] if text else []
        for number, part in enumerate(listed(result.take("parts"), f"{path}.parts")):
            found = self.read(part, f"{path}.parts[{number}]")
            keep = isinstance(found, TextPart | ImagePart | UnknownPart)
            content.append(found if keep else UnknownPart(raw=part, protocol=PROTOCOL))
        extra = _extra(fields, "functionResponse", result)
        return ToolResultPart(id=identity, name=name, content=tuple(content), is_error=is_error, extra=extra)

    def _answered(self, name: str, identity: str | None) -> str:
        for place, (called, call_id) in enumerate(self._waiting):
            if call_id == identity if identity else called == name:
                del self._waiting[place]
                return call_id
        return identity or self._new_id()

    def _new_id(self) -> str:
        while True:
            identity = f"call_{self._number}"
            self._number += 1
            if identity not in self._given:
                return identity


def _text(fields: Fields) -> Part:
    text = fields.take_str("text") or ""
    signature = fields.take_str("thoughtSignature")
    thought = fields.take("thought")
    rest = fields.rest() or None
    if (thought and text) or (signature is not None and not text):
        return ReasoningPart(text=text, signature=signature, extra=rest)
    if signature is not None:
        rest = {"thoughtSignature": signature, **(rest or {})}
    return TextPart(text=text, extra=rest)


def _inline(raw: Mapping[str, Any], fields: Fields, path: str) -> Part:
    """An image; sound, film and documents stay in Gemini's form."""
    path = f"{path}.inlineData"
    blob = Fields(camel_keys(mapping(fields.take("inlineData"), path)), path)
    kind, data = blob.take_str("mimeType"), blob.take_str("data")
    if kind is None or data is None:
        raise InvalidRequest(f"{path} must have a mimeType and data")
    try:
        content = binascii.a2b_base64(
            data.replace("-", "+").replace("_", "/") + "=" * (-len(data) % 4), strict_mode=True
        )
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{path}.data is not base64") from None
    if not kind.startswith("image/"):
        return UnknownPart(raw=dict(raw), protocol=PROTOCOL)
    return ImagePart(data=content, media_type=kind, extra=_extra(fields, "inlineData", blob))


def _file(raw: Mapping[str, Any], fields: Fields, path: str) -> Part:
    path = f"{path}.fileData"
    link = Fields(camel_keys(mapping(fields.take("fileData"), path)), path)
    url, kind = link.take_str("fileUri"), link.take_str("mimeType")
    if not url:
        raise InvalidRequest(f"{path}.fileUri must be a non-empty string")
    if kind is not None and not kind.startswith("image/"):
        return UnknownPart(raw=dict(raw), protocol=PROTOCOL)
    return ImagePart(url=url, media_type=kind, extra=_extra(fields, "fileData", link))


def _extra(outer: Fields, name: str, inner: Fields) -> dict[str, Any] | None:
    """What is left of a part, at its place in the part."""
    rest = outer.rest()
    if inner.rest():
        rest[name] = inner.rest()
    return rest or None


def _response(response: Mapping[str, Any], absent: bool) -> tuple[str, bool]:
    """A function's response as text, and whether it is an error; Google's keys for them are "output" and "error"."""
    if absent:
        return "", False
    if response.keys() == {"output"} and isinstance(response["output"], str):
        return response["output"], False
    if response.keys() == {"error"}:
        error = response["error"]
        return error if isinstance(error, str) else _compact(error), True
    return _compact(response), False


def _compact(value: Any) -> str:
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"a value that cannot be written as JSON: {error}") from None


def _given_ids(contents: list[Any]) -> set[str]:
    """Every id that the conversation has, so that a made-up one is not among them."""
    found: set[str] = set()
    for content in contents:
        parts = content.get("parts") if isinstance(content, Mapping) else None
        for part in parts if isinstance(parts, list) else ():
            for value in part.values() if isinstance(part, Mapping) else ():
                identity = value.get("id") if isinstance(value, Mapping) else None
                if isinstance(identity, str):
                    found.add(identity)
    return found
