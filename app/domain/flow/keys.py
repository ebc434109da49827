"""The key a limit counts under: the value of a user's expression for one event.

Two kinds of failure differ: an expression that fails on an event counts under one key of its own (`INVALID`), so that
broken events cannot pass a limit; `false` means, where the protocol says so (21.2), that the event is not counted at all.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from app.domain.expressions import ExpressionFailed, ExpressionRefused, compile_expression, key_text

#: Key of events for which the expression fails (protocol 21.2, debounce).
INVALID: Final = "<invalid>"
#: Longest key kept for people; ids are computed from the whole.
_SHOWN: Final = 200


def key_of(expression: str | None, event: Mapping[str, Any]) -> str:
    """The key's text; `""` where no expression divides the function's events."""
    if not expression:
        return ""
    try:
        return key_text(compile_expression(expression).evaluate({"event": event}))
    except (ExpressionFailed, ExpressionRefused):
        return INVALID


def key_or_bypass(expression: str | None, event: Mapping[str, Any]) -> str | None:
    """As `key_of`, but None where the expression says `false`: the event is not counted (rate limit, singleton)."""
    if not expression:
        return ""
    try:
        value = compile_expression(expression).evaluate({"event": event})
        return None if value is False else key_text(value)
    except (ExpressionFailed, ExpressionRefused):
        return INVALID


def shown(key: str) -> str:
    """The key as it is stored for people: without NUL, of bounded length, still different where keys differ."""
    text = key.replace("\x00", "\ufffd")
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}…{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def key_bytes(key: str) -> bytes:
    """The whole key, for computing ids from it."""
    return key.encode("utf-8", "surrogatepass")
