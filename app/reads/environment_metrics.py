"""What became of an environment's runs today, function by function, for a Prometheus of its own (protocol 16.3).

Numbers come from the minute counters, so that asking costs the same however many runs there are. A day in UTC is a label: its counters
begin at 0 and never fall.
"""

from collections.abc import Iterable

from app.domain.scope import Scope
from app.store.db import Connection
from app.telemetry import label_text

_TODAY = """
with today as (select date_trunc('day', clock() at time zone 'UTC') at time zone 'UTC' as began)
select f.slug, to_char(t.began at time zone 'UTC', 'YYYY-MM-DD') as day, coalesce(sum(u.made), 0)::bigint as made,
  coalesce(sum(u.completed), 0)::bigint as completed, coalesce(sum(u.failed), 0)::bigint as failed,
  coalesce(sum(u.cancelled), 0)::bigint as cancelled
from today t join functions f on f.environment_id = $1 and f.archived_at is null
left join usage_minutes u on u.environment_id = f.environment_id and u.function_id = f.id and u.minute >= t.began
group by 1, 2 order by 1 limit 5000
"""
_NAME = "stepwell_function_runs_{}_total"
_ENDS = ("completed", "failed", "cancelled")


async def is_of_scope(connection: Connection, scope: Scope, named: str) -> bool:
    """Whether this is the id, the slug or the name of the scope's own environment."""
    return bool(
        await connection.fetchval(
            "select exists (select from environments e where e.id = $1 and $2 in (e.id::text, e.slug, e.name))",
            scope.environment_id,
            named,
        )
    )


async def metrics_of_environment(connection: Connection, scope: Scope) -> str:
    """The counters of the scope's environment in the text form of Prometheus."""
    rows = await connection.fetch(_TODAY, scope.environment_id)
    made = [({"fn": row["slug"], "date": row["day"]}, row["made"]) for row in rows]
    ended = [({"fn": row["slug"], "status": end, "date": row["day"]}, row[end]) for row in rows for end in _ENDS]
    how = "Runs that ended today, by function and how; skipped ones count as cancelled."
    return "".join([*_lines("made", "Runs made today, by function.", made), *_lines("ended", how, ended)])


def _lines(what: str, explained: str, values: Iterable[tuple[dict[str, str], int]]) -> Iterable[str]:
    name = _NAME.format(what)
    yield f"# HELP {name} {explained}\n# TYPE {name} counter\n"
    for given, value in values:
        yield f"{name}{label_text(given)} {value}\n"
