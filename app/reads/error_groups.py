"""Failures put together by what went wrong: the same function, error name and message, numbers aside.

Looks at the newest `LOOKED_AT` failed runs of the last week, so its cost does not grow with the environment; `is_cut`
says when there are more. A group is named by its fingerprint, a hash of what its runs share. One statement a page.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.domain.ids import EnvironmentId, FunctionId, to_ulid
from app.reads.handles import handle_of
from app.store.db import Connection

LOOKED_AT = 2_000
DAYS = 7
#: Bars of a small chart: one for six hours.
BARS = 28
MOST_GROUPS = 100
LAST_RUNS = 20

#: What the runs of a group share; `r` is a failed run.
FINGERPRINT = (
    "left(md5(r.function_id::text || ':' || coalesce(r.error_name, r.error_code, 'Error') || ':'"
    " || regexp_replace(left(coalesce(r.error_message, ''), 500), '[0-9]+', '0', 'g')), 16)"
)
_FAILED = f"""
  select r.id, r.function_id, r.function_version, coalesce(r.error_name, r.error_code, 'Error') as name,
    left(coalesce(r.error_message, ''), 300) as message, r.queued_at, r.ended_at, {FINGERPRINT} as fingerprint
  from runs r where r.environment_id = $1 and r.status = 'failed' and r.id >= ulid_floor(clock() - interval '{DAYS} days')
    and ($2::uuid is null or r.function_id = $2) order by r.id desc limit {LOOKED_AT + 1}"""


@dataclass(frozen=True, slots=True)
class Muted:
    """Who muted a group, when and why."""

    by: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """One line. `latest` is the newest run; `version` the function's version it ran; `bars` counts, oldest first."""

    fingerprint: str
    name: str
    message: str
    function_name: str
    function_slug: str
    function_handle: str
    count: int
    latest: str
    first_at: datetime
    last_at: datetime
    version: int
    bars: tuple[tuple[int, int], ...]
    muted: Muted | None


@dataclass(frozen=True, slots=True)
class ErrorList:
    """`is_cut`: there were more failed runs than were looked at. `muted` counts the groups that are not shown."""

    groups: tuple[ErrorGroup, ...]
    is_cut: bool
    muted: int
    now: datetime


async def list_errors(
    connection: Connection,
    environment_id: EnvironmentId,
    *,
    function_id: FunctionId | None = None,
    is_muted: bool = False,
    fingerprint: str | None = None,
) -> ErrorList:
    """Groups, those with most runs first: all of a function, only muted or only heard ones, or the one of a fingerprint."""
    records = await connection.fetch(
        f"""with failed as materialized ({_FAILED}), bars as (
              select x.fingerprint, least(greatest(floor(extract(epoch from x.queued_at - clock() + interval '{DAYS} days')
                / {DAYS * 86_400 // BARS}), 0), {BARS - 1})::int as bar, count(*)::int as number from failed x group by 1, 2
            ), drawn as (
              select fingerprint, array_agg(bar order by bar) as bars, array_agg(number order by bar) as numbers
              from bars group by 1
            ), grouped as (
              select x.fingerprint, x.function_id, (array_agg(x.name order by x.id desc))[1] as name,
                (array_agg(x.message order by x.id desc))[1] as message, count(*)::int as count,
                (array_agg(x.id order by x.id desc))[1] as latest, min(x.ended_at) as first_at, max(x.ended_at) as last_at,
                (array_agg(x.function_version order by x.id desc))[1] as version
              from failed x where $3::text is null or x.fingerprint = $3 group by 1, 2
            )
            select g.*, d.bars, d.numbers, coalesce(f.name, '') as function_name, coalesce(f.slug, '') as function_slug,
              m.muted_by, m.muted_at, m.reason, (select count(*) from failed) as looked
            from grouped g join drawn d using (fingerprint)
            left join functions f on f.id = g.function_id and f.environment_id = $1
            left join error_mutes m on m.environment_id = $1 and m.fingerprint = g.fingerprint
            order by g.count desc, g.last_at desc""",
        environment_id,
        function_id,
        fingerprint,
    )
    now = await connection.fetchval("select clock()")
    groups = [_group(r) for r in records]
    wanted = groups if fingerprint is not None else [g for g in groups if (g.muted is not None) == is_muted]
    return ErrorList(
        groups=tuple(wanted[:MOST_GROUPS]),
        is_cut=bool(records) and records[0]["looked"] > LOOKED_AT,
        muted=sum(g.muted is not None for g in groups),
        now=now,
    )


async def runs_of_error(
    connection: Connection, environment_id: EnvironmentId, function_id: FunctionId | None, fingerprint: str
) -> tuple[tuple[str, datetime, str], ...]:
    """The newest runs of a group: id, end and message."""
    records = await connection.fetch(
        f"select x.id, x.ended_at, x.message from ({_FAILED}) x where x.fingerprint = $3 order by x.id desc limit {LAST_RUNS}",
        environment_id,
        function_id,
        fingerprint,
    )
    return tuple((to_ulid(r["id"]), r["ended_at"], r["message"]) for r in records)


def _group(r: Any) -> ErrorGroup:
    bars = [(0, 0)] * BARS
    for bar, number in zip(r["bars"], r["numbers"], strict=True):
        bars[bar] = (number, number)
    return ErrorGroup(
        fingerprint=r["fingerprint"],
        name=r["name"],
        message=r["message"],
        function_name=r["function_name"],
        function_slug=r["function_slug"],
        function_handle=handle_of(r["function_slug"], r["function_id"]),
        count=r["count"],
        latest=to_ulid(r["latest"]),
        first_at=r["first_at"],
        last_at=r["last_at"],
        version=r["version"],
        bars=tuple(bars),
        muted=None if r["muted_at"] is None else Muted(r["muted_by"], r["muted_at"], r["reason"]),
    )
