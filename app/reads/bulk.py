"""Bulk actions as pages show them: what one would do before it is asked for, how far it is, and what came of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.ids import EnvironmentId, RunId, to_ulid
from app.reads import scan
from app.reads.filters import RunFilter, Where
from app.reads.filters import where as conditions_of
from app.store.db import Connection
from app.store.named import fetch, named

#: Runs of one action, and of one that ticks them one by one.
MOST = 20_000
MOST_TICKED = 1000
#: Rows of the result table.
MOST_RESULTS = 200
OUTCOMES = ("done", "skipped", "failed", "dropped", "pending")


@dataclass(frozen=True, slots=True)
class Sample:
    """A run that would be changed."""

    ulid: str
    status: str
    function_name: str
    queued_at: datetime


@dataclass(frozen=True, slots=True)
class Preview:
    """What an action would do. `chosen` is what it changes; `left_out` counts the rest by reason.

    `is_cut`: more than `MOST` runs match, and nothing may be done; `is_unsure`: an expression could not be tried on all
    runs of the range, and nothing may be done either. `functions` are names, `versions` name and number.
    """

    matching: int
    is_cut: bool
    chosen: tuple[RunId, ...]
    left_out: dict[str, int]
    statuses: dict[str, int]
    functions: dict[str, int]
    versions: dict[str, int]
    oldest: datetime | None
    newest: datetime | None
    samples: tuple[Sample, ...]
    is_unsure: bool = False


async def preview(
    connection: Connection,
    environment_id: EnvironmentId,
    wanted: RunFilter | Sequence[UUID],
    now: datetime,
    *,
    action: str,
    from_step: str = "failed",
    is_again: bool = False,
) -> Preview:
    """Look at the runs of a filter, or at those with these ids, newest first. One statement, two with an expression.

    `is_again` takes runs that were replayed before, too.
    """
    is_unsure = False
    if isinstance(wanted, RunFilter) and wanted.expression:
        found = await scan.find(connection, environment_id, wanted, now, room=MOST + 1)
        wanted, is_unsure = found.ids, found.is_cut or found.too_large > 0
    if isinstance(wanted, RunFilter):
        conditions = conditions_of(environment_id, wanted, now)
    else:
        conditions = Where(environment_id)
        conditions.add("r.id = any(?)", list(wanted)[: MOST + 1])
    records = await connection.fetch(
        f"""select r.id, r.status, r.function_version, r.queued_at, r.ended_at is not null as is_ended,
              coalesce(f.name, f.slug, '') as function_name, f.paused_at is not null as is_paused,
              f.id is null or f.archived_at is not null or a.archived_at is not null as is_gone,
              $%s and exists (select 1 from runs n where n.original_run_id = r.id) as is_replayed,
              $%s and not exists (select 1 from events e where e.environment_id = r.environment_id and e.id = r.event_id
                and e.received_at = r.event_received_at) as is_expired
            from runs r
            left join functions f on f.id = r.function_id and f.environment_id = r.environment_id
            left join apps a on a.id = r.app_id and a.environment_id = r.environment_id
            where {conditions} order by r.id desc limit {MOST + 1}"""
        % (len(conditions.arguments) + 1, len(conditions.arguments) + 1),
        *conditions.arguments,
        action == "replay",
    )
    is_cut = len(records) > MOST
    records = records[:MOST]
    chosen, left_out = [], Counter[str]()
    for record in records:
        reason = _reason(record, action, from_step, is_again=is_again)
        if reason is None:
            chosen.append(record)
        else:
            left_out[reason] += 1
    return Preview(
        matching=len(records),
        is_cut=is_cut,
        chosen=tuple(RunId(r["id"]) for r in chosen),
        left_out=dict(left_out.most_common()),
        statuses=dict(Counter(r["status"] for r in chosen).most_common()),
        functions=dict(Counter(r["function_name"] for r in chosen).most_common(10)),
        versions=dict(Counter(f"{r['function_name']} version {r['function_version']}" for r in chosen).most_common(10)),
        oldest=min((r["queued_at"] for r in chosen), default=None),
        newest=max((r["queued_at"] for r in chosen), default=None),
        samples=tuple(Sample(to_ulid(r["id"]), r["status"], r["function_name"], r["queued_at"]) for r in chosen[:5]),
        is_unsure=is_unsure,
    )


def _reason(record: Any, action: str, from_step: str, *, is_again: bool) -> str | None:
    """Why a run is left out; None when it is not."""
    if action == "cancel":
        return "Already finished" if record["is_ended"] else None
    if not record["is_ended"]:
        return "Not finished yet"
    if from_step == "failed" and record["status"] not in {"failed", "cancelled"}:
        return "Did not fail"
    if record["is_gone"]:
        return "Function is not there any more"
    if record["is_paused"]:
        return "Function is paused"
    if record["is_expired"]:
        return "Payload expired"
    return "Already replayed" if record["is_replayed"] and not is_again else None


@dataclass(frozen=True, slots=True)
class Progress:
    """One action. The counts add up to `total`; `ended_at` is when its last item was settled, once all are.

    Nothing starts before `starts_at`. `speed` is in runs a second, None as fast as possible.
    """

    id: UUID
    ulid: str
    action: str
    from_step: str | None
    reason: str
    filters: str
    total: int
    left_out: int
    actor: str
    made_at: datetime
    name: str
    starts_at: datetime
    speed: int | None
    is_deep: bool
    is_paused: bool
    is_undone: bool
    is_stopped: bool
    counts: dict[str, int]
    ended_at: datetime | None
    rate: float | None
    left_ms: float | None
    now: datetime

    @property
    def settled(self) -> int:
        """How many items need no more work."""
        return self.total - self.counts["pending"]

    @property
    def is_ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.counts["pending"] == 0

    @property
    def may_undo(self) -> bool:
        """Whether nothing has started yet."""
        return not self.is_ended and self.now < self.starts_at

    @property
    def mark(self) -> str:
        """Differs whenever the page would."""
        now = (self.is_stopped, self.is_paused, self.now < self.starts_at)
        return "-".join(str(number) for number in (*(self.counts[outcome] for outcome in OUTCOMES), *map(int, now)))


async def find_progress(connection: Connection, environment_id: EnvironmentId, bulk_id: UUID) -> Progress | None:
    """One action of this environment."""
    rows = await fetch(connection, named("bulk", "progress"), id=bulk_id, environment=environment_id)
    return _progress(rows[0]) if rows else None


async def recent(connection: Connection, environment_id: EnvironmentId) -> list[Progress]:
    """The newest 50 actions."""
    return [_progress(row) for row in await fetch(connection, named("bulk", "recent"), environment=environment_id)]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one run; `detail` says why it was left out."""

    ulid: str
    state: str
    detail: str
    status: str | None
    new_ulid: str | None
    new_status: str | None
    function_name: str


async def results(
    connection: Connection, environment_id: EnvironmentId, bulk_id: UUID, outcome: str | None, room: int = MOST_RESULTS
) -> list[Result]:
    """The first items of one outcome, or of all: failed ones first."""
    rows = await fetch(
        connection, named("bulk", "results"), id=bulk_id, environment=environment_id, state=outcome, room=room
    )
    return [
        Result(
            to_ulid(r["run_id"]),
            r["state"],
            r["detail"],
            r["status"],
            None if r["new_run_id"] is None else to_ulid(r["new_run_id"]),
            r["new_status"],
            r["function_name"],
        )
        for r in rows
    ]


def _progress(record: Any) -> Progress:
    counts = {outcome: int(record[outcome]) for outcome in OUTCOMES}
    total, pending = record["total"], counts["pending"]
    settled = total - pending
    end = record["last_at"] if pending == 0 and record["last_at"] else record["now"]
    seconds = max(0.001, (end - max(record["made_at"], record["starts_at"])).total_seconds())
    rate = settled / seconds if settled else None
    return Progress(
        id=record["id"],
        ulid=to_ulid(record["id"]),
        action=record["action"],
        from_step=record["from_step"],
        reason=record["reason"],
        filters=record["filters"],
        total=total,
        left_out=record["left_out"],
        actor=record["actor"],
        made_at=record["made_at"],
        name=record["name"],
        starts_at=record["starts_at"],
        speed=record["speed"],
        is_deep=record["is_deep"],
        is_paused=record["paused_at"] is not None,
        is_undone=record["undone_at"] is not None,
        is_stopped=record["stopped_at"] is not None,
        counts=counts,
        ended_at=record["last_at"] if pending == 0 else None,
        rate=rate,
        left_ms=None if rate is None or pending == 0 else 1000 * pending / rate,
        now=record["now"],
    )


#: What a preview is when there was none.
NOTHING = Preview(0, False, (), {}, {}, {}, {}, None, None, ())
