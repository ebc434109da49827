"""Finds things by an id or by a part of their name, in every environment of an organization.

Reads only, inside a tenant transaction (`store.db.tenant`). One statement for an id, one for names; each kind gives at
most `MOST` hits, those of the environment somebody stands in first.
"""

from dataclasses import dataclass
from uuid import UUID

from app.domain.ids import AccountId, EnvironmentId, to_ulid
from app.reads.handles import handle_of
from app.store.db import Connection

MOST = 6
#: Names of events are looked for among the newest of the environment.
_RECENT_EVENTS = 5_000


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing: `kind` is run, event, function, app or event name; `place` its environment's slug, `handle` its address."""

    kind: str
    words: str
    about: str
    place: str
    environment: str
    handle: str


async def find_id(connection: Connection, account_id: AccountId, wanted: UUID) -> Hit | None:
    """The run or the event of this id, in whatever environment; a run before an event."""
    row = await connection.fetchrow(
        """select 'run' as kind, coalesce(f.name, '') as words, r.status as about, e.slug, e.name, 0 as place
           from runs r join environments e on e.id = r.environment_id and e.account_id = $1
           left join functions f on f.id = r.function_id where r.id = $2
           union all
           select 'event', v.name, v.source, e.slug, e.name, 1
           from environments e join events v on v.environment_id = e.id and v.id = $2 where e.account_id = $1
           order by place limit 1""",
        account_id,
        wanted,
    )
    if row is None:
        return None
    return Hit(row["kind"], row["words"] or to_ulid(wanted), row["about"], row["slug"], row["name"], to_ulid(wanted))


async def find_names(
    connection: Connection, account_id: AccountId, environment_id: EnvironmentId, words: str
) -> tuple[Hit, ...]:
    """Functions, apps and names of events that contain the words, letter case aside."""
    rows = await connection.fetch(
        f"""(select 'function' as kind, f.name as words, a.name as about, e.slug, e.name as environment, f.slug as of, f.id
             from functions f join apps a on a.id = f.app_id join environments e on e.id = f.environment_id
             where e.account_id = $1 and f.archived_at is null and e.archived_at is null
               and (strpos(lower(f.name), $3) > 0 or strpos(lower(f.slug), $3) > 0)
             order by e.id <> $2, strpos(lower(f.name), $3), f.slug limit {MOST})
           union all
           (select 'app', a.name, a.url, e.slug, e.name, a.name, a.id
             from apps a join environments e on e.id = a.environment_id
             where e.account_id = $1 and a.archived_at is null and e.archived_at is null and strpos(lower(a.name), $3) > 0
             order by e.id <> $2, a.name limit {MOST})
           union all
           (select 'event name', v.name, 'the newest', e.slug, e.name, v.name, null
             from (select distinct n.name from (select name from events where environment_id = $2
               order by received_at desc limit {_RECENT_EVENTS}) n where strpos(lower(n.name), $3) > 0) v
             join environments e on e.id = $2 and e.account_id = $1 order by v.name limit {MOST})""",
        account_id,
        environment_id,
        words.lower(),
    )
    return tuple(
        Hit(
            r["kind"],
            r["words"],
            r["about"],
            r["slug"],
            r["environment"],
            r["of"] if r["id"] is None else handle_of(r["of"], r["id"]),
        )
        for r in rows
    )
