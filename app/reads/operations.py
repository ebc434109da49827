"""How the whole house is, for its operators: lag, queue by gate, workers, partitions, repairs, and what processes measured.

Reads with a connection of the engine's role, which sees every tenant, and tells numbers only: no names of tenants, no
payloads. Every count is bounded, so that a look at a sick house does not make it sicker.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
import msgspec

from app.domain.ids import to_ulid
from app.store.db import Connection, Pool
from app.store.named import fetch, named

#: Counts stop here.
MOST = 100_000
#: Runs named on the page as stuck.
_MOST_STUCK = 20
#: A process that published nothing for so long is gone.
_FRESH = timedelta(seconds=20)
#: In a checkout, and in an installed wheel.
_INVARIANTS = (Path(__file__).parents[2] / "docs" / "invariants.sql", Path(__file__).parents[1] / "invariants.sql")
_HEAD = re.compile(r"^-- ([A-Z][A-Z0-9]+(?:-[a-z]+)?): (.+)$", re.MULTILINE)
GATES = ("ready", "leased", "calls", "runs", "throttle", "limit", "paused", "later")


@dataclass(frozen=True, slots=True)
class Worker:
    """One row of the list of workers."""

    name: str
    host: str
    pid: int
    started_at: datetime
    lease_until: datetime
    state: str
    held: int


@dataclass(frozen=True, slots=True)
class Process:
    """What one process published last."""

    kind: str
    name: str
    at: datetime
    measured: Mapping[str, Any]

    def value(self, name: str, *labels: str) -> float:
        """One number of it; 0 when it has not been measured."""
        for found, *given, value in self.measured.get("values", ()):
            if found == name and tuple(given[: len(labels)]) == labels:
                return float(value)
        return 0.0


@dataclass(frozen=True, slots=True)
class Partitions:
    """The day partitions of one table, and the rows outside of any."""

    table: str
    days: int
    first: str
    last: str
    ahead: int
    bytes: int
    default_rows: int


@dataclass(frozen=True, slots=True)
class Repair:
    """What keepers put right of one kind."""

    kind: str
    count: int
    last_count: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class House:
    """Everything an operator looks at. Ages are in seconds, 0 when nothing waits."""

    now: datetime
    queue: Mapping[str, int]
    inbox: int
    oldest_due_s: float
    oldest_event_s: float
    workers: tuple[Worker, ...]
    processes: tuple[Process, ...]
    partitions: tuple[Partitions, ...]
    repairs: tuple[Repair, ...]
    stuck: tuple[str, ...]

    def measured(self) -> dict[str, Any]:
        """The same as a snapshot of metrics."""
        values: list[list[Any]] = [["stepwell_queue_items", gate, count] for gate, count in self.queue.items()]
        values += [
            ["stepwell_inbox_events", self.inbox],
            ["stepwell_oldest_due_seconds", self.oldest_due_s],
            ["stepwell_oldest_inbox_seconds", self.oldest_event_s],
            ["stepwell_runs_stuck", len(self.stuck)],
            ["stepwell_partition_days_ahead", min((p.ahead for p in self.partitions), default=0)],
        ]
        for state in ("living", "stopping", "expired"):
            values.append(["stepwell_workers", state, sum(w.state == state for w in self.workers)])
        for p in self.partitions:
            values.append(["stepwell_partition_bytes", p.table, p.bytes])
            values.append(["stepwell_default_rows", p.table, p.default_rows])
        values += [["stepwell_repaired_total", repair.kind, repair.count] for repair in self.repairs]
        return {"values": values}


async def load_house(connection: Connection) -> House:
    """Look at the whole house: eight bounded statements."""
    lag = (await fetch(connection, named("operations", "lag"), most=MOST))[0]
    now: datetime = lag["now"]
    gates = await fetch(connection, named("operations", "queue"), most=MOST)
    due = [row["oldest"] for row in gates if row["gate"] == "ready" and row["oldest"] is not None]
    queue = dict.fromkeys(GATES, 0) | {row["gate"]: row["items"] for row in gates}
    workers = await fetch(connection, named("operations", "workers"))
    processes = await fetch(connection, named("operations", "processes"), within=_FRESH)
    partitions = await fetch(connection, named("operations", "partitions"))
    repairs = await fetch(connection, named("operations", "repairs"))
    stuck = await fetch(connection, named("workers", "stuck"), room=_MOST_STUCK)
    return House(
        now,
        queue,
        lag["inbox"],
        max(((now - at).total_seconds() for at in due), default=0.0),
        max(0.0, (now - lag["oldest_event"]).total_seconds()) if lag["oldest_event"] else 0.0,
        tuple(_worker(row, now) for row in workers),
        tuple(Process(row["kind"], row["name"], row["at"], msgspec.json.decode(row["body"])) for row in processes),
        tuple(
            Partitions(
                row["parent"],
                row["days"],
                str(row["first"]),
                str(row["last"]),
                row["ahead"],
                row["bytes"],
                lag[f"{row['parent']}_default"],
            )
            for row in partitions
        ),
        tuple(Repair(row["kind"], row["count"], row["last_count"], row["last_at"]) for row in repairs),
        tuple(to_ulid(row["id"]) for row in stuck),
    )


def _worker(row: Any, now: datetime) -> Worker:
    state = "expired" if row["lease_until"] <= now else "stopping" if row["stopping_at"] else "living"
    return Worker(
        row["name"] or str(row["id"])[:8],
        row["host"],
        row["pid"],
        row["started_at"],
        row["lease_until"],
        state,
        row["held"],
    )


# ---------------------------------------------------------------- what must always hold


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one invariant. `rows` is None when it was not finished in time; `first` the first wrong row."""

    name: str
    says: str
    rows: int | None
    first: str
    millis: float


@cache
def invariants() -> dict[str, tuple[str, str]]:
    """Each query of `docs/invariants.sql` with its sentence, by name; empty where the file was not installed."""
    found = next((path for path in _INVARIANTS if path.exists()), None)
    if found is None:
        return {}
    text = found.read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return {head[1]: (head[2], text[head.end() : end].strip()) for head, end in zip(heads, ends, strict=True)}


async def check_invariants(pool: Pool, *, each_ms: int = 2000, within_s: float = 20.0) -> tuple[Checked, ...]:
    """Ask every invariant of the live database, each for at most `each_ms`, all together for `within_s`.

    Reads only, one short transaction per query, so nobody waits for it. What is not asked any more has `rows` None.
    """
    done: list[Checked] = []
    began = perf_counter()
    async with pool.acquire(timeout=2) as connection:
        for name, (says, query) in invariants().items():
            if perf_counter() - began > within_s:
                done.append(Checked(name, says, None, "", 0.0))
                continue
            started = perf_counter()
            rows: list[Any] | None
            try:
                async with connection.transaction(readonly=True):
                    await connection.execute(
                        f"set local statement_timeout = {int(each_ms)}; set local enable_seqscan = on;"
                        " set local enable_hashjoin = on; set local enable_mergejoin = on"
                    )
                    rows = await connection.fetch(f"select * from ({query}) x limit 100")
            except asyncpg.QueryCanceledError:
                rows = None
            first = "" if not rows else json.dumps({k: str(v) for k, v in rows[0].items()})
            found = None if rows is None else len(rows)
            done.append(Checked(name, says, found, first, (perf_counter() - started) * 1000))
    return tuple(done)
