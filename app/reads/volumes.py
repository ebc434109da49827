"""How much a function does and how well: bars of the last day, the share that failed, how long runs take.

Counts come from the minute counters. Lengths come from the newest ended runs, a fixed number per function, because the
counters have none. At most two statements a page, none per row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.ids import EnvironmentId, FunctionId
from app.reads.filters import floor_id, minute
from app.store.db import Connection

#: Bars of a small chart: one an hour.
BARS = 24
#: Ended runs whose lengths are looked at: per row of the list, and for one function's page.
_SAMPLED, _SAMPLED_ONE = 100, 1000
#: Counting of single rows stops here, and says so.
MOST_COUNTED = 10_000
_MOST_LANES = 10_000


@dataclass(frozen=True, slots=True)
class Volume:
    """The last 24 hours of one function. `bars` are (made, failed) per hour, oldest first; `p95_ms` is None without runs."""

    function_id: UUID
    bars: tuple[tuple[int, int], ...]
    p95_ms: float | None

    @property
    def made(self) -> int:
        """Runs queued."""
        return sum(made for made, _ in self.bars)

    @property
    def failed(self) -> int:
        """How many of them have failed."""
        return sum(failed for _, failed in self.bars)

    @property
    def share(self) -> float | None:
        """The share that failed, 0 to 1; None without runs."""
        return self.failed / self.made if self.made else None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a function: `cap` calls or runs at once, or `cap` starts beyond the first each `every`."""

    kind: str
    cap: int
    every: timedelta | None


@dataclass(frozen=True, slots=True)
class Vitals:
    """How one function does. Times are milliseconds of the newest ended runs, None without any."""

    p50_ms: float | None
    p95_ms: float | None
    wait_p50_ms: float | None
    wait_p95_ms: float | None
    sampled: int
    calling: int
    backlog: int
    refused: int
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Calls under way, work that is due and waits, how much of it a limit holds, and events of the last day."""

    calling: int
    backlog: int
    held: int
    events: int
    now: datetime


async def volumes_of(
    connection: Connection, environment_id: EnvironmentId, functions: Sequence[UUID], now: datetime
) -> tuple[Volume, ...]:
    """The volumes of these functions, in their order; functions of other environments have none."""
    until = minute(now) + timedelta(minutes=1)
    since = until - timedelta(hours=BARS)
    ids = list(functions)
    counted = await connection.fetch(
        "select u.function_id, floor(extract(epoch from u.minute - $3) / 3600)::int as hour, sum(u.made)::int as made,"
        " sum(u.failed)::int as failed from usage_minutes u where u.environment_id = $1 and u.minute >= $3 and u.minute < $4"
        " and u.function_id = any($2) group by 1, 2",
        environment_id,
        ids,
        since,
        until,
    )
    lengths = await connection.fetch(
        "select f.id, extract(epoch from percentile_cont(0.95) within group (order by x.length)) * 1000 as p95"
        " from unnest($2::uuid[]) f (id) cross join lateral (select r.ended_at - r.started_at as length from runs r"
        "   where r.environment_id = $1 and r.function_id = f.id and r.id >= $3 and r.started_at is not null"
        f"   and r.ended_at is not null order by r.id desc limit {_SAMPLED}) x group by f.id",
        environment_id,
        [r["function_id"] for r in {r["function_id"]: r for r in counted}.values()],
        floor_id(since),
    )
    bars: dict[UUID, list[tuple[int, int]]] = {one: [(0, 0)] * BARS for one in ids}
    for r in counted:
        bars[r["function_id"]][min(r["hour"], BARS - 1)] = (r["made"], r["failed"])
    p95 = {r["id"]: float(r["p95"]) for r in lengths}
    return tuple(Volume(one, tuple(bars[one]), p95.get(one)) for one in ids)


async def vitals_of(connection: Connection, environment_id: EnvironmentId, function_id: FunctionId) -> Vitals:
    """Lengths, queue, limits and refusals of one function; one statement for numbers, one for limits."""
    row = await connection.fetchrow(
        f"""with ended as (
              select r.ended_at - r.started_at as length, r.started_at - r.queued_at as wait from runs r
              where r.environment_id = $1 and r.function_id = $2 and r.started_at is not null and r.ended_at is not null
              order by r.id desc limit {_SAMPLED_ONE}
            ), work as (
              select count(*) filter (where i.lease_id is not null) as calling,
                count(*) filter (where i.lease_id is null and i.due_at <= clock()) as backlog
              from lanes l join items i on i.lane_id = l.id and i.environment_id = $1
              where l.environment_id = $1 and l.function_id = $2
            )
            select count(*) as sampled,
              extract(epoch from percentile_cont(0.5) within group (order by e.length)) * 1000 as p50,
              extract(epoch from percentile_cont(0.95) within group (order by e.length)) * 1000 as p95,
              extract(epoch from percentile_cont(0.5) within group (order by e.wait)) * 1000 as wait_p50,
              extract(epoch from percentile_cont(0.95) within group (order by e.wait)) * 1000 as wait_p95,
              (select calling from work) as calling, (select backlog from work) as backlog,
              (select count(*) from (select 1 from dispositions d where d.environment_id = $1 and d.function_id = $2
                 and d.outcome = 'rate_limited' and d.event_id >= ulid_floor(clock() - interval '24 hours')
                 limit {MOST_COUNTED}) x) as refused
            from ended e""",
        environment_id,
        function_id,
    )
    limits = await connection.fetch(
        "select f.kind, x.cap, x.every from flow_limits f cross join lateral (select"
        " case when f.own_until > clock() then f.own_cap else f.cap end as cap,"
        " case when f.own_until > clock() then f.own_every else f.every end as every) x"
        " where f.environment_id = $1 and f.function_id = $2 order by f.kind, x.cap limit 20",
        environment_id,
        function_id,
    )
    numbers = {name: None if row[name] is None else float(row[name]) for name in ("p50", "p95", "wait_p50", "wait_p95")}
    return Vitals(
        p50_ms=numbers["p50"],
        p95_ms=numbers["p95"],
        wait_p50_ms=numbers["wait_p50"],
        wait_p95_ms=numbers["wait_p95"],
        sampled=row["sampled"],
        calling=row["calling"] or 0,
        backlog=row["backlog"] or 0,
        refused=row["refused"],
        limits=tuple(Limit(r["kind"], r["cap"], r["every"]) for r in limits),
    )


async def load_of(connection: Connection, environment_id: EnvironmentId) -> Load:
    """What an environment is doing just now, and what came in over the last day."""
    row = await connection.fetchrow(
        f"""select clock() as now, count(*) filter (where i.lease_id is not null) as calling,
              count(*) filter (where i.lease_id is null and i.due_at <= clock()) as backlog,
              count(*) filter (where i.lease_id is null and i.due_at <= clock() and l.blocked_by is not null) as held,
              (select count(*) from (select 1 from events e where e.environment_id = $1
                 and e.received_at > clock() - interval '24 hours' limit {MOST_COUNTED}) x) as events
            from (select l.id, l.blocked_by from lanes l where l.environment_id = $1 limit {_MOST_LANES}) l
            join lateral (select i.lease_id, i.due_at from items i where i.lane_id = l.id and i.environment_id = $1
              and (i.lease_id is not null or i.due_at <= clock()) limit {MOST_COUNTED}) i on true""",
        environment_id,
    )
    return Load(row["calling"], row["backlog"], row["held"], row["events"], row["now"])
