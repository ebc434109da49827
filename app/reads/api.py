"""What programs ask our own API about runs, apps, functions and keys (protocol 16.4), ready to be encoded.

Field names are camelCase, times RFC 3339, what is absent is null. All take a connection of one tenant
(`store.db.tenant`) and the scope, and never write. Lists come with one row more than asked for, so that the caller can
say whether there is more.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from app.domain.ids import EventId, FunctionId, RunId, millis, to_ulid, ulid_of
from app.domain.scope import Scope
from app.reads.machine import output_of
from app.store.db import Connection

TIME_FIELDS: Final = {"QUEUED_AT": "queued_at", "STARTED_AT": "started_at", "ENDED_AT": "ended_at"}
STATUSES: Final = frozenset({"QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})
#: A run's id is dated by its cause, at most this long before it is queued (a debounce may wait seven days).
_QUEUED_WITHIN = timedelta(days=8)
_TRIGGERS = {"inngest/scheduled.timer": "CRON", "inngest/function.invoked": "INVOKE"}
_RUN = """
select r.id, r.status, r.queued_at, r.started_at, r.ended_at, r.event_id, r.event_name, r.batch_size, r.cron,
  r.original_run_id, r.parent_run_id, r.function_version, r.error_name, r.error_message, f.id as function_id, f.slug,
  f.name as function_name, a.id as app_id, a.name as app_name
from runs r join functions f on f.id = r.function_id join apps a on a.id = r.app_id where r.environment_id = $1
"""
_APP = """
select a.id, a.name, a.url, a.sdk, a.framework, a.created_at, a.synced_at, a.archived_at, a.error_code, a.error,
  (select count(*) from functions f where f.app_id = a.id and f.archived_at is null) as functions
from apps a where a.environment_id = $1
"""
_FUNCTION = """
select f.id, f.slug, f.name, f.version, f.url, f.config, f.created_at, f.updated_at, f.paused_at, f.archived_at,
  a.id as app_id, a.name as app_name
from functions f join apps a on a.id = f.app_id where f.environment_id = $1
"""


#: The run of an event that nobody has reacted to.
NOT_YET: Final = dict.fromkeys(("runId", "status", "queuedAt", "startedAt", "completedAt", "result", "error"))


@dataclass(frozen=True, slots=True)
class Started:
    """The run that an event started, or why it started none."""

    run: dict[str, Any] | None
    outcome: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunsWanted:
    """Which runs, and in which order. Apps and functions by name, slug or id; `time_field` is one of TIME_FIELDS.

    The order is always that of the run ids, which is when their causes came: an index has it, whatever is filtered.
    """

    limit: int
    after: RunId | None = None
    ascending: bool = False
    statuses: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    event_id: EventId | None = None
    time_field: str = "QUEUED_AT"
    since: datetime | None = None
    until: datetime | None = None
    with_output: bool = False


async def list_runs(connection: Connection, scope: Scope, wanted: RunsWanted) -> list[dict[str, Any]]:
    """The runs of an environment, at most one more than `limit`."""
    parts = [_RUN]
    values: list[object] = [scope.environment_id]

    def add(text: str, value: object) -> None:
        values.append(value)
        parts.append(text.format(f"${len(values)}"))

    if wanted.after is not None:
        add(" and r.id > {}" if wanted.ascending else " and r.id < {}", wanted.after)
    if wanted.statuses:
        add(" and r.status = any({})", [status.lower() for status in wanted.statuses])
    if wanted.apps:
        add(" and (a.name = any({0}) or a.id::text = any({0}))", list(wanted.apps))
    if wanted.functions:
        add(" and (f.slug = any({0}) or f.id::text = any({0}))", list(wanted.functions))
    if wanted.event_id is not None:
        add(" and r.event_id = {}", wanted.event_id)
    column = TIME_FIELDS[wanted.time_field]
    if wanted.since is not None:
        add(f" and r.{column} >= {{}}", wanted.since)
        if column == "queued_at":
            add(" and r.id >= {}", _floor(wanted.since - _QUEUED_WITHIN))
    if wanted.until is not None:
        add(f" and r.{column} < {{}}", wanted.until)
        if column == "queued_at":
            add(" and r.id < {}", _floor(wanted.until + timedelta(milliseconds=1)))
    direction = "asc" if wanted.ascending else "desc"
    add(f" order by r.id {direction} limit {{}}", wanted.limit + 1)
    rows = await connection.fetch("".join(parts), *values)
    outputs = await _outputs(connection, [row["id"] for row in rows]) if wanted.with_output else {}
    return [_run(row, outputs.get(row["id"])) for row in rows]


async def find_run(connection: Connection, scope: Scope, run_id: RunId) -> dict[str, Any] | None:
    """One run with its output, and the runs that were made from it."""
    row = await connection.fetchrow(f"{_RUN} and r.id = $2", scope.environment_id, run_id)
    if row is None:
        return None
    outputs = await _outputs(connection, [run_id])
    replays = await connection.fetch(
        "select r.id from runs r where r.environment_id = $1 and r.original_run_id = $2 order by r.id limit 100",
        scope.environment_id,
        run_id,
    )
    return _run(row, outputs.get(run_id)) | {"replayedAs": [to_ulid(one["id"]) for one in replays]}


async def find_started(
    connection: Connection, scope: Scope, function_id: FunctionId, event_id: EventId, key: str | None
) -> Started | None:
    """What became of an event that was to start a function; None while nobody has reacted to it. `key` is the event's id
    of the sender's: used before, it gives the run it started then.
    """
    row = await connection.fetchrow(
        "select r.id from runs r where r.environment_id = $1 and r.event_id = $2 and r.function_id = $3",
        scope.environment_id,
        event_id,
        function_id,
    )
    outcome = None
    if row is None:
        outcome = await connection.fetchrow(
            "select d.outcome, d.detail, coalesce(d.run_id, p.run_id) as run_id from dispositions d"
            " left join dedupe p on p.environment_id = d.environment_id and p.function_id = d.function_id and p.key = $4"
            "   and d.outcome = 'duplicate'"
            " where d.environment_id = $1 and d.event_id = $2 and d.function_id = $3",
            scope.environment_id,
            event_id,
            function_id,
            key,
        )
        if outcome is None:
            return None
    run_id = row["id"] if row is not None else outcome and outcome["run_id"]
    run = None if run_id is None else await find_run(connection, scope, RunId(run_id))
    if run is None:
        return Started(None, outcome["outcome"] if outcome else "", outcome["detail"] if outcome else "")
    is_completed, is_failed = run["status"] == "COMPLETED", run["status"] == "FAILED"
    return Started(
        {
            "runId": run["id"],
            "status": run["status"],
            "queuedAt": run["queuedAt"],
            "startedAt": run["startedAt"],
            "completedAt": run["endedAt"],
            "result": run["output"] if is_completed else None,
            "error": run["output"] if is_failed else None,
        }
    )


async def trace_of_run(connection: Connection, scope: Scope, run_id: RunId) -> dict[str, Any] | None:
    """The run and its steps as a tree of spans, steps in the order they became known."""
    row = await connection.fetchrow(f"{_RUN} and r.id = $2", scope.environment_id, run_id)
    if row is None:
        return None
    steps = await connection.fetch(
        "select s.step_key, s.name, s.kind, s.state, s.created_at, s.settled_at, s.memo,"
        " (select max(h.attempt) from history h where h.run_id = s.run_id and h.step_key = s.step_key) as attempt,"
        " case when s.kind = 'ai' then (select h.detail from history h where h.run_id = s.run_id and h.step_key = s.step_key"
        "   and h.kind = 'gateway' order by h.version desc, h.position desc limit 1) end as asked"
        " from steps s where s.run_id = $1 and s.environment_id = $2 order by s.created_at, s.memo_order, s.step_key"
        " limit 10000",
        run_id,
        scope.environment_id,
    )
    root = {
        "spanId": to_ulid(run_id),
        "name": row["function_name"],
        "kind": "RUN",
        "status": row["status"].upper(),
        "queuedAt": _time(row["queued_at"]),
        "startedAt": _time(row["started_at"]),
        "endedAt": _time(row["ended_at"]),
        "durationMs": _duration(row["started_at"], row["ended_at"]),
    }
    return {"runId": to_ulid(run_id), "rootSpan": root | {"children": [_span(step) for step in steps]}}


async def list_apps(connection: Connection, scope: Scope) -> list[dict[str, Any]]:
    """The apps of an environment by name, archived ones last, at most 1,000."""
    rows = await connection.fetch(f"{_APP} order by a.archived_at is not null, a.name limit 1000", scope.environment_id)
    return [_app(row) for row in rows]


async def find_app(connection: Connection, scope: Scope, app: str) -> dict[str, Any] | None:
    """One app, by name or id."""
    row = await connection.fetchrow(
        f"{_APP} and (a.name = $2 or a.id::text = $2) order by a.name = $2 desc limit 1", scope.environment_id, app
    )
    return None if row is None else _app(row)


async def list_functions(connection: Connection, scope: Scope, app: str) -> list[dict[str, Any]]:
    """The functions of an app (name or id) by slug, archived ones last, at most 1,000."""
    rows = await connection.fetch(
        f"{_FUNCTION} and (a.name = $2 or a.id::text = $2) order by f.archived_at is not null, f.slug limit 1000",
        scope.environment_id,
        app,
    )
    return [_function(row) for row in rows]


async def find_function(connection: Connection, scope: Scope, app: str, function: str) -> dict[str, Any] | None:
    """One function of an app: by its own id, by the slug with the app's name before it, or by UUID."""
    row = await connection.fetchrow(
        f"{_FUNCTION} and (a.name = $2 or a.id::text = $2)"
        " and (f.slug = $3 or f.slug = a.name || '-' || $3 or f.id::text = $3) order by f.slug = $3 desc limit 1",
        scope.environment_id,
        app,
        function,
    )
    return None if row is None else _function(row)


async def find_account(connection: Connection, scope: Scope) -> dict[str, Any] | None:
    """The account that a key belongs to."""
    row = await connection.fetchrow(
        "select a.id, a.name, a.slug, a.plan, a.created_at from accounts a where a.id = $1", scope.account_id
    )
    if row is None:
        return None
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "slug": row["slug"],
        "plan": row["plan"],
        "createdAt": _time(row["created_at"]),
    }


async def _outputs(connection: Connection, run_ids: list[RunId]) -> dict[RunId, msgspec.Raw | None]:
    rows = await connection.fetch(
        "select h.run_id, h.detail from history h where h.run_id = any($1) and h.kind = any($2)",
        run_ids,
        ["run.completed", "run.failed", "run.cancelled"],
    )
    return {row["run_id"]: output_of(row["detail"]) for row in rows}


def _run(row: Any, output: msgspec.Raw | None) -> dict[str, Any]:
    return {
        "id": to_ulid(row["id"]),
        "function": {"id": str(row["function_id"]), "slug": row["slug"], "name": row["function_name"]},
        "functionVersion": row["function_version"],
        "app": {"id": str(row["app_id"]), "name": row["app_name"]},
        "status": row["status"].upper(),
        "queuedAt": _time(row["queued_at"]),
        "startedAt": _time(row["started_at"]),
        "endedAt": _time(row["ended_at"]),
        "durationMs": _duration(row["started_at"], row["ended_at"]),
        "trigger": {
            "type": _TRIGGERS.get(row["event_name"], "EVENT"),
            "eventName": row["event_name"],
            "eventIds": [to_ulid(row["event_id"])],
            "cron": row["cron"],
            "batchSize": row["batch_size"],
        },
        "output": output,
        "error": {"name": row["error_name"], "message": row["error_message"]} if row["error_name"] else None,
        "originalRunId": to_ulid(row["original_run_id"]) if row["original_run_id"] else None,
        "parentRunId": to_ulid(row["parent_run_id"]) if row["parent_run_id"] else None,
    }


def _span(step: Any) -> dict[str, Any]:
    return {
        "spanId": step["step_key"],
        "name": step["name"],
        "kind": step["kind"].upper(),
        "status": step["state"].upper(),
        "attempts": (step["attempt"] or 0) + 1,
        "queuedAt": _time(step["created_at"]),
        "startedAt": _time(step["created_at"]),
        "endedAt": _time(step["settled_at"]),
        "durationMs": _duration(step["created_at"], step["settled_at"]),
        "output": msgspec.Raw(step["memo"].encode()) if step["memo"] is not None else None,
        "ai": _usage(step["asked"]),
        "children": [],
    }


def _usage(asked: str | None) -> dict[str, Any] | None:
    """Model and tokens of an AI step, from the journal's line of its last request; None for other steps."""
    used = msgspec.json.decode(asked).get("ai") if asked else None
    if not isinstance(used, dict):
        return None
    return {
        "provider": used.get("provider"),
        "model": used.get("model"),
        "inputTokens": used.get("input_tokens"),
        "outputTokens": used.get("output_tokens"),
    }


def _app(row: Any) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "url": row["url"],
        "sdk": row["sdk"],
        "framework": row["framework"],
        "functionCount": row["functions"],
        "createdAt": _time(row["created_at"]),
        "syncedAt": _time(row["synced_at"]),
        "archivedAt": _time(row["archived_at"]),
        "error": {"code": row["error_code"], "message": row["error"]} if row["error_code"] else None,
    }


def _function(row: Any) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "slug": row["slug"],
        "name": row["name"],
        "version": row["version"],
        "url": row["url"],
        "app": {"id": str(row["app_id"]), "name": row["app_name"]},
        "config": msgspec.Raw(row["config"].encode()),
        "createdAt": _time(row["created_at"]),
        "updatedAt": _time(row["updated_at"]),
        "pausedAt": _time(row["paused_at"]),
        "archivedAt": _time(row["archived_at"]),
    }


def _floor(at: datetime) -> RunId:
    return RunId(ulid_of(max(0, millis(at)), bytes(10)))


def _duration(start: datetime | None, end: datetime | None) -> int | None:
    return None if start is None or end is None else (end - start) // timedelta(milliseconds=1)


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
