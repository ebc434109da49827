"""What needs attention in an environment: the failures of late, put together by function and kind of error.

Reads only, inside a tenant transaction (`store.db.tenant`). Looks at the newest `LOOKED_AT` failed runs of the last week,
so the counts say "at least" where those are all recent. What somebody muted is left out.
"""

from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import EnvironmentId, to_ulid
from app.reads.error_groups import FINGERPRINT
from app.store.db import Connection

LOOKED_AT = 500
MOST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed runs of one function with one kind of error; `latest` is the newest of them."""

    function_name: str
    function_slug: str
    error_name: str
    message: str
    count: int
    latest: str
    latest_at: datetime


async def recent_failures(connection: Connection, environment_id: EnvironmentId) -> tuple[Failures, ...]:
    """The most frequent failures of the last week."""
    records = await connection.fetch(
        f"""select coalesce(f.name, '') as function_name, coalesce(f.slug, '') as function_slug, r.error_name,
              count(*) as count, (array_agg(r.id order by r.id desc))[1] as latest, max(r.ended_at) as latest_at,
              (array_agg(r.error_message order by r.id desc))[1] as message
            from (select x.id, x.function_id, coalesce(x.error_name, x.error_code, 'Error') as error_name,
                    left(coalesce(x.error_message, ''), 300) as error_message, x.ended_at
                  from runs x where x.environment_id = $1 and x.status = 'failed'
                    and not exists (select from error_mutes m where m.environment_id = $1
                      and m.fingerprint = {FINGERPRINT.replace("r.", "x.")})
                    and x.id >= ulid_floor(clock() - interval '7 days') order by x.id desc limit {LOOKED_AT}) r
            left join functions f on f.id = r.function_id and f.environment_id = $1
            group by 1, 2, 3 order by count(*) desc, max(r.ended_at) desc limit {MOST_FAILURES}""",
        environment_id,
    )
    return tuple(
        Failures(
            r["function_name"],
            r["function_slug"],
            r["error_name"],
            r["message"] or "",
            r["count"],
            to_ulid(r["latest"]),
            r["latest_at"],
        )
        for r in records
    )
