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
    row = await connection.fetchrow(
        "select e.id, e.name, e.client_id, e.ts, e.payload, e.received_at, e.source from events e"
        " where e.environment_id = $1 and e.id = $2",
        scope.environment_id,
        event_id,
    )
    if row is None:
        return None
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


async def actions_of_run(connection: Connection, scope: Scope, run_id: RunId) -> bytes | None:
    """The memoised steps as one JSON object in memo order (10.3); None when there is no such run."""
    if not await connection.fetchval(
        "select true from runs r where r.environment_id = $1 and r.id = $2", scope.environment_id, run_id
    ):
        return None
    rows = await connection.fetch(
        "select s.step_key, s.memo from steps s where s.run_id = $1 and s.memo is not null order by s.memo_order",
        run_id,
    )
    return b"{" + b",".join(f'"{r["step_key"]}":{r["memo"]}'.encode() for r in rows) + b"}"


async def batch_of_run(connection: Connection, scope: Scope, run_id: RunId) -> bytes | None:
    """The events of a run as a JSON array; None when there is no such run."""
    payload: str | None = await connection.fetchval(
        "select e.payload from runs r join events e on e.environment_id = r.environment_id and e.id = r.event_id"
        " and e.received_at = r.event_received_at where r.environment_id = $1 and r.id = $2",
        scope.environment_id,
        run_id,
    )
    return None if payload is None else b"[" + payload.encode() + b"]"


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


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
