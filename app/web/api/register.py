"""`POST /fn/register`: an app tells its functions (protocol 7.1), and `GET /dev`, by which SDKs recognise a dev server."""

from typing import Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency

from app.domain.errors import Refused
from app.domain.protocol.registration import read_registration
from app.domain.scope import Scope
from app.engine.sync import checks, register
from app.web.api.bearer import WITH_KEY
from app.web.api.ids import NotFound
from app.web.site import Site


@post("/fn/register", status_code=200)
async def register_app(
    request: Request[Any, Any, Any], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Store what the app registers; `modified` is false when nothing differed."""
    expected = request.headers.get("x-inngest-expected-server-kind")
    if expected and expected != site.server_kind:
        raise Refused(
            "server_kind_mismatch",
            f"The app expects a {expected} server and this is a {site.server_kind} server. Set INNGEST_DEV of the app accordingly.",
        )
    registration = read_registration(await request.body(), checks=checks())
    synced = await register(site.ingest, tenant_scope, registration, kind="out_of_band")
    body: dict[str, object] = {
        "ok": True,
        "modified": synced.is_modified,
        "sync_id": str(synced.sync_id),
        "app_id": str(synced.app_id),
    }
    if synced.warnings:
        body["warnings"] = synced.warnings
    return Response(msgspec.json.encode(body), media_type="application/json")


@get("/dev")
async def dev(site: NamedDependency[Site]) -> dict[str, object]:
    """What a dev server says about itself; SDKs that infer their mode probe it (protocol 16.2)."""
    if not site.is_dev:
        raise NotFound
    return {"version": "stepwell", "authed": False, "startOpts": {}, "functions": [], "handlers": [], "features": {}}


ROUTER = Router(path="/", dependencies=WITH_KEY, route_handlers=[register_app])
