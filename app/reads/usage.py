"""How many runs, when, and what became of them: tab counts and the histogram, from the minute counters (D16).

Counted runs that have not ended are the difference between those made and those ended; which of them are queued and
which have a call ahead is asked of the newest `MOST_COUNTED` open runs. Two statements a page, never one per bucket.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.ids import EnvironmentId
from app.reads.filters import STATUSES, RunFilter, Where, add_code, floor_id, where
from app.store.db import Connection

#: Counts of single runs stop here and say so ("10,000+"): an exact count of a million costs what nobody waits for.
MOST_COUNTED = 10_000
#: Bars of the histogram; fewer when the range has fewer minutes.
BUCKETS = 72


@dataclass(frozen=True, slots=True)
class Count:
    """How many; `is_cut` when counting stopped there."""

    value: int
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Bucket:
    """Runs made in [since, until): how many have completed, failed, were cancelled, or are still open."""

    since: datetime
    until: datetime
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    open: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.completed + self.failed + self.cancelled + self.open


async def count_tabs(
    connection: Connection, environment_id: EnvironmentId, wanted: RunFilter, now: datetime
) -> dict[str, Count]:
    """How many runs each tab would list under the other filters; one statement."""
    everyone = wanted.without_status()
    if not everyone.is_counted:
        return await _count_rows(connection, environment_id, everyone, now)
    span = everyone.span(now)
    assert span is not None
    counters = Where(environment_id)
    add_code(counters, everyone)
    counters.add("r.minute >= ?", span[0])
    counters.add("r.minute < ?", span[1])
    # The same conditions for runs, on the numbers the arguments already have.
    n = len(counters.arguments)
    rows = [c for c in counters.conditions if "r.minute" not in c]
    rows += [f"r.id >= ${n + 1}", f"r.id < ${n + 2}"]
    rows_text = " and ".join(rows)
    record = await connection.fetchrow(
        f"""with counted as (
              select coalesce(sum(r.made), 0) as made, coalesce(sum(r.completed), 0) as completed,
                coalesce(sum(r.failed), 0) as failed, coalesce(sum(r.cancelled), 0) as cancelled
              from usage_minutes r where {counters}
            ), queued as (
              select count(*) as number from (select 1 from runs r where {rows_text} and r.status = 'queued'
                limit {MOST_COUNTED + 1}) x
            ), open as (
              select count(*) as number, count(*) filter (where {STATUSES["running"]}) as running
              from (select r.id, r.status from runs r where {rows_text} and r.status = 'running'
                order by r.id desc limit {MOST_COUNTED + 1}) r
            )
            select c.*, q.number as queued, o.number as open, o.running from counted c, queued q, open o""",
        *counters.arguments,
        floor_id(span[0]),
        floor_id(span[1]),
    )
    made, ended = record["made"], record["completed"] + record["failed"] + record["cancelled"]
    is_cut = record["open"] > MOST_COUNTED
    queued = Count(record["queued"])
    if record["queued"] > MOST_COUNTED:
        queued = Count(max(0, made - ended - record["open"]), is_cut)
    waiting = max(0, made - ended - queued.value - record["running"]) if is_cut else record["open"] - record["running"]
    return {
        "all": Count(made),
        "running": Count(record["running"], is_cut),
        "queued": queued,
        "waiting": Count(waiting),
        "failed": Count(record["failed"]),
        "completed": Count(record["completed"]),
        "cancelled": Count(record["cancelled"]),
    }


async def count_values(
    connection: Connection, environment_id: EnvironmentId, wanted: RunFilter, now: datetime
) -> dict[str, list[tuple[str, int | None]]]:
    """Values of the fields `fn` and `app` to filter by, each with its number of runs in the range; most runs first.

    At most 500 of each. The number is None where the range has no counters. Names with hidden characters are left out:
    nobody can choose them by reading.
    """
    span = wanted.span(now)
    records = await connection.fetch(
        """with counted as (
             select u.function_id, sum(u.made) as made from usage_minutes u
             where environment_id = $1 and minute >= $2 and minute < $3 group by 1
           ), named as (
             select f.slug, a.name, coalesce(c.made, 0) as made from functions f
             left join apps a on a.id = f.app_id and a.environment_id = f.environment_id
             left join counted c on c.function_id = f.id
             where f.environment_id = $1 and f.archived_at is null
           )
           (select 'fn' as field, slug as value, made from named order by made desc, slug limit 500)
           union all
           (select 'app', name, sum(made) from named where name is not null group by name order by 3 desc, 2 limit 500)""",
        environment_id,
        *(span or (now, now)),
    )
    out: dict[str, list[tuple[str, int | None]]] = {"fn": [], "app": []}
    for r in records:
        if r["value"].isprintable():
            out[r["field"]].append((r["value"], None if span is None else int(r["made"])))
    return out


async def _count_rows(
    connection: Connection, environment_id: EnvironmentId, wanted: RunFilter, now: datetime
) -> dict[str, Count]:
    """Each count stops at `MOST_COUNTED`."""
    conditions = where(environment_id, wanted, now)
    if wanted.is_few:
        parts = [f"count(*) filter (where {condition})" for condition in STATUSES.values()]
        found = f"(select r.id, r.status from runs r where {conditions} limit {MOST_COUNTED + 1}) r"
        record = await connection.fetchrow(f"select {', '.join(parts)} from {found}", *conditions.arguments)
        is_cut = sum(record) > MOST_COUNTED
        return {s: Count(n, is_cut) for s, n in zip(STATUSES, record, strict=True)} | {
            "all": Count(min(sum(record), MOST_COUNTED), is_cut)
        }
    parts = [
        f"(select count(*) from (select 1 from runs r where {conditions} and {condition} limit {MOST_COUNTED + 1}) x)"
        for condition in STATUSES.values()
    ]
    record = await connection.fetchrow("select " + ", ".join(parts), *conditions.arguments)
    counts = {
        status: Count(min(number, MOST_COUNTED), number > MOST_COUNTED)
        for status, number in zip(STATUSES, record, strict=True)
    }
    everything = Count(sum(c.value for c in counts.values()), any(c.is_cut for c in counts.values()))
    return {"all": everything} | counts


async def histogram(
    connection: Connection, environment_id: EnvironmentId, wanted: RunFilter, now: datetime
) -> tuple[Bucket, ...]:
    """At most `BUCKETS` buckets over the range; none when the counters cannot answer, or there is no range."""
    span = wanted.span(now)
    if span is None or not wanted.is_counted:
        return ()
    since, until = span
    minutes = max(1, round((until - since) / timedelta(minutes=1)))
    each = -(-minutes // BUCKETS)
    # Whole minutes a bucket; the first begins early rather than the last ending late.
    number = -(-minutes // each)
    first = until - timedelta(minutes=each * number)
    conditions = Where(environment_id)
    add_code(conditions, wanted)
    conditions.add("r.minute >= ?", since)
    conditions.add("r.minute < ?", until)
    n = len(conditions.arguments)
    records = await connection.fetch(
        f"""select floor(extract(epoch from r.minute - ${n + 1}) / ${n + 2})::int as place, sum(r.made) as made,
              sum(r.completed) as completed, sum(r.failed) as failed, sum(r.cancelled) as cancelled
            from usage_minutes r where {conditions} group by 1""",
        *conditions.arguments,
        first,
        each * 60,
    )
    found = {r["place"]: r for r in records}
    out = []
    for place in range(number):
        start = first + timedelta(minutes=each * place)
        end = start + timedelta(minutes=each)
        r = found.get(place)
        if r is None:
            out.append(Bucket(start, end))
            continue
        still = max(0, r["made"] - r["completed"] - r["failed"] - r["cancelled"])
        out.append(Bucket(start, end, r["completed"], r["failed"], r["cancelled"], still))
    return tuple(out)
