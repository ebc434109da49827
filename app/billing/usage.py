"""How much an account uses, by the day and environment. Runs and steps come with the minute counters (docs/adr/0014).

Events are counted here: in windows of ten minutes by the time they were received, each once, because the mark of how far
the counting came moves on in the same transaction. A window is counted when it is long over, so that no commit under way
can still add to it.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from app.domain.ids import AccountId, EnvironmentId
from app.store.db import Connection, Pool

WINDOW = timedelta(minutes=10)
#: No transaction that stores events lasts this long: the pools end it after seconds.
SETTLED_AFTER = timedelta(minutes=2)
#: Seconds one window may take; hours of a busy installation in one statement would.
_LONG_S = 60
_LOCK = 0x5745_4C4D
#: Windows counted in one go; what is left waits for the next.
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Day:
    """What one environment did on one day."""

    environment_id: EnvironmentId
    day: date
    runs: int
    steps: int
    events: int

    @property
    def executions(self) -> int:
        """The unit of plans: runs that started and steps that were done."""
        return self.runs + self.steps


@dataclass(frozen=True, slots=True)
class Used:
    """What an account used in a period."""

    runs: int = 0
    steps: int = 0
    events: int = 0

    @property
    def executions(self) -> int:
        """The unit of plans: runs that started and steps that were done."""
        return self.runs + self.steps


async def count_events(pool: Pool, most: int = _AT_ONCE) -> int:
    """Count the events of the windows that are over; returns how many windows. One keeper at a time does this."""
    windows = 0
    while windows < most:
        async with pool.acquire(timeout=10) as connection, connection.transaction():
            if not await _count_window(connection):
                break
        windows += 1
    return windows


async def _count_window(connection: Connection) -> bool:
    if not await connection.fetchval("select pg_try_advisory_xact_lock($1)", _LOCK):
        return False
    since: datetime | None = await connection.fetchval(
        "select until from usage_marks where what = 'events' and until + $1::interval < clock() - $2::interval",
        WINDOW,
        SETTLED_AFTER,
    )
    if since is None:
        return False
    await connection.execute(f"set local statement_timeout = '{_LONG_S}s'")
    # Windows do not cross midnight: ten minutes divide the day.
    await connection.execute(
        """insert into usage_days as d (environment_id, day, account_id, events)
           select v.id, ($1::timestamptz at time zone 'UTC')::date, v.account_id, x.count
           from environments v cross join lateral (
             select count(*) as count from events e where e.environment_id = v.id and e.received_at >= $1
               and e.received_at < $2 and e.source not in ('internal', 'replay', 'cron')) x
           where x.count > 0 order by v.id
           on conflict (environment_id, day) do update set events = d.events + excluded.events""",
        since,
        since + WINDOW,
    )
    await connection.execute("update usage_marks set until = $1 where what = 'events'", since + WINDOW)
    return True


async def days_of(connection: Connection, account_id: AccountId, since: date, until: date) -> list[Day]:
    """What each environment of an account did on the days of [since, until); days without anything are left out."""
    rows = await connection.fetch(
        "select environment_id, day, runs, steps, events from usage_days"
        " where account_id = $1 and day >= $2 and day < $3 order by day, environment_id",
        account_id,
        since,
        until,
    )
    return [Day(EnvironmentId(r["environment_id"]), r["day"], r["runs"], r["steps"], r["events"]) for r in rows]


async def months_of(connection: Connection, account_id: AccountId, months: int = 12) -> list[tuple[date, Used]]:
    """What an account used in each of its last calendar months, the newest first; months without anything are left out."""
    rows = await connection.fetch(
        "select date_trunc('month', day)::date as month, sum(runs)::bigint as runs, sum(steps)::bigint as steps,"
        " sum(events)::bigint as events from usage_days where account_id = $1 group by 1 order by 1 desc limit $2",
        account_id,
        months,
    )
    return [(r["month"], Used(r["runs"], r["steps"], r["events"])) for r in rows]


async def counted_until(connection: Connection) -> datetime:
    """Until when events are counted; runs are counted at least as far."""
    until: datetime = await connection.fetchval("select until from usage_marks where what = 'events'")
    return until


async def used_between(connection: Connection, account_id: UUID, since: date, until: date) -> Used:
    """What an account used on the days of [since, until)."""
    row = await connection.fetchrow(
        "select coalesce(sum(runs), 0)::bigint as runs, coalesce(sum(steps), 0)::bigint as steps,"
        " coalesce(sum(events), 0)::bigint as events from usage_days where account_id = $1 and day >= $2 and day < $3",
        account_id,
        since,
        until,
    )
    return Used(row["runs"], row["steps"], row["events"])
