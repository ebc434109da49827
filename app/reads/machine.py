"""What SDKs and programs ask about runs and events, in the words of the protocol (16.2, 16.3, 10.6).

All of them take a connection of one tenant (`store.db.tenant`) and the scope, and never write.
"""

from datetime import datetime
from typing import Any

import msgspec

from app.domain.ids import EventId, RunId, to_ulid
from app.domain.scope import Scope
from app.store.db import Connection

#: Our words and the protocol's (16.3, "Run status").
STATUS_WORDS = {
    "queued": "Scheduled",
    "running": "Running",
    "completed": "Completed",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "skipped": "Skipped",
}
_RUN = """
select r.id, r.function_id, r.function_version, r.environment_id, r.event_id, r.original_run_id, r.cron, r.status,
  r.queued_at, r.started_at, r.ended_at, r.event_received_at
from runs r where r.environment_id = $1
"""


_EVENT = """
select e.id, e.name, e.client_id, e.ts, e.payload, e.received_at, e.source from events e where e.environment_id = $1
"""


async def find_run(connection: Connection, scope: Scope, run_id: RunId) -> dict[str, Any] | None:
    """The run object of `GET /v1/runs/{id}`, with `output` when it has ended."""
    row = await connection.fetchrow(f"{_RUN} and r.id = $2", scope.environment_id, run_id)
    if row is None:
        return None
    run = _run(row)
    if row["ended_at"] is not None:
        detail = await connection.fetchval(
            "select h.detail from history h where h.run_id = $1 and h.kind = 'run.' || $2", run_id, row["status"]
        )
        run["output"] = output_of(detail)
    return run


async def runs_of_event(connection: Connection, scope: Scope, event_id: EventId) -> list[dict[str, Any]]:
    """The runs an event started, with their outputs; [] while none is there yet."""
    rows = await connection.fetch(f"{_RUN} and r.event_id = $2 order by r.id", scope.environment_id, event_id)
    details = {
        row["run_id"]: row["detail"]
        for row in await connection.fetch(
            "select h.run_id, h.detail from history h where h.run_id = any($1) and h.kind = any($2)",
            [row["id"] for row in rows],
            ["run.completed", "run.failed", "run.cancelled"],
        )
    }
    runs = []
    for row in rows:
        run = _run(row)
        if row["ended_at"] is not None:
            run["output"] = output_of(details.get(row["id"]))
        runs.append(run)
    return runs


async def find_event(connection: Connection, scope: Scope, event_id: EventId) -> dict[str, Any] | None:
    """The event object of `GET /v1/events/{internal id}`."""
    row = await connection.fetchrow(f"{_EVENT} and e.id = $2", scope.environment_id, event_id)
    return None if row is None else _event(row, scope)


async def list_events(
    connection: Connection,
    scope: Scope,
    *,
    limit: int,
    before: EventId | None = None,
    name: str | None = None,
    received_after: datetime | None = None,
    received_before: datetime | None = None,
) -> list[dict[str, Any]] | None:
    """Events, the newest first, those after `before` in that order; None when there is no such event here.

    Worst case: a rare `name` is looked for through all events of the time asked for.
    """
    place = None
    if before is not None:
        place = await connection.fetchval(
            "select e.received_at from events e where e.environment_id = $1 and e.id = $2",
            scope.environment_id,
            before,
        )
        if place is None:
            return None
    rows = await connection.fetch(
        f"{_EVENT} and ($2::timestamptz is null or (e.received_at, e.id) < ($2, $3::uuid))"
        " and ($4::text is null or e.name = $4) and ($5::timestamptz is null or e.received_at > $5)"
        " and ($6::timestamptz is null or e.received_at < $6) order by e.received_at desc, e.id desc limit $7",
        scope.environment_id,
        place,
        before,
        name,
        received_after,
        received_before,
        limit,
    )
    return [_event(row, scope) for row in rows]


async def jobs_of_run(connection: Connection, scope: Scope, run_id: RunId) -> list[dict[str, Any]] | None:
    """The live queue items of a run, the next one first; None when there is no such run."""
    lane = await connection.fetchval(
        "select r.lane_id from runs r where r.environment_id = $1 and r.id = $2", scope.environment_id, run_id
    )
    if lane is None:
        return None
    # A position beyond 1,000 tells nobody more, and costs a count of the whole lane.
    rows = await connection.fetch(
        "select i.id, i.due_at, i.kind, i.attempt, i.lease_id, (select count(*) from (select from items o"
        " where o.lane_id = i.lane_id and o.lease_id is null and o.due_at < i.due_at limit 1000) x) as ahead"
        " from items i where i.environment_id = $1 and i.run_id = $2 order by i.due_at, i.id limit 1000",
        scope.environment_id,
        run_id,
    )
    return [
        {
            "JobID": str(row["id"]),
            "at": _time(row["due_at"]),
            "position": 0 if row["lease_id"] else row["ahead"] + 1,
            "kind": row["kind"],
            "attempt": row["attempt"],
        }
        for row in rows
    ]


async def functions_of_app(connection: Connection, scope: Scope, app: str) -> list[dict[str, Any]] | None:
    """The functions of an app, by its name or id; None when there is no such app."""
    app_id = await connection.fetchval(
        "select a.id from apps a where a.environment_id = $1 and (a.name = $2 or a.id::text = $2)"
        " order by a.name = $2 desc limit 1",
        scope.environment_id,
        app,
    )
    if app_id is None:
        return None
    rows = await connection.fetch(
        "select f.id, f.app_id, f.slug, f.name, f.version, f.url, f.config, f.created_at, f.updated_at, f.paused_at"
        " from functions f where f.environment_id = $1 and f.app_id = $2 and f.archived_at is null order by f.slug"
        " limit 1000",
        scope.environment_id,
        app_id,
    )
    return [
        {
            "id": str(row["id"]),
            "app_id": str(row["app_id"]),
            "slug": row["slug"],
            "name": row["name"],
            "version": row["version"],
            "url": row["url"],
            "config": msgspec.Raw(row["config"].encode()),
            "created_at": _time(row["created_at"]),
            "updated_at": _time(row["updated_at"]),
            "paused_at": _time(row["paused_at"]),
        }
        for row in rows
    ]


async def actions_of_run(connection: Connection, scope: Scope, run_id: RunId) -> bytes | None:
    """The memoised steps as one JSON object in memo order (10.3); None when there is no such run."""
    if not await connection.fetchval(
        "select true from runs r where r.environment_id = $1 and r.id = $2", scope.environment_id, run_id
    ):
        return None
    rows = await connection.fetch(
        "select s.step_key, coalesce(s.memo, '{\"input\":' || s.input || '}') as memo from steps s where s.run_id = $1"
        " and (s.memo is not null or s.state in ('retrying', 'planned') and s.input is not null)"
        " order by s.memo_order nulls last",
        run_id,
    )
    return b"{" + b",".join(f'"{r["step_key"]}":{r["memo"]}'.encode() for r in rows) + b"}"


async def batch_of_run(connection: Connection, scope: Scope, run_id: RunId) -> bytes | None:
    """The events of a run as a JSON array; None when there is no such run, or when not all of them are kept any more."""
    rows = await connection.fetch(
        "select e.payload from (select r.environment_id, r.event_id, r.event_received_at as received_at, 0 as position"
        " from runs r where r.environment_id = $1 and r.id = $2 union all select x.environment_id, x.event_id,"
        " x.received_at, x.position from run_events x where x.environment_id = $1 and x.run_id = $2) p"
        " left join events e on e.environment_id = p.environment_id and e.id = p.event_id and e.received_at = p.received_at"
        " order by p.position",
        scope.environment_id,
        run_id,
    )
    if not rows or any(row["payload"] is None for row in rows):
        return None
    return b"[" + b",".join(row["payload"].encode() for row in rows) + b"]"


def output_of(detail: str | None) -> msgspec.Raw | None:
    """The result, or the error object, of a history row that tells a run's end."""
    if detail is None:
        return None
    ended = msgspec.json.decode(detail.encode(), type=dict[str, msgspec.Raw])
    return ended.get("output") or ended.get("error")


def _run(row: Any) -> dict[str, Any]:
    return {
        "run_id": to_ulid(row["id"]),
        "run_started_at": _time(row["started_at"] or row["queued_at"]),
        "function_id": str(row["function_id"]),
        "function_version": row["function_version"],
        "environment_id": str(row["environment_id"]),
        "event_id": to_ulid(row["event_id"]),
        "batch_id": None,
        "original_run_id": to_ulid(row["original_run_id"]) if row["original_run_id"] else None,
        "cron": row["cron"],
        "status": STATUS_WORDS[row["status"]],
        "ended_at": _time(row["ended_at"]),
    }


def _event(row: Any, scope: Scope) -> dict[str, Any]:
    payload = msgspec.json.decode(row["payload"].encode(), type=dict[str, msgspec.Raw])
    event: dict[str, Any] = {
        "internal_id": to_ulid(row["id"]),
        "id": row["client_id"] or to_ulid(row["id"]),
        "name": row["name"],
        "data": payload["data"],
        "user": payload.get("user", msgspec.Raw(b"{}")),
        "ts": row["ts"],
        "received_at": _time(row["received_at"]),
        "account_id": str(scope.account_id),
        "environment_id": str(scope.environment_id),
        "source": row["source"],
        "source_id": None,
    }
    if "v" in payload:
        event["v"] = payload["v"]
    return event


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
