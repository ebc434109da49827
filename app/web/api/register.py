"""`POST /fn/register`: an app tells its functions (protocol 7.1), and `GET /dev`, by which SDKs recognise a dev server."""

from typing import Any

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.di import NamedDependency

from app.domain.errors import Refused
from app.domain.scope import Scope
from app.engine.sync import register_body, remove_app
from app.web.api.asked import Asked, FieldInvalid
from app.web.api.bearer import SYNCING
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
    synced = await register_body(site.ingest, tenant_scope, await request.body(), request.query_params.get("deployId"))
    body: dict[str, object] = {
        "ok": True,
        "modified": synced.is_modified,
        "sync_id": str(synced.sync_id),
        "app_id": str(synced.app_id),
    }
    if synced.warnings:
        body["warnings"] = synced.warnings
    return Response(msgspec.json.encode(body), media_type="application/json")


@delete("/fn/remove", status_code=200)
async def remove(
    request: Request[Any, Any, Any], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Forget the app at `url`: it starts nothing any more until it syncs again."""
    url = Asked(request, {"url"}).text("url")
    if url is None:
        raise FieldInvalid("url", "the app's address is expected")
    removed = await remove_app(site.ingest, tenant_scope, url)
    return Response(msgspec.json.encode({"ok": True, "removed": removed}), media_type="application/json")


@get("/dev")
async def dev(site: NamedDependency[Site]) -> dict[str, object]:
    """What a dev server says about itself; SDKs that infer their mode probe it (protocol 16.2)."""
    if not site.is_dev:
        raise NotFound
    return {"version": "stepwell", "authed": False, "startOpts": {}, "functions": [], "handlers": [], "features": {}}


ROUTER = Router(path="/", dependencies=SYNCING, route_handlers=[register_app, remove])
