"""Writes a batch of entries in one statement: the only writer of runs, steps, items, pauses and history.

An entry is one run's change with its guard: (run, expected version, items with their fences). `Batch` collects the rows of many
entries by kind; `commit` sends them as arrays. An entry whose guard fails is left out whole; the others are written
together, in one transaction and one round trip (architecture D4, section 5 rules 5-8).

Who is authoritative for what: the row for versions and fences, the database clock for every time, this statement for
memo order. Callers may only say what they expected.
"""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from app import telemetry
from app.store.named import Statement, fetch, joined

#: Column names of each part, in the order of the tuples in `Batch`.
_ENTRY = [
    "n",
    "run_id",
    "expect",
    "status",
    "request_version",
    "is_planned",
    "pending",
    "group_key",
    "discoveries",
    "bytes",
    "starts",
    "ends",
    "error_code",
    "error_name",
    "error_message",
]
_PARTS: dict[str, tuple[str, ...]] = {
    "steps": tuple(
        f"step_{c}"
        for c in "n place key kind name type state member race memo input opts error".split()  # noqa: SIM905 - a table reads better
    ),
    "settle": ("gone_n", "gone_id"),
    "hand_over": ("hand_n", "hand_lease"),
    "enqueue": tuple(f"new_{c}" for c in ("n", "id", "key", "kind", "step", "at", "after", "lease", "worker")),
    "retry": tuple(f"again_{c}" for c in ("n", "id", "attempt", "after")),
    "wake": tuple(f"wake_{c}" for c in ("n", "at", "after", "lease")),
    "open_pauses": tuple(
        f"pause_{c}"
        for c in ("n", "step", "kind", "event", "expression", "path", "value", "signal", "correlation", "requested")
    ),
    "close_pauses": ("closed_n", "closed_step"),
    "store_requests": ("asked_n", "asked_step", "asked_sealed"),
    "drop_requests": ("unasked_n", "unasked_step"),
    "add_defers": tuple(f"defer_{c}" for c in ("n", "key", "slug", "input", "opening", "event", "state")),
    "abort_defers": ("aborted_n", "aborted_key"),
    "start_defers": ("started_n", "started_key"),
    "free_slots": ("freed_n", "freed_lease"),
    "history": tuple(f"told_{c}" for c in ("n", "position", "kind", "step", "item", "attempt", "started", "detail")),
    "emit": tuple(f"event_{c}" for c in ("n", "id", "name", "client_id", "ts", "payload", "correlation")),
}


@dataclass(slots=True)
class Batch:
    """The rows of a commit, one tuple each, by part. The first column of every row is the entry's number."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)
    #: (entry, item id, fence): every one of them must still be held for the entry to win.
    guards: list[tuple[int, UUID, int]] = field(default_factory=list)
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    settle: list[tuple[Any, ...]] = field(default_factory=list)
    #: (entry, lease id): leases of limited functions that go on to a successor, slots and all, unless somebody waits.
    hand_over: list[tuple[int, UUID]] = field(default_factory=list)
    enqueue: list[tuple[Any, ...]] = field(default_factory=list)
    retry: list[tuple[Any, ...]] = field(default_factory=list)
    #: (entry, at, after, lease id): work the lanes must know of; with a lease only if that was given up.
    wake: list[tuple[Any, ...]] = field(default_factory=list)
    open_pauses: list[tuple[Any, ...]] = field(default_factory=list)
    close_pauses: list[tuple[Any, ...]] = field(default_factory=list)
    store_requests: list[tuple[Any, ...]] = field(default_factory=list)
    drop_requests: list[tuple[Any, ...]] = field(default_factory=list)
    add_defers: list[tuple[Any, ...]] = field(default_factory=list)
    abort_defers: list[tuple[Any, ...]] = field(default_factory=list)
    start_defers: list[tuple[Any, ...]] = field(default_factory=list)
    free_slots: list[tuple[Any, ...]] = field(default_factory=list)
    history: list[tuple[Any, ...]] = field(default_factory=list)
    emit: list[tuple[Any, ...]] = field(default_factory=list)
    has_ends: bool = False


@dataclass(frozen=True, slots=True)
class Won:
    """The entry was written: the run's new version, the database's time, and leases that were not handed on (rule 12)."""

    version: int
    now: datetime
    given_up: frozenset[UUID] = frozenset()


def _statement(batch: Batch) -> Statement:
    parts = ["guard", "steps" if batch.steps else "no_steps", "run"]
    if not batch.hand_over:
        parts.append("no_hand_over")
    parts += [p for p in _PARTS if p != "steps" and getattr(batch, p)]
    if batch.has_ends:
        parts.append("finish")
    return joined("commit", (*parts, "answer"))


async def commit(connection: Any, batch: Batch, commit_id: UUID) -> dict[int, Won]:
    """Write the batch; the answer holds the entries that won, by their number.

    Inside a caller's transaction it is part of it, else a transaction of its own. Raises what asyncpg raises: bad
    data in one entry fails the whole statement, and the caller halves the batch (rule 7).
    """
    values: dict[str, Any] = {"commit_id": commit_id}
    values.update(zip(_ENTRY, zip(*batch.entries, strict=True), strict=True))
    values.update(
        zip(
            ("want_n", "want_item", "want_fence"),
            zip(*batch.guards, strict=True) if batch.guards else ((), (), ()),
            strict=True,
        )
    )
    for part, columns in _PARTS.items():
        rows = getattr(batch, part)
        if rows:
            values.update(zip(columns, zip(*rows, strict=True), strict=True))
    began = time.perf_counter()
    rows = await fetch(connection, _statement(batch), **values)
    telemetry.observe("stepwell_commit_seconds", time.perf_counter() - began)
    telemetry.observe("stepwell_commit_batch_runs", len(batch.entries))
    if len(rows) < len(batch.entries):
        telemetry.count("stepwell_commit_losers_total", len(batch.entries) - len(rows))
    return {row["n"]: Won(row["version"], row["now"], frozenset(row["given_up"] or ())) for row in rows}
