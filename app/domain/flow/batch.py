"""Batching: events of one key are gathered until there are enough, or time or bytes are up (protocol 21.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.domain.expressions import ExpressionFailed, ExpressionRefused, compile_expression
from app.domain.flow.keys import key_of
from app.domain.limits import MAX_BATCH_BYTES
from app.domain.settings import Batch


@dataclass(frozen=True, slots=True)
class Open:
    """An open batch: how many events and bytes it holds, and when it starts at the latest."""

    opened_at: datetime
    due_at: datetime
    size: int
    bytes: int


def key_of_batch(rule: Batch, event: Mapping[str, Any]) -> str | None:
    """The batch an event belongs to; None when it runs alone, at once (`if` is false or fails)."""
    if rule.condition is not None:
        try:
            if not compile_expression(rule.condition).matches({"event": event}):
                return None
        except (ExpressionFailed, ExpressionRefused):
            return None
    return key_of(rule.key, event)


def overflows(found: Open | None, event_bytes: int) -> bool:
    """Whether the open batch must start before this event, because together they would be too large."""
    return found is not None and found.bytes + event_bytes > MAX_BATCH_BYTES


def arrive(rule: Batch, found: Open | None, event_bytes: int, now: datetime) -> Open:
    """The batch with one more event; it is due at once when it is full."""
    size, total = (found.size + 1, found.bytes + event_bytes) if found else (1, event_bytes)
    opened_at = found.opened_at if found else now
    due_at = found.due_at if found else now + rule.timeout
    if size >= rule.max_size or total >= MAX_BATCH_BYTES:
        due_at = min(due_at, now)
    return Open(opened_at, due_at, size, total)
