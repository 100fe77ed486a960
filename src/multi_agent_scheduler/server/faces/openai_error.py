"""The error object that both of OpenAI's protocols have."""

from __future__ import annotations

from typing import Any, Final

from ...errors import ErrorInfo
from .failure import sentence

__all__ = ["error_object"]

# https://platform.openai.com/docs/guides/error-codes: what is the client's fault is of one type, the code says which.
_TYPES: Final = {"not_found_error": "invalid_request_error", "request_too_large": "invalid_request_error"}
_CODES: Final = {"authentication_error": "invalid_api_key", "rate_limit_error": "rate_limit_exceeded"}


def error_object(error: ErrorInfo, *, missing: str = "not_found") -> dict[str, Any]:
    """``missing`` is the code where something was not found: the model, or what the path names."""
    code = missing if error.code == "not_found_error" else _CODES.get(error.code, error.code)
    if error.code == "invalid_request_error":
        code = error.provider_code or code
    return {
        "error": {
            "message": sentence(error),
            "type": _TYPES.get(error.code, error.code),
            "param": "model" if code == "model_not_found" else None,
            "code": code,
        }
    }
