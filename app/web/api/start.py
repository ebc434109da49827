"""`POST /v2/apps/{app}/functions/{function}/invoke`: starts a function and says which run it became (protocol 16.4).

The event is stored as by `/invoke/{slug}`; the run is made by a worker, and waited for. An idempotency key used before
gives the run it started then. Not waited for: the run's end.
"""

import asyncio
import time
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain.errors import Refused
from app.domain.event import read_invoke
from app.domain.ids import EventId, FunctionId, to_ulid
from app.domain.limits import MAX_EVENT_ID_BYTES, PLANS
from app.domain.scope import Scope
from app.reads import api
from app.store.db import tenant
from app.web.api.answers import answer
from app.web.api.asked import FieldInvalid, read_object, text_of
from app.web.api.ids import NotFound, text_in_path
from app.web.site import Site

#: How long the run may take to be made before the answer is that it is not yet; and the pause between two looks.
_PATIENCE_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25


class NotStarted(Refused):
    """The function did not start; `details["outcome"]` says why."""


@post("/apps/{app_name:str}/functions/{function:str}/invoke", status_code=200)
async def invoke(
    request: Request[Any, Any, Any],
    app_name: FromPath[str],
    function: FromPath[str],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """Start a function with data of one's own."""
    async with tenant(site.pages, tenant_scope.account_id) as connection:
        found = await api.find_function(connection, tenant_scope, text_in_path(app_name), text_in_path(function))
    known = (await site.catalogue.view(tenant_scope)).functions.get(FunctionId(UUID(found["id"]))) if found else None
    if found is None or known is None or known.is_archived:
        raise NotFound("function not found")
    fields = read_object(await request.body(), {"data", "idempotency_key"})
    key = text_of(fields, "idempotency_key", longest=MAX_EVENT_ID_BYTES)
    if not isinstance(fields.get("data", {}), dict | None):
        raise FieldInvalid("data", "an object is expected")
    event = read_invoke(
        msgspec.json.encode({"data": fields.get("data") or {}, **({"id": key} if key else {})}),
        known.function.slug,
        max_event_bytes=PLANS["self_hosted"].event_bytes,
        received_ms=time.time_ns() // 1_000_000,
    )
    (event_id,) = await site.events.add(tenant_scope, [event])
    return await _started(site, tenant_scope, known.id, EventId(event_id), key)


async def _started(
    site: Site, scope: Scope, function_id: FunctionId, event_id: EventId, key: str | None
) -> Response[bytes]:
    deadline, pause = time.monotonic() + _PATIENCE_S, _FIRST_PAUSE_S
    while True:
        async with tenant(site.pages, scope.account_id) as connection:
            started = await api.find_started(connection, scope, function_id, event_id, key)
        if started is not None and started.run is not None:
            return answer({"eventId": to_ulid(event_id), **started.run})
        if started is not None:
            raise NotStarted(
                "not_started",
                f"The function was not started: {started.outcome}.",
                {"outcome": started.outcome, "detail": started.detail, "eventId": to_ulid(event_id)},
            )
        if time.monotonic() > deadline:
            # Stored, and a worker will come to it; whoever needs the run finds it by the event.
            return answer({"eventId": to_ulid(event_id), **api.NOT_YET}, status=202)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
