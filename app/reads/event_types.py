"""The names that events come with: how many lately, since when, and which functions listen.

Counts look at the newest `LOOKED_AT` events, so the cost does not grow with the environment. Two statements.
"""

from dataclasses import dataclass
from datetime import datetime

from app.domain.ids import EnvironmentId
from app.reads.handles import handle_of
from app.reads.settings_of import read_config, triggers_of
from app.store.db import Connection

LOOKED_AT = 20_000
MOST_NAMES = 500
_MOST_FUNCTIONS = 500


@dataclass(frozen=True, slots=True)
class EventType:
    """One name. `count` is 0 and the times are None for a name that functions wait for and nobody has sent lately."""

    name: str
    count: int
    first_at: datetime | None
    last_at: datetime | None
    functions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EventTypes:
    """`is_cut`: there are older events that were not looked at."""

    types: tuple[EventType, ...]
    is_cut: bool
    now: datetime


async def list_event_types(connection: Connection, environment_id: EnvironmentId) -> EventTypes:
    """Names by when they came last; then those that only functions know. Internal events are left out."""
    records = await connection.fetch(
        f"""with newest as materialized (select e.name, e.received_at from events e where e.environment_id = $1
              order by e.received_at desc limit {LOOKED_AT + 1})
            select n.name, count(*)::int as count, min(n.received_at) as first_at, max(n.received_at) as last_at,
              (select count(*) from newest) as looked
            from newest n where lower(left(n.name, 8)) <> 'inngest/' group by n.name
            order by max(n.received_at) desc limit {MOST_NAMES}""",
        environment_id,
    )
    functions = await connection.fetch(
        "select f.id, f.slug, f.name, f.config, clock() as now from functions f"
        f" where f.environment_id = $1 and f.archived_at is null order by f.slug limit {_MOST_FUNCTIONS}",
        environment_id,
    )
    listening = [
        (trigger.text, f["name"], handle_of(f["slug"], f["id"]))
        for f in functions
        for trigger in triggers_of(read_config(f["config"]))
        if trigger.kind == "event"
    ]
    types = [EventType(r["name"], r["count"], r["first_at"], r["last_at"], _of(listening, r["name"])) for r in records]
    seen = {one.name for one in types}
    waited_for = sorted({text for text, _, _ in listening if text not in seen and not text.endswith("*")})
    types += [EventType(name, 0, None, None, _of(listening, name)) for name in waited_for[:MOST_NAMES]]
    return EventTypes(
        types=tuple(types),
        is_cut=bool(records) and records[0]["looked"] > LOOKED_AT,
        now=functions[0]["now"] if functions else await connection.fetchval("select clock()"),
    )


def _of(listening: list[tuple[str, str, str]], name: str) -> tuple[tuple[str, str], ...]:
    """Name and handle of the functions whose trigger the name fits."""
    fitting = {
        handle: words
        for text, words, handle in listening
        if text == name or (text.endswith("*") and name.startswith(text[:-1]))
    }
    return tuple((words, handle) for handle, words in fitting.items())
