"""How far an environment is on its way to a first run: what the set-up guide shows."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.ids import EnvironmentId
from app.reads.filters import RunFilter
from app.reads.runs import RunRow, list_runs
from app.store.db import Connection

#: Runs and apps shown; the lists have the rest.
_MOST_RUNS, _MOST_APPS = 3, 5


@dataclass(frozen=True, slots=True)
class App:
    """A synced app. `sdk` is `language:vX.Y.Z` or empty."""

    name: str
    url: str
    sdk: str
    functions: int
    synced_at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """The steps' state. `runs` are those of the asked event, else the newest; `events` names that functions wait for."""

    apps: tuple[App, ...]
    events: tuple[str, ...]
    runs: tuple[RunRow, ...]
    event_at: datetime | None
    now: datetime

    @property
    def has_ended(self) -> bool:
        """Whether a run came to its end: the way is done."""
        return any(run.is_ended for run in self.runs)


async def load_progress(connection: Connection, environment_id: EnvironmentId, event_id: UUID | None) -> Progress:
    """Four queries. Worst case: 200 function configurations are read for the names of their events."""
    apps = await connection.fetch(
        "select a.name, a.url, a.sdk, (select count(*) from functions f where f.app_id = a.id and f.archived_at is null)"
        " as functions, a.synced_at from apps a where a.environment_id = $1 and a.archived_at is null"
        " order by a.synced_at desc nulls last limit $2",
        environment_id,
        _MOST_APPS,
    )
    configs = await connection.fetch(
        "select config from functions where environment_id = $1 and archived_at is null order by created_at limit 200",
        environment_id,
    )
    asked = RunFilter(ids=(event_id,)) if event_id else RunFilter()
    runs = await list_runs(connection, environment_id, asked, before=None, after=None, size=_MOST_RUNS)
    event_at = await connection.fetchval(
        "select received_at from events where environment_id = $1 order by received_at desc limit 1", environment_id
    )
    return Progress(
        tuple(App(*row) for row in apps),
        _event_names([row["config"] for row in configs]),
        runs.rows,
        event_at,
        runs.now,
    )


def _event_names(configs: list[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for text in configs:
        config: Any = json.loads(text)
        for trigger in config.get("triggers") or ():
            name = trigger.get("event") if isinstance(trigger, dict) else None
            if isinstance(name, str) and name and "*" not in name and not name.startswith("inngest/"):
                names[name] = None
    return tuple(names)[:20]
