"""`/v1/runs`, `/v1/events` and the state that SDKs fetch, `/v0/runs` (protocol 16.2, 16.3)."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain.errors import Refused
from app.domain.ids import RunId
from app.domain.run.happenings import CancelRequested
from app.domain.scope import Scope
from app.engine.transition import RunEnded, RunUnknown, change_run
from app.reads import machine
from app.reads.explain import explain_run
from app.store.db import tenant
from app.web.api.asked import Asked, CursorInvalid
from app.web.api.bearer import COUNTED, WITH_KEY
from app.web.api.ids import NotFound, event_id_of, run_id_of, text_in_path
from app.web.api.tell import tell
from app.web.site import Site

JSON = "application/json"


class StateGone(Refused):
    """The run is not there any more, or what it was started with is not kept any more."""

    def __init__(self) -> None:
        super().__init__("state_gone")


@get("/v1/runs/{run_id:str}")
async def get_run(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """One run, with its output when it has ended."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        run = await machine.find_run(connection, tenant_scope, run_id_of(run_id))
    if run is None:
        raise NotFound("run not found")
    return enveloped(run)


@get("/v1/runs/{run_id:str}/jobs")
async def get_jobs(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The queue items of a run and how many are before them."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        jobs = await machine.jobs_of_run(connection, tenant_scope, run_id_of(run_id))
    if jobs is None:
        raise NotFound("run not found")
    return enveloped(jobs)


@get("/v1/runs/{run_id:str}/explain")
async def explain(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Why the run is not moving: what holds each piece of its future, who holds that, and until when."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await explain_run(connection, tenant_scope, run_id_of(run_id))
    if found is None:
        raise NotFound("run not found")
    return enveloped(found)


class MetadataDisabled(Refused):
    """Metadata of runs is not kept here; SDKs pass over this answer and go on."""

    def __init__(self) -> None:
        super().__init__("metadata_disabled", "This server keeps no metadata of runs.")


@post("/v1/runs/{run_id:str}/metadata", status_code=200)
async def post_metadata(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Metadata that an app sends about its run is not kept: the answer says so (protocol 16.3)."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        run = await machine.find_run(connection, tenant_scope, run_id_of(run_id))
    if run is None:
        raise NotFound("run not found")
    raise MetadataDisabled


@delete("/v1/runs/{run_id:str}", status_code=200)
async def cancel_run(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Cancel a run; one that has ended stays as it is."""
    await cancel_by_api(site, tenant_scope, run_id_of(run_id))
    return Response(b"", media_type=JSON)


@delete("/v0/runs/{run_id:str}", status_code=204)
async def cancel_run_v0(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> None:
    """The older address of the same."""
    await cancel_by_api(site, tenant_scope, run_id_of(run_id))


@get("/v0/runs/{run_id:str}/actions", dependencies=WITH_KEY)
async def get_actions(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The memoised steps of a run, for calls made with `use_api`."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        body = await machine.actions_of_run(connection, tenant_scope, _state_of(run_id))
    if body is None:
        raise StateGone
    return Response(body, media_type=JSON)


@get("/v0/runs/{run_id:str}/batch", dependencies=WITH_KEY)
async def get_batch(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The events of a run, for calls made with `use_api`."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        body = await machine.batch_of_run(connection, tenant_scope, _state_of(run_id))
    if body is None:
        raise StateGone
    return Response(body, media_type=JSON)


@get("/v1/events")
async def list_events(
    request: Request[Any, Any, Any], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Events, the newest first. The internal id of the last one is the cursor of the next page."""
    asked = Asked(request, {"limit", "cursor", "name", "received_after", "received_before"})
    limit = asked.number("limit", default=20, most=51)
    before = asked.event("cursor")
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        events = await machine.list_events(
            connection,
            tenant_scope,
            limit=limit,
            before=before,
            name=asked.text("name"),
            received_after=asked.time("received_after"),
            received_before=asked.time("received_before"),
        )
    if events is None:
        raise CursorInvalid
    return enveloped(events)


@get("/v1/events/{event_id:str}")
async def get_event(
    event_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """One event by its internal id."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        event = await machine.find_event(connection, tenant_scope, event_id_of(event_id))
    if event is None:
        raise NotFound("event not found")
    return enveloped(event)


@get("/v1/events/{event_id:str}/runs")
async def get_event_runs(
    event_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The runs an event started. Users poll it until the status is final."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        runs = await machine.runs_of_event(connection, tenant_scope, event_id_of(event_id))
    return enveloped(runs)


@get("/v1/apps/{app_name:str}/functions")
async def get_functions(
    app_name: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The functions of an app, as a bare list (protocol 16.3)."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        functions = await machine.functions_of_app(connection, tenant_scope, text_in_path(app_name))
    if functions is None:
        raise NotFound("app not found")
    return Response(msgspec.json.encode(functions), media_type=JSON)


@post("/v0/telemetry", status_code=200)
async def telemetry() -> Response[bytes]:
    """What SDKs tell about themselves is not kept."""
    return Response(b"", media_type=JSON)


def _state_of(text: str) -> RunId:
    """The run a path names. Malformed looks like unknown, which is gone here."""
    try:
        return run_id_of(text)
    except NotFound:
        raise StateGone from None


async def cancel_by_api(site: Site, scope: Scope, run_id: RunId) -> bool:
    """Cancel a run; false when it had ended already. Raises NotFound."""
    try:
        entry = await change_run(site.ingest, run_id, CancelRequested("api"), clock=site.clock, scope=scope)
    except RunUnknown:
        raise NotFound("run not found") from None
    except RunEnded:
        return False
    tell(site, entry)
    return True


def enveloped(data: Any) -> Response[bytes]:
    """The answer of a v1 route that worked (protocol 16.1)."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    body = msgspec.json.encode({"data": data, "metadata": {"fetched_at": now, "cached_until": None}})
    return Response(body, media_type=JSON)


ROUTER = Router(
    path="/",
    dependencies=COUNTED,
    route_handlers=[
        get_run,
        get_jobs,
        explain,
        post_metadata,
        cancel_run,
        cancel_run_v0,
        get_actions,
        get_batch,
        list_events,
        get_event,
        get_event_runs,
        get_functions,
        telemetry,
    ],
)
