"""`/v1/runs`, `/v1/events` and the state that SDKs fetch, `/v0/runs` (protocol 16.2, 16.3)."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Response, Router, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain.errors import Refused
from app.domain.ids import RunId
from app.domain.run.happenings import CancelRequested
from app.domain.scope import Scope
from app.engine.transition import RunEnded, RunUnknown, change_run
from app.reads import machine
from app.store.db import tenant
from app.web.api.bearer import WITH_KEY
from app.web.api.ids import NotFound, event_id_of, run_id_of
from app.web.api.tell import tell
from app.web.site import Site

JSON = "application/json"


class StateGone(Refused):
    """The run is not there any more."""

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


@delete("/v1/runs/{run_id:str}", status_code=200)
async def cancel_run(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Cancel a run; one that has ended stays as it is."""
    await _cancel(site, tenant_scope, run_id_of(run_id))
    return Response(b"", media_type=JSON)


@delete("/v0/runs/{run_id:str}", status_code=204)
async def cancel_run_v0(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> None:
    """The older address of the same."""
    await _cancel(site, tenant_scope, run_id_of(run_id))


@get("/v0/runs/{run_id:str}/actions")
async def get_actions(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The memoised steps of a run, for calls made with `use_api`."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        body = await machine.actions_of_run(connection, tenant_scope, run_id_of(run_id))
    if body is None:
        raise StateGone
    return Response(body, media_type=JSON)


@get("/v0/runs/{run_id:str}/batch")
async def get_batch(
    run_id: FromPath[str], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """The events of a run, for calls made with `use_api`."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        body = await machine.batch_of_run(connection, tenant_scope, run_id_of(run_id))
    if body is None:
        raise StateGone
    return Response(body, media_type=JSON)


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


async def _cancel(site: Site, scope: Scope, run_id: RunId) -> None:
    try:
        entry = await change_run(site.ingest, run_id, CancelRequested("api"), clock=site.clock, scope=scope)
    except RunUnknown:
        raise NotFound("run not found") from None
    except RunEnded:
        return
    tell(site, entry)


def enveloped(data: Any) -> Response[bytes]:
    """The answer of a v1 route that worked (protocol 16.1)."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    body = msgspec.json.encode({"data": data, "metadata": {"fetched_at": now, "cached_until": None}})
    return Response(body, media_type=JSON)


ROUTER = Router(
    path="/",
    dependencies=WITH_KEY,
    route_handlers=[get_run, cancel_run, cancel_run_v0, get_actions, get_batch, get_event, get_event_runs],
)
