"""Our own API: `/v2/…`, also reachable as `/api/v2/…` (protocol 16.4).

Success is `{"data", "metadata"}`, lists have `page` beside it. The key says which environment is asked about; nothing in
a request does. Secrets are never answered, only what tells keys apart.
"""

import hashlib
import time
from typing import Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain.errors import Refused
from app.domain.event import read_events
from app.domain.ids import RunId, parse_ulid, to_ulid
from app.domain.limits import PLANS
from app.domain.scope import Scope
from app.engine.replay import FAILED, START, ReplayOfNothing, replay
from app.engine.sync import SyncFailed, sync_app
from app.reads import api
from app.store import accounts, keys
from app.store.db import tenant
from app.web.api import overrides, start
from app.web.api.answers import answer, shown_time
from app.web.api.asked import Asked, CursorInvalid, FieldInvalid, open_cursor, read_object, seal_cursor, text_of
from app.web.api.bearer import COUNTED
from app.web.api.ids import NotFound, event_id_of, run_id_of, text_in_path
from app.web.api.runs import cancel_by_api
from app.web.site import Site

AnyRequest = Request[Any, Any, Any]
_MOST = 100
_RUNS_QUERY = (
    "status", "appId", "functionId", "from", "until", "timeField", "order", "cursor", "limit", "includeOutput",
)  # fmt: skip


class SyncRefused(Refused):
    """The app could not be synced; `details["fix"]` says what to do."""


@get("/health")
async def get_health() -> Response[bytes]:
    """Say that the API answers. Needs no key."""
    return answer({"status": "ok"})


@post("/events", status_code=200)
async def post_event(
    request: AnyRequest, tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Send one event."""
    body = await request.body()
    read_object(body, {"name", "data", "user", "id", "ts", "v"}, required=("name",))
    most = PLANS["self_hosted"].event_bytes
    events = read_events(body, max_event_bytes=most, received_ms=time.time_ns() // 1_000_000)
    ids = await site.events.add(tenant_scope, events)
    return answer({"eventId": to_ulid(ids[0])})


@get("/runs")
async def list_runs(
    request: AnyRequest, tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """List the runs of the environment."""
    return await _runs(request, tenant_scope, site)


@get("/apps/{app_name:str}/functions/{function:str}/runs")
async def list_runs_of_function(
    request: AnyRequest,
    app_name: FromPath[str],
    function: FromPath[str],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """List the runs of a function."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await api.find_function(connection, tenant_scope, text_in_path(app_name), text_in_path(function))
    if found is None:
        raise NotFound("function not found")
    return await _runs(request, tenant_scope, site, functions=(found["id"],))


@get("/events/{event_id:str}/runs")
async def list_runs_of_event(
    request: AnyRequest, event_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """List the runs an event started."""
    return await _runs(request, tenant_scope, site, event=event_id)


@get("/runs/{run_id:str}")
async def get_run(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Give one run with its output."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        return _found(await api.find_run(connection, tenant_scope, run_id_of(run_id)), "run not found")


@get("/runs/{run_id:str}/trace")
async def get_trace(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Give a run's steps as a tree of spans."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        return _found(await api.trace_of_run(connection, tenant_scope, run_id_of(run_id)), "run not found")


@post("/runs/{run_id:str}/cancel", status_code=200)
async def cancel(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Cancel a run; one that has ended stays as it is."""
    wanted = run_id_of(run_id)
    return answer({"id": to_ulid(wanted), "cancelled": await cancel_by_api(site, tenant_scope, wanted)})


@post("/runs/{run_id:str}/rerun", status_code=200)
async def rerun(
    request: AnyRequest, run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Make the run again: from its start, or from a step, with other arguments for it if given."""
    wanted = run_id_of(run_id)
    from_step, given = _rerun_from(await request.body())
    try:
        new_id = await replay(site.ingest, tenant_scope, wanted, from_step=from_step, input=given)
    except ReplayOfNothing:
        raise NotFound("run not found") from None
    site.bell.ring()
    return answer({"id": to_ulid(new_id), "originalRunId": to_ulid(wanted)})


@get("/apps")
async def list_apps(tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]) -> Response[bytes]:
    """List the apps of the environment."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        return answer(await api.list_apps(connection, tenant_scope))


@get("/apps/{app_name:str}")
async def get_app(
    app_name: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Give one app."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        return _found(await api.find_app(connection, tenant_scope, text_in_path(app_name)), "app not found")


@get("/apps/{app_name:str}/functions")
async def list_functions(
    app_name: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """List the functions of an app."""
    name = text_in_path(app_name)
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        if await api.find_app(connection, tenant_scope, name) is None:
            raise NotFound("app not found")
        return answer(await api.list_functions(connection, tenant_scope, name))


@get("/apps/{app_name:str}/functions/{function:str}")
async def get_function(
    app_name: FromPath[str],
    function: FromPath[str],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """Give one function, by its own id, its slug or its UUID."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await api.find_function(connection, tenant_scope, text_in_path(app_name), text_in_path(function))
    return _found(found, "function not found")


@post("/apps/{app_name:str}/syncs", status_code=200)
async def sync(
    request: AnyRequest, app_name: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Ask an app for its functions: at `url`, or where it was found last."""
    url = text_of(read_object(await request.body(), {"url"}), "url", longest=2048)
    if url is None:
        async with tenant(site.pages, tenant_scope.account_id) as connection:
            known = await api.find_app(connection, tenant_scope, text_in_path(app_name))
        if known is None:
            raise NotFound("app not found")
        url = known["url"]
    signing = await site.signing_keys.of(tenant_scope.environment_id)
    done = await sync_app(site.ingest, site.outgoing, tenant_scope, url, server_kind=site.server_kind, keys=signing)
    if isinstance(done, SyncFailed):
        raise SyncRefused(done.code, done.message, {**done.details, "fix": done.fix})
    site.bell.ring()
    return answer(
        {
            "syncId": str(done.sync_id),
            "appId": str(done.app_id),
            "modified": done.is_modified,
            "added": done.added,
            "changed": done.changed,
            "removed": done.removed,
            "warnings": done.warnings,
        }
    )


@get("/keys/events")
async def list_event_keys(tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]) -> Response[bytes]:
    """List the event keys of the environment, without their secrets."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await keys.list_event_keys(connection, tenant_scope)
    return answer([{"name": key.name, **_key(key)} for key in found])


@get("/keys/signing")
async def list_signing_keys(tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]) -> Response[bytes]:
    """List the signing keys of the environment, without their secrets."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await keys.list_signing_keys(connection, tenant_scope)
    return answer([{"state": key.state.upper(), **_key(key)} for key in found])


@get("/envs")
async def list_environments(tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]) -> Response[bytes]:
    """List the environment of the key, and the branches below it. Others of the account are none of its business."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await accounts.list_branches(connection, tenant_scope)
    return answer(
        [
            {
                "id": str(one.id),
                "name": one.name,
                "slug": one.slug,
                "type": one.kind.upper(),
                "archivedAt": shown_time(one.archived_at),
            }
            for one in found
        ]
    )


@get("/account")
async def get_account(tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]) -> Response[bytes]:
    """Give the account the key belongs to."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        return _found(await api.find_account(connection, tenant_scope), None)


async def _runs(
    request: AnyRequest, scope: Scope, site: Site, *, functions: tuple[str, ...] = (), event: str | None = None
) -> Response[bytes]:
    asked = Asked(request, _RUNS_QUERY)
    order = asked.one_of("order", {"ASC", "DESC"}, "DESC")
    limit = asked.number("limit", default=20, most=_MOST)
    statuses = tuple(status.upper() for status in asked.texts("status"))
    if unknown := [status for status in statuses if status not in api.STATUSES]:
        raise FieldInvalid("status", f"one of {', '.join(sorted(api.STATUSES))} is expected, not {unknown[0][:40]}")
    cursor, kind = asked.text("cursor"), f"runs {order}"
    after = parse_ulid(open_cursor(site.sealer, scope, kind, cursor)) if cursor else None
    if cursor and after is None:
        raise CursorInvalid
    wanted = api.RunsWanted(
        limit=limit,
        after=RunId(after) if after else None,
        ascending=order == "ASC",
        statuses=statuses,
        apps=tuple(asked.texts("appId")),
        functions=functions or tuple(asked.texts("functionId")),
        event_id=event_id_of(event) if event is not None else None,
        time_field=asked.one_of("timeField", api.TIME_FIELDS, "QUEUED_AT"),
        since=asked.time("from"),
        until=asked.time("until"),
        with_output=asked.flag("includeOutput"),
    )
    async with tenant(site.pages, scope.account_id) as connection:
        found = await api.list_runs(connection, scope, wanted)
    has_more, shown = len(found) > limit, found[:limit]
    following = seal_cursor(site.sealer, scope, kind, shown[-1]["id"]) if has_more else None
    return answer(shown, page={"cursor": following, "hasMore": has_more, "limit": limit})


def _rerun_from(body: bytes) -> tuple[str, bytes | None]:
    """The step to begin with, and its arguments; one that is no list is the only argument."""
    asked = read_object(body, {"from_step"}).get("from_step")
    if asked is None:
        return START, None
    if not isinstance(asked, dict):
        raise FieldInvalid("fromStep", "an object with stepId is expected")
    fields = read_object(msgspec.json.encode(asked), {"step_id", "input"}, required=("step_id",))
    step = text_of(fields, "step_id", longest=1024)
    assert step is not None
    if step in (START, FAILED):  # A step may be called so; its hash is not mistaken for the word.
        step = hashlib.sha1(step.encode(), usedforsecurity=False).hexdigest()
    if fields.get("input") is None:
        return step, None
    given = fields["input"]
    return step, msgspec.json.encode(given if isinstance(given, list) else [given])


def _found(value: dict[str, Any] | None, otherwise: str | None) -> Response[bytes]:
    if value is None:
        raise NotFound(otherwise)
    return answer(value)


def _key(key: keys.EventKey | keys.SigningKey) -> dict[str, object]:
    return {
        "id": str(key.id),
        "masked": f"{key.prefix}…{key.last_four}",
        "createdAt": shown_time(key.created_at),
        "lastUsedAt": shown_time(key.used_at),
        "revokedAt": shown_time(key.revoked_at),
    }


HANDLERS = (
    get_health,
    post_event,
    list_runs,
    list_runs_of_function,
    list_runs_of_event,
    get_run,
    get_trace,
    cancel,
    rerun,
    list_apps,
    get_app,
    list_functions,
    get_function,
    start.invoke,
    sync,
    list_event_keys,
    list_signing_keys,
    list_environments,
    get_account,
    *overrides.HANDLERS,
)
ROUTER = Router(path="/v2", dependencies=COUNTED, route_handlers=HANDLERS)
LONG_ROUTER = Router(path="/api/v2", dependencies=COUNTED, route_handlers=HANDLERS)
