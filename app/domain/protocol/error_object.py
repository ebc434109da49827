"""Errors as data: the JSON objects that runs and steps keep, SDKs replay and failure handlers read (protocol 11).

An app's error is kept as it sent it, nulls included. What the server makes up carries `"data":null` besides, because
the Go SDK cannot replay a failed step without that key (protocol 10.3).
"""

from collections.abc import Mapping
from typing import Any, Final

from app.domain import canonical
from app.domain.limits import MAX_ERROR_BYTES

_CUT = " … (cut)"
_ERROR: Final = b'{"error":'


def made_error(name: str, message: str, **more: str) -> bytes:
    """An error object of the server's own, with whatever texts else (`stack`, …)."""
    return _bounded({"data": None, "message": message, "name": name, **more})


def as_memo(error: bytes) -> bytes:
    """The memo of a step that failed with this error object (protocol 10.3)."""
    return _ERROR + error + b"}"


def error_in(memo: bytes) -> bytes:
    """The error object inside a memo `{"error":…}`. Canonical text with one key can be cut without being read."""
    return memo[len(_ERROR) : -1] if memo.startswith(_ERROR) else memo


def app_error(value: object, *, fallback: str) -> bytes:
    """The error object an app sent, canonical, with `name` and `message` filled in where they are missing.

    What is no object becomes the message of one (go streams plain text). `fallback` is the message when there is none.
    """
    if not isinstance(value, dict):
        said = value if isinstance(value, str) and value else fallback
        return made_error("Error", said)
    if not isinstance(value.get("name"), str) or not isinstance(value.get("message"), str):
        value = _completed(value, fallback)
    return _bounded(value)


def _completed(value: Mapping[str, Any], fallback: str) -> dict[str, Any]:
    error = dict(value)
    if not isinstance(error.get("name"), str):
        error["name"] = "Error"
    if not isinstance(error.get("message"), str):
        # The TypeScript SDK says `error` where a targeted step was not found (protocol 14.5).
        said = error.get("error")
        error["message"] = said if isinstance(said, str) and said else fallback
    return error


def _bounded(error: dict[str, Any]) -> bytes:
    """The object's text, at most 64 KiB: long texts are cut, then everything but the texts goes."""
    text = canonical.encode(error)
    if len(text) <= MAX_ERROR_BYTES:
        return text
    kept = {key: error[key] for key in ("name", "message", "stack", "code") if isinstance(error.get(key), str)}
    room = MAX_ERROR_BYTES // 4
    while True:
        cut = {key: part if len(part) <= room else part[:room] + _CUT for key, part in kept.items()}
        text = canonical.encode({"data": None, **cut})
        if len(text) <= MAX_ERROR_BYTES:
            return text
        # Escapes and wide characters take up to six bytes each; a few rounds are enough.
        room //= 2
