"""Debounce: a run starts when no event came for `period`, with the newest event (protocol 21.2).

"Newest" is by the event's own `ts`; of equal ones the later arrival wins. `timeout` bounds the whole delay, counted from
the first event.
"""

from dataclasses import dataclass
from datetime import datetime

from app.domain.settings import Debounce


@dataclass(frozen=True, slots=True)
class Open:
    """An open debounce: since when, until when, and the `ts` of the event it would run with."""

    opened_at: datetime
    due_at: datetime
    event_ts: int


def arrive(rule: Debounce, found: Open | None, event_ts: int, now: datetime) -> tuple[Open, bool]:
    """The debounce after an event, and whether that event is the one to run with now."""
    opened_at = found.opened_at if found else now
    due_at = now + rule.period
    if rule.timeout is not None:
        due_at = min(due_at, opened_at + rule.timeout)
    is_newest = found is None or event_ts >= found.event_ts
    ts = event_ts if found is None else max(event_ts, found.event_ts)
    return Open(opened_at, max(due_at, now), ts), is_newest
