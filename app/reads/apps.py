"""Apps and their syncs as people look at them.

Reads only, inside a tenant transaction (`store.db.tenant`); at most three statements a page, none per row.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.ids import AppId, EnvironmentId
from app.reads.handles import handle_of, id_in
from app.store.db import Connection

MOST_APPS = 500
MOST_UNATTACHED = 20
MOST_SYNCS = 50
MOST_HELD = 1_000

_SYNC = (
    "s.id, s.url, s.kind, s.status, s.sdk, s.framework, s.added, s.changed, s.removed, s.error_code, s.error,"
    " s.fix, s.started_at, s.ended_at"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sync failed and what to do about it."""

    code: str
    message: str
    fix: str
    url: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AppRow:
    """One card. `state`: synced, failed or archived; `failure` is that of the last sync when it failed."""

    id: AppId
    handle: str
    name: str
    url: str
    sdk: str
    framework: str
    state: str
    functions: int
    synced_at: datetime | None
    created_at: datetime
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync. `status`: pending, succeeded, unchanged or failed."""

    id: UUID
    url: str
    kind: str
    status: str
    sdk: str
    framework: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    failure: Failure | None
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class AppList:
    """The cards, and the failed syncs that belong to no app."""

    apps: tuple[AppRow, ...]
    unattached: tuple[Sync, ...]
    now: datetime


@dataclass(frozen=True, slots=True)
class SyncPage:
    """One sync; `app_name` and `app_handle` are empty when it belongs to no app. `functions`: slug → handle."""

    sync: Sync
    app_name: str
    app_handle: str
    functions: dict[str, str]
    now: datetime


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Calls that wait because the app did not answer. `count` stops at `MOST_HELD`; `next_at` is the next try."""

    count: int
    since: datetime
    next_at: datetime


_APP = """
select a.id, a.name, a.url, a.sdk, a.framework, a.error_code, a.error, a.synced_at, a.created_at, a.archived_at,
  (select count(*) from functions f where f.app_id = a.id and f.environment_id = $1 and f.archived_at is null) as functions,
  l.url as failed_url, l.started_at as failed_at, l.error_code as failed_code, l.error as failed_error, l.fix as failed_fix
from apps a left join lateral (
  select s.url, s.started_at, s.error_code, s.error, s.status, s.fix from syncs s
  where s.app_id = a.id and s.environment_id = $1 order by s.started_at desc limit 1) l on l.status = 'failed'
where a.environment_id = $1
"""


async def list_apps(connection: Connection, environment_id: EnvironmentId, *, is_archived: bool = False) -> AppList:
    """All apps of an environment, those whose sync failed first; archived ones apart."""
    now: datetime = await connection.fetchval("select clock()")
    records = await connection.fetch(
        f"{_APP} and (a.archived_at is not null) = $2 order by a.error_code is null, a.name limit {MOST_APPS}",
        environment_id,
        is_archived,
    )
    unattached = await connection.fetch(
        f"select {_SYNC} from syncs s where s.environment_id = $1 and s.app_id is null and s.status = 'failed'"
        f" order by s.started_at desc limit {MOST_UNATTACHED}",
        environment_id,
    )
    return AppList(
        tuple(_app(record) for record in records),
        () if is_archived else tuple(_sync(record) for record in unattached),
        now,
    )


async def find_app(connection: Connection, environment_id: EnvironmentId, handle: str) -> AppRow | None:
    """One app by its handle; None when the environment has none of that name."""
    record = await connection.fetchrow(
        f"{_APP} and (a.name = $2 or a.id = $3) order by a.name = $2 desc limit 1",
        environment_id,
        handle.replace("\x00", ""),
        id_in(handle),
    )
    return None if record is None else _app(record)


async def held_back(connection: Connection, environment_id: EnvironmentId, app_id: AppId) -> HeldBack | None:
    """What waits for an app that does not answer; None when nothing does. Items of paused functions are not meant."""
    record = await connection.fetchrow(
        "select count(*)::int as count, min(x.held_due) as since, greatest(min(x.due_at), clock()) as next_at from ("
        "select i.held_due, i.due_at from functions f join items i on i.function_id = f.id"
        " where f.environment_id = $1 and f.app_id = $2 and i.environment_id = $1 and i.held_due is not null"
        f" and i.lease_id is null and i.due_at < clock() + interval '1 day' limit {MOST_HELD}) x",
        environment_id,
        app_id,
    )
    return HeldBack(**record) if record["count"] else None


async def syncs_of_app(connection: Connection, environment_id: EnvironmentId, app_id: AppId) -> tuple[Sync, ...]:
    """The last syncs of an app, newest first."""
    records = await connection.fetch(
        f"select {_SYNC} from syncs s where s.environment_id = $1 and s.app_id = $2"
        f" order by s.started_at desc limit {MOST_SYNCS}",
        environment_id,
        app_id,
    )
    return tuple(_sync(record) for record in records)


async def recent_syncs(
    connection: Connection, environment_id: EnvironmentId, limit: int = 5
) -> tuple[tuple[Sync, str, str], ...]:
    """The last syncs that changed something or failed, each with its app's name and handle (empty: none)."""
    records = await connection.fetch(
        f"select {_SYNC}, coalesce(a.name, '') as app_name, a.id as app_id from syncs s left join apps a on a.id = s.app_id"
        " where s.environment_id = $1 and s.status in ('succeeded', 'failed') order by s.started_at desc limit $2",
        environment_id,
        limit,
    )
    return tuple(
        (_sync(r), r["app_name"], "" if r["app_id"] is None else handle_of(r["app_name"], r["app_id"])) for r in records
    )


async def find_sync(connection: Connection, environment_id: EnvironmentId, sync_id: UUID) -> SyncPage | None:
    """One sync with the functions it names, as far as they still exist."""
    record = await connection.fetchrow(
        f"select {_SYNC}, coalesce(a.name, '') as app_name, a.id as app_id, clock() as now from syncs s"
        " left join apps a on a.id = s.app_id and a.environment_id = s.environment_id"
        " where s.environment_id = $1 and s.id = $2",
        environment_id,
        sync_id,
    )
    if record is None:
        return None
    sync = _sync(record)
    functions = await connection.fetch(
        "select f.slug, f.id from functions f where f.environment_id = $1 and f.slug = any($2)",
        environment_id,
        [*sync.added, *sync.changed, *sync.removed],
    )
    return SyncPage(
        sync,
        record["app_name"],
        "" if record["app_id"] is None else handle_of(record["app_name"], record["app_id"]),
        {f["slug"]: handle_of(f["slug"], f["id"]) for f in functions},
        record["now"],
    )


async def sync_since(connection: Connection, environment_id: EnvironmentId, since: datetime) -> UUID | None:
    """The newest sync of an environment since a moment: what an attempt of another process came to."""
    found: UUID | None = await connection.fetchval(
        "select s.id from syncs s where s.environment_id = $1 and s.started_at >= $2 order by s.started_at desc limit 1",
        environment_id,
        since,
    )
    return found


async def event_key_hashes(connection: Connection, environment_id: EnvironmentId) -> frozenset[str]:
    """What SDKs show of the event keys that work: SHA-256 as hex."""
    records = await connection.fetch(
        "select encode(k.secret_hash, 'hex') as hash from event_keys k where k.environment_id = $1 and k.revoked_at is null"
        " limit 1000",
        environment_id,
    )
    return frozenset(record["hash"] for record in records)


def _app(r: Any) -> AppRow:
    failure = None
    if r["failed_at"] is not None:
        failure = Failure(
            r["failed_code"] or "", r["failed_error"] or "", r["failed_fix"] or "", r["failed_url"], r["failed_at"]
        )  # fmt: skip
    is_failed = failure is not None or r["error_code"] is not None
    return AppRow(
        id=AppId(r["id"]),
        handle=handle_of(r["name"], r["id"]),
        name=r["name"],
        url=r["url"],
        sdk=r["sdk"],
        framework=r["framework"],
        state="archived" if r["archived_at"] is not None else "failed" if is_failed else "synced",
        functions=r["functions"],
        synced_at=r["synced_at"],
        created_at=r["created_at"],
        failure=failure,
    )


def _sync(r: Any) -> Sync:
    failure = None
    if r["status"] == "failed":
        failure = Failure(r["error_code"] or "", r["error"] or "", r["fix"] or "", r["url"], r["started_at"])
    return Sync(
        id=r["id"],
        url=r["url"],
        kind=r["kind"],
        status=r["status"],
        sdk=r["sdk"],
        framework=r["framework"],
        added=tuple(r["added"]),
        changed=tuple(r["changed"]),
        removed=tuple(r["removed"]),
        failure=failure,
        started_at=r["started_at"],
        ended_at=r["ended_at"],
    )
