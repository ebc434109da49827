"""Events as they lie in the store, for those who make runs of them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from app.domain.event import INVOKED
from app.domain.flow.gates import EventRef
from app.domain.ids import RunId, millis, parse_ulid
from app.store.named import fetch, named

#: An event dated this far ahead delays the start of its runs (feature-semantics A1, FutureAtLimit).
_FUTURE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it lies in the store. `decoded` parses the payload once, for all who ask."""

    ref: EventRef
    name: str
    ts: int
    client_id: str | None
    payload: bytes
    decoded: Callable[[], dict[str, Any]]

    @property
    def first_time(self) -> datetime | None:
        """When a run of it may start, if it is dated into the future."""
        ahead = self.ts - millis(self.ref.received_at)
        return (
            None
            if ahead <= _FUTURE // timedelta(milliseconds=1)
            else self.ref.received_at + timedelta(milliseconds=ahead)
        )


def stored_event(row: Any) -> Stored:
    """The event of a claimed row."""
    payload: bytes = row["payload"].encode()
    kept: list[dict[str, Any]] = []

    def decoded() -> dict[str, Any]:
        if not kept:
            kept.append(msgspec.json.decode(payload))
        return kept[0]

    ref = EventRef(row["event_id"], row["received_at"])
    return Stored(ref, row["name"], row["ts"], row["client_id"], payload, decoded)


async def load_event(connection: Any, environment_id: UUID, ref: EventRef) -> Stored | None:
    """A stored event; None when its day is no longer kept."""
    rows = await fetch(
        connection, named("flow", "event"), environment=environment_id, event=ref.id, received_at=ref.received_at
    )
    return stored_event(rows[0]) if rows else None


def parent_of_run(event: Stored) -> tuple[RunId, str] | None:
    """The step that waits for a run of this event, if it was published by an invoke."""
    return parent_of(event.decoded()) if event.name == INVOKED else None


def parent_of(event: dict[str, Any]) -> tuple[RunId, str] | None:
    """`{run}.{step}` of the invoke that published the event; None for invokes by API."""
    meta = event["data"].get("_inngest")
    correlation = meta.get("correlation_id") if isinstance(meta, dict) else None
    if not isinstance(correlation, str):
        return None
    run_text, _, step_key = correlation.partition(".")
    run_id = parse_ulid(run_text)
    return (RunId(run_id), step_key) if run_id and step_key else None
