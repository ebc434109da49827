"""Functions as people look at them: the list, and one function with its settings, runs and versions.

Reads only, inside a tenant transaction (`store.db.tenant`); at most five statements a page, none per row. The list goes by
slug, 500 a page; the last run of each is one look into the index by function.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.domain.ids import EnvironmentId, FunctionId, to_ulid
from app.domain.protocol.function_config import FunctionConfig
from app.reads.filters import Choice, RunFilter
from app.reads.handles import handle_of, id_in
from app.reads.run_state import display_state
from app.reads.runs import RunRow, list_runs
from app.reads.settings_of import TriggerLine, read_config, triggers_of
from app.reads.usage import Count, count_tabs
from app.store.db import Connection

SIZE = 500
#: States as the filter offers them; without one, everything that is not archived.
STATES = ("active", "paused", "archived")
MOST_VERSIONS = 20
LAST_RUNS = 10
#: Counting of what came in while a function is paused stops here.
MOST_MISSED = 1_000

_STATE = (
    "case when f.archived_at is not null or a.archived_at is not null then 'archived'"
    " when f.paused_at is not null then 'paused' else 'active' end"
)


@dataclass(frozen=True, slots=True)
class FunctionFilter:
    """What the address asks for. `app` is an app's name, `q` a part of a name or slug."""

    q: str = ""
    app: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """One line. `last_state` is the state of the newest run."""

    id: UUID
    handle: str
    slug: str
    name: str
    app_name: str
    app_handle: str
    state: str
    version: int
    triggers: tuple[TriggerLine, ...]
    last_ulid: str | None
    last_state: str | None
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class FunctionList:
    """One page. `next` is the slug after which the next page begins, or None; `apps` are the names to filter by."""

    rows: tuple[FunctionRow, ...]
    next: str | None
    apps: tuple[str, ...]
    now: datetime


@dataclass(frozen=True, slots=True)
class Paused:
    """Since when, by whom and why; `missed` are the events that arrived since."""

    at: datetime
    by: str
    reason: str
    missed: Count


@dataclass(frozen=True, slots=True)
class Version:
    """A state of the settings. `until` is None for the one in force."""

    number: int
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class FunctionPage:
    """One function. `config` is None when its stored settings cannot be read."""

    id: FunctionId
    handle: str
    slug: str
    name: str
    app_name: str
    app_handle: str
    url: str
    sdk: str
    state: str
    version: int
    created_at: datetime
    updated_at: datetime
    config: FunctionConfig | None
    triggers: tuple[TriggerLine, ...]
    paused: Paused | None
    versions: tuple[Version, ...]
    now: datetime

    @property
    def can_be_started(self) -> bool:
        """Whether an invoke starts a run now."""
        return self.state == "active"


async def list_functions(
    connection: Connection, environment_id: EnvironmentId, wanted: FunctionFilter, *, after: str = ""
) -> FunctionList:
    """A page of functions by slug; `after` is the last slug of the page before."""
    arguments: list[Any] = [environment_id, after]
    conditions = ["f.environment_id = $1", "f.slug > $2"]
    conditions.append(f"{_STATE} = '{wanted.state}'" if wanted.state in STATES else f"{_STATE} <> 'archived'")
    for text, condition in (
        (wanted.app, "a.name = ?"),
        (wanted.q, "(strpos(lower(f.name), lower(?)) > 0 or strpos(lower(f.slug), lower(?)) > 0)"),
    ):
        if text:
            arguments.append(text)
            conditions.append(condition.replace("?", f"${len(arguments)}"))
    records = await connection.fetch(
        f"""select f.id, f.slug, f.name, f.version, f.config, {_STATE} as state, a.name as app_name, a.id as app_id,
              r.id as run_id, {display_state("r")} as run_status, r.queued_at as run_at, clock() as now
            from (select f.* from functions f join apps a on a.id = f.app_id and a.environment_id = f.environment_id
                  where {" and ".join(conditions)} order by f.slug limit {SIZE + 1}) f
            join apps a on a.id = f.app_id and a.environment_id = f.environment_id
            left join lateral (select x.id, x.status, x.queued_at from runs x
              where x.environment_id = $1 and x.function_id = f.id order by x.id desc limit 1) r on true
            order by f.slug""",
        *arguments,
    )
    apps = await connection.fetch(
        "select a.name from apps a where a.environment_id = $1 order by a.archived_at is not null, a.name limit 200",
        environment_id,
    )
    now = records[0]["now"] if records else await connection.fetchval("select clock()")
    rows = tuple(_row(record) for record in records[:SIZE])
    return FunctionList(rows, rows[-1].slug if len(records) > SIZE else None, tuple(app["name"] for app in apps), now)


async def functions_of_app(
    connection: Connection, environment_id: EnvironmentId, app_id: UUID
) -> tuple[FunctionRow, ...]:
    """The functions of an app, those that are archived last."""
    records = await connection.fetch(
        f"""select f.id, f.slug, f.name, f.version, f.config, {_STATE} as state, a.name as app_name, a.id as app_id,
              r.id as run_id, {display_state("r")} as run_status, r.queued_at as run_at
            from functions f join apps a on a.id = f.app_id and a.environment_id = f.environment_id
            left join lateral (select x.id, x.status, x.queued_at from runs x
              where x.environment_id = $1 and x.function_id = f.id order by x.id desc limit 1) r on true
            where f.environment_id = $1 and f.app_id = $2
            order by f.archived_at is not null, f.slug limit {SIZE}""",
        environment_id,
        app_id,
    )
    return tuple(_row(record) for record in records)


async def find_function(connection: Connection, environment_id: EnvironmentId, handle: str) -> FunctionPage | None:
    """One function by its handle; None when the environment has none of that name."""
    row = await connection.fetchrow(
        f"""select f.id, f.slug, f.name, f.version, f.url, f.config, f.created_at, f.updated_at, f.paused_at,
              {_STATE} as state, a.name as app_name, a.id as app_id, a.sdk, clock() as now
            from functions f join apps a on a.id = f.app_id and a.environment_id = f.environment_id
            where f.environment_id = $1 and (f.slug = $2 or f.id = $3) order by f.slug = $2 desc limit 1""",
        environment_id,
        handle.replace("\x00", ""),
        id_in(handle),
    )
    if row is None:
        return None
    versions = await connection.fetch(
        "select v.version, v.valid_from, v.valid_to from function_versions v where v.function_id = $1"
        f" order by v.version desc limit {MOST_VERSIONS}",
        row["id"],
    )
    config = read_config(row["config"])
    return FunctionPage(
        id=FunctionId(row["id"]),
        handle=handle_of(row["slug"], row["id"]),
        slug=row["slug"],
        name=row["name"],
        app_name=row["app_name"],
        app_handle=handle_of(row["app_name"], row["app_id"]),
        url=row["url"],
        sdk=row["sdk"],
        state=row["state"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        config=config,
        triggers=triggers_of(config, row["now"] if row["state"] == "active" else None),
        paused=None if row["paused_at"] is None else await _paused(connection, environment_id, row),
        versions=tuple(Version(v["version"], v["valid_from"], v["valid_to"]) for v in versions),
        now=row["now"],
    )


async def runs_of_function(
    connection: Connection, environment_id: EnvironmentId, slug: str
) -> tuple[Sequence[RunRow], dict[str, Count]]:
    """The last runs of a function and how many there are of each status."""
    wanted = RunFilter(functions=Choice((slug,)))
    runs = await list_runs(connection, environment_id, wanted, size=LAST_RUNS)
    return runs.rows, await count_tabs(connection, environment_id, wanted, runs.now)


async def _paused(connection: Connection, environment_id: EnvironmentId, row: Any) -> Paused:
    """Who paused it, from the audit log, and the events that came in since and were turned away."""
    found = await connection.fetchrow(
        f"""select (select l.actor from audit_log l where l.account_id = current_account() and l.environment_id = $1
                 and l.action = 'function.paused' and l.object = $3 order by l.at desc limit 1) as actor,
              (select l.detail from audit_log l where l.account_id = current_account() and l.environment_id = $1
                 and l.action = 'function.paused' and l.object = $3 order by l.at desc limit 1) as detail,
              (select count(*) from (select 1 from dispositions d where d.environment_id = $1 and d.function_id = $2
                 and d.event_id >= ulid_floor($4) and d.outcome = 'paused' limit {MOST_MISSED + 1}) x) as missed""",
        environment_id,
        row["id"],
        row["slug"],
        row["paused_at"],
    )
    return Paused(
        at=row["paused_at"],
        by=found["actor"] or "",
        reason=_reason(found["detail"]),
        missed=Count(min(found["missed"], MOST_MISSED), found["missed"] > MOST_MISSED),
    )


def _row(record: Any) -> FunctionRow:
    return FunctionRow(
        id=record["id"],
        handle=handle_of(record["slug"], record["id"]),
        slug=record["slug"],
        name=record["name"],
        app_name=record["app_name"],
        app_handle=handle_of(record["app_name"], record["app_id"]),
        state=record["state"],
        version=record["version"],
        triggers=triggers_of(read_config(record["config"])),
        last_ulid=None if record["run_id"] is None else to_ulid(record["run_id"]),
        last_state=record["run_status"],
        last_at=record["run_at"],
    )


def _reason(detail: str | None) -> str:
    """The reason somebody gave, from the detail of an audit entry."""
    if not detail:
        return ""
    try:
        found = msgspec.json.decode(detail.encode(), type=dict[str, object])
    except msgspec.MsgspecError:
        return ""
    reason = found.get("reason")
    return reason if isinstance(reason, str) else ""
