"""Finds the waits an event ends: children's ends by correlation, waits for events by name and value.

Waits are never scanned: a wait whose expression holds an equality is stored with the path and value it compares, and
an event asks the index with its own values (D7). The rest of the expression is judged here.
Both looks of rule 15 use this module: whoever commits an event looks for waits (`waits_ended_by`), and whoever opens a
wait looks for events received since (`recheck`). One of the two sees the other.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.domain.expressions import compile_expression
from app.domain.expressions.binding import VARIABLES, bind_event, index_value
from app.domain.ids import RunId
from app.domain.run.happenings import Happening, Resumed
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: A path that no event has: the wait is known never to match and only its timeout ends it.
_NEVER = "never"


@dataclass(frozen=True, slots=True)
class StoredWait:
    """A wait's columns: what is judged (JSON of the text and the part of the run's event it mentions), where it is found."""

    expression: str | None = None
    path: str | None = None
    value: str | None = None


def bind(expression: str | None, event: bytes) -> StoredWait:
    """Fix the run's side of a wait's expression. The machine has refused texts that do not compile."""
    if not expression:
        return StoredWait()
    bound = bind_event(expression, msgspec.json.decode(event))
    if bound.always:
        return StoredWait()
    stored = msgspec.json.encode({"text": bound.text, "event": bound.event}).decode()
    if bound.never:
        return StoredWait(stored, _NEVER, "")
    return StoredWait(stored, bound.index.path, bound.index.value) if bound.index else StoredWait(stored)


def matches(expression: str | None, event: Any, now: datetime) -> bool:
    """Whether an event ends a stored wait; a failing expression is no match (22)."""
    if expression is None:
        return True
    stored = msgspec.json.decode(expression)
    is_match, _error = compile_expression(stored["text"], VARIABLES).judge({"event": stored["event"], "async": event}, now)
    return is_match


async def waits_ended_by(connection: Any, row: Any) -> list[tuple[RunId, Happening]]:
    """The runs that a claimed event resumes, with what they are told. `row` is one of `claim` (sql/inbox.sql)."""
    found: list[tuple[RunId, Happening]] = []
    if row["correlation"] is not None:
        for pause in await fetch(
            connection, named("inbox", "pause_of_child"), environment=row["environment_id"], correlation=row["correlation"]
        ):
            found.append((pause["run_id"], _of_child(pause["step_key"], row["payload"])))
    paths = [
        r["match_path"]
        for r in await fetch(connection, named("inbox", "pause_paths"), environment=row["environment_id"], name=row["name"])
    ]
    event = msgspec.json.decode(row["payload"]) if paths else None
    pairs = [(path, index_value(path, event)) for path in paths if path != _NEVER]
    pauses = await fetch(
        connection, named("inbox", "matching_pauses"), environment=row["environment_id"], name=row["name"],
        paths=[p for p, _ in pairs], values=[v for _, v in pairs],
    )
    for pause in pauses:
        if event is None:
            event = msgspec.json.decode(row["payload"])
        if pause["requested_at"] < row["received_at"] and matches(pause["expression"], event, row["received_at"]):
            found.append((pause["run_id"], Resumed(pause["step_key"], row["payload"].encode())))
    return found


async def recheck(connection: Any, pause: Any) -> Happening | None:
    """The second look of a wait: an event that came in between its request and its commit."""
    for row in await fetch(
        connection, named("inbox", "events_since"), environment=pause["environment_id"], name=pause["event_name"],
        since=pause["requested_at"],
    ):
        if matches(pause["expression"], msgspec.json.decode(row["payload"]), row["received_at"]):
            return Resumed(pause["step_key"], row["payload"].encode())
    return None


def _of_child(step_key: str, payload: str) -> Happening:
    """A child's end as the memo of its parent's step (protocol 23.3)."""
    event = msgspec.json.decode(payload.encode(), type=_Finished)
    if event.data.error is not None:
        return Resumed(step_key, b'{"error":' + bytes(event.data.error) + b"}", is_error=True)
    if event.data.result is not None:
        return Resumed(step_key, b'{"data":' + bytes(event.data.result) + b"}")
    error = {"data": None, "message": "The invoked function was cancelled before it finished.", "name": "Error"}
    return Resumed(step_key, b'{"error":' + msgspec.json.encode(error) + b"}", is_error=True)


class _FinishedData(msgspec.Struct):
    error: msgspec.Raw | None = None
    result: msgspec.Raw | None = None


class _Finished(msgspec.Struct):
    data: _FinishedData
