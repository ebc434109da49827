"""The runs list: one page of runs with what is shown of each, and what is newer.

Reads only, inside a tenant transaction (`store.db.tenant`). Two statements a page, none per row; a third where there is
an expression. Lists page by run id, which is a ULID: newest first, and a time range is an id range. Any other order sorts
what the filters leave. Worst case: `waiting` and `running` ask the live items of each open run until the page is full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.ids import EnvironmentId, RunId, parse_ulid, to_ulid
from app.reads import scan
from app.reads.filters import STATUSES, RunFilter, put_in_order
from app.reads.filters import where as conditions_of
from app.store.db import Connection

#: Tabs in the order they stand; `all` is the first.
TABS = ("all", *STATUSES)
#: Page sizes people may choose; the first is the default.
SIZES = (50, 25, 100, 200)
#: New runs counted for the pill.
_MOST_NEW = 100
#: New runs an expression is tried on, every time something changes.
_MOST_NEW_LOOKED_AT = 500

_COLUMNS = """
  r.id, r.status, r.version, r.completed, r.pending, r.function_id, r.function_version, r.event_id, r.event_received_at,
  r.event_name, r.batch_size, r.cron, r.parent_run_id, r.parent_step_key, r.original_run_id, r.max_attempts,
  r.queued_at, r.started_at, r.ended_at, r.error_code, r.error_name, r.error_message,
  f.id is null or f.archived_at is not null or a.archived_at is not null as is_gone, f.paused_at is not null as is_paused,
  coalesce(f.name, f.slug, '') as function_name, coalesce(f.slug, '') as function_slug, coalesce(a.name, '') as app_name,
  q.calls, q.timers, q.backing_off, clock() as now
"""
#: What belongs to a row is looked up for the rows of the page only, whatever the list is sorted by.
_BESIDE = """
  left join functions f on f.id = r.function_id and f.environment_id = r.environment_id
  left join apps a on a.id = r.app_id and a.environment_id = r.environment_id
  left join lateral (
    select count(*) filter (where i.kind in ('discover', 'step')) as calls,
           count(*) filter (where i.kind not in ('discover', 'step')) as timers,
           count(*) filter (where i.kind in ('discover', 'step') and i.lease_id is null and i.attempt > 0
                            and i.due_at > clock()) as backing_off
    from items i where i.run_id = r.id) q on r.status = 'running'
"""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as every list, header and fragment shows it.

    `state` is the display state (`timeline.run_state`); `trigger_kind`: event, cron, invoke or replay.
    `queue_ms` and `run_ms` grow with `now` while the run has not started or ended; `run_ms` is None before the start.
    """

    id: RunId
    ulid: str
    state: str
    version: int
    function_name: str
    function_slug: str
    app_name: str
    function_version: int
    trigger_kind: str
    trigger: str
    event_name: str
    event_id: UUID
    event_received_at: datetime
    batch_size: int
    parent_run: str | None
    original_run: str | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    queue_ms: float
    run_ms: float | None
    steps_done: int
    steps_known: int
    max_attempts: int
    error_code: str | None
    error_name: str | None
    error_message: str | None
    now: datetime
    #: The function is there and may be run: what replay needs.
    is_callable: bool = True

    @property
    def event(self) -> str:
        """The id of its first event as text."""
        return to_ulid(self.event_id)

    @property
    def is_ended(self) -> bool:
        """Whether nothing about the run changes any more."""
        return self.ended_at is not None


@dataclass(frozen=True, slots=True)
class RunList:
    """One page. `newer` and `older` are the cursors of the neighbouring pages, or None; `now` is the database's.

    With an expression: `examined` runs were looked at, `too_large` of them not into; `is_cut` when there are more, `counts`
    by status of those it is true for.
    """

    rows: tuple[RunRow, ...]
    newer: str | None
    older: str | None
    now: datetime
    examined: int = 0
    too_large: int = 0
    is_cut: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def newest(self) -> str:
        """The cursor after which runs are new to this page."""
        return self.rows[0].ulid if self.rows else ""


async def list_runs(
    connection: Connection,
    environment_id: EnvironmentId,
    wanted: RunFilter,
    *,
    before: UUID | None = None,
    after: UUID | None = None,
    size: int = SIZES[0],
    sort: str = "-queued",
) -> RunList:
    """A page of runs in the order `sort`, newest first: `before` gives what comes later in the list, `after` earlier."""
    now: datetime = await connection.fetchval("select clock()")
    found = None
    if wanted.expression:
        found = await scan.find(
            connection,
            environment_id,
            wanted,
            now,
            room=size + 1,
            sort=sort,
            before=before,
            after=after,
            is_counting=before is None and after is None,
        )
        known = {row.id: row for row in await rows_by_id(connection, environment_id, found.ids)} if found.ids else {}
        rows = [known[run_id] for run_id in found.ids if run_id in known]
    else:
        where = conditions_of(environment_id, wanted, now)
        order = put_in_order(where, sort, before=before, after=after)
        records = await connection.fetch(
            f"""select {_COLUMNS} from (select r.* from runs r where {where} order by {order} limit {size + 1}) r
                {_BESIDE} order by {order}""",
            *where.arguments,
        )
        rows = [to_row(r) for r in records]
    has_more = len(rows) > size
    rows = rows[:size]
    if after is not None:
        rows.reverse()
    is_cut = found is not None and found.is_cut
    if not rows and after is not None and not is_cut:
        # Nothing newer: the first page is what "newer" means then.
        return await list_runs(connection, environment_id, wanted, size=size, sort=sort)
    newer = older = None
    if rows:
        newer = rows[0].ulid if (has_more if after is not None else before is not None) else None
        older = rows[-1].ulid if (has_more if after is None else True) else None
    if found is not None and is_cut and not has_more and found.last is not None:
        # The page is not full, and there is more to look through: go on behind what was looked at.
        if after is None:
            older = to_ulid(found.last)
        else:
            newer = to_ulid(found.last)
    if found is None:
        return RunList(tuple(rows), newer, older, now)
    return RunList(tuple(rows), newer, older, now, found.examined, found.too_large, is_cut, found.counts)


async def rows_by_id(connection: Connection, environment_id: EnvironmentId, ids: Sequence[UUID]) -> list[RunRow]:
    """The rows with these ids, in no order; ids of other environments are simply not found."""
    records = await connection.fetch(
        f"select {_COLUMNS} from runs r {_BESIDE} where r.environment_id = $1 and r.id = any($2)",
        environment_id,
        list(ids)[: max(SIZES) + 1],
    )
    return [to_row(r) for r in records]


async def count_newer(
    connection: Connection, environment_id: EnvironmentId, wanted: RunFilter, newest: UUID | None
) -> int:
    """How many runs the list would show above `newest`, at most 100."""
    now: datetime = await connection.fetchval("select clock()")
    if wanted.expression:
        found = await scan.find(
            connection,
            environment_id,
            wanted,
            now,
            room=_MOST_NEW,
            sort="queued",
            before=newest,
            most=_MOST_NEW_LOOKED_AT,
        )
        return len(found.ids)
    where = conditions_of(environment_id, wanted, now)
    if newest is not None:
        where.add("r.id > ?", newest)
    number: int = await connection.fetchval(
        f"select count(*) from (select 1 from runs r where {where} limit {_MOST_NEW}) x",
        *where.arguments,
    )
    return number


async def has_runs(connection: Connection, environment_id: EnvironmentId) -> bool:
    """Whether there is any run at all: an empty list means two different things."""
    found: bool = await connection.fetchval(
        "select exists (select 1 from runs where environment_id = $1)", environment_id
    )
    return found


async def list_mark(connection: Connection, environment_id: EnvironmentId) -> str:
    """A text that changes when anything among the newest 200 runs does: what a live list polls without Redis."""
    mark: str | None = await connection.fetchval(
        "select max(id::text) || ':' || sum(version) from"
        " (select id, version from runs where environment_id = $1 order by id desc limit 200) newest",
        environment_id,
    )
    return mark or ""


def parse_search(text: str) -> tuple[UUID, ...] | None:
    """The ids a search text can mean: a run id or an event id, as ULID or UUID; None when it is neither."""
    found = parse_ulid(text.strip())
    if found is None:
        try:
            found = UUID(text.strip())
        except ValueError:
            return None
    return (found,)


def to_row(record: Any) -> RunRow:
    """A database record with `_COLUMNS` as a row."""
    queued, started, ended, now = record["queued_at"], record["started_at"], record["ended_at"], record["now"]
    kind, trigger = _trigger(record)
    end = ended or now
    return RunRow(
        id=RunId(record["id"]),
        ulid=to_ulid(record["id"]),
        state=_state(record),
        version=record["version"],
        function_name=record["function_name"],
        function_slug=record["function_slug"],
        app_name=record["app_name"],
        function_version=record["function_version"],
        trigger_kind=kind,
        trigger=trigger,
        event_name=record["event_name"],
        event_id=record["event_id"],
        event_received_at=record["event_received_at"],
        batch_size=record["batch_size"],
        parent_run=None if record["parent_run_id"] is None else to_ulid(record["parent_run_id"]),
        original_run=None if record["original_run_id"] is None else to_ulid(record["original_run_id"]),
        queued_at=queued,
        started_at=started,
        ended_at=ended,
        queue_ms=_ms((started or end) - queued),
        run_ms=None if started is None else _ms(end - started),
        steps_done=record["completed"],
        steps_known=record["completed"] + record["pending"],
        max_attempts=record["max_attempts"],
        error_code=record["error_code"],
        error_name=record["error_name"],
        error_message=record["error_message"],
        now=now,
        is_callable=not (record["is_gone"] or record["is_paused"]),
    )


def _ms(span: timedelta) -> float:
    return max(0.0, span / timedelta(milliseconds=1))


def _state(record: Any) -> str:
    status: str = record["status"]
    if status != "running":
        return status
    if not record["calls"]:
        return "waiting" if record["timers"] else "running"
    return "retrying" if record["backing_off"] == record["calls"] else "running"


def _trigger(record: Any) -> tuple[str, str]:
    if record["original_run_id"] is not None:
        return "replay", record["event_name"]
    if record["cron"] is not None:
        return "cron", record["cron"]
    if record["parent_run_id"] is not None:
        return "invoke", record["event_name"]
    return "event", record["event_name"]
