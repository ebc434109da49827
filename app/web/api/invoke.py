"""`POST /invoke/{slug}`: starts one function, whatever its triggers are (protocol 5.6)."""

import time
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.domain.event import read_invoke
from app.domain.ids import FunctionId, to_ulid
from app.domain.limits import PLANS
from app.domain.scope import Scope
from app.engine.catalogue import EnvironmentView, KnownFunction
from app.web.api.bearer import COUNTED
from app.web.api.ids import NotFound
from app.web.site import Site


@post("/invoke/{slug:str}", status_code=200)
async def invoke(
    slug: FromPath[str],
    request: Request[Any, Any, Any],
    tenant_scope: NamedDependency[Scope],
    site: NamedDependency[Site],
) -> Response[bytes]:
    """Store the invoked event; its runs are found by its id. The same seed header again starts nothing twice."""
    view = await site.catalogue.view(tenant_scope)
    known = view.by_slug.get(slug) or _by_id(view, slug)
    if known is None:
        raise NotFound("function not found")
    body = await request.body()
    event = read_invoke(
        body,
        known.function.slug,
        max_event_bytes=PLANS["self_hosted"].event_bytes,
        received_ms=time.time_ns() // 1_000_000,
    )
    (event_id,) = await site.events.add(
        tenant_scope, [event], seed=request.headers.get("x-inngest-event-id-seed"), body=body, start=0
    )
    answer = {"id": to_ulid(event_id), "status": 200}
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _by_id(view: EnvironmentView, text: str) -> KnownFunction | None:
    try:
        known = view.functions.get(FunctionId(UUID(text)))
    except ValueError:
        return None
    return None if known is None or known.is_archived else known


ROUTER = Router(path="/", dependencies=COUNTED, route_handlers=[invoke])
