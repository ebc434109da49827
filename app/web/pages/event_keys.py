"""Event keys of an environment: list, make, open, revoke. `/env/{slug}/keys/events`."""

from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Template

from app.accounts import keys
from app.accounts.environments import checked_name
from app.domain.errors import Refused
from app.store import keys as rows
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import Principal, network_of, require_person, require_role
from app.web.secrets import Shown, as_text, back, key_id_of, page, reveal, wants_text
from app.web.shell import frame
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Here = NamedDependency[Site]


@get("/env/{slug:str}/keys/events", name="event_keys", include_in_schema=False)
async def event_keys(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Template:
    """The list; for htmx with target `#key-…` the masked row again."""
    return await _render(request, principal, environment, site)


@post("/env/{slug:str}/keys/events", guards=[require_role("admin")], request_max_body_size=LARGEST_FORM)
async def create_event_key(request: AnyRequest, principal: Who, environment: Where, site: Here) -> Response[Any]:
    """Make a key with a name."""
    given = (await Fields.of(request)).text("name")
    try:
        name = checked_name(given)
    except Refused as refused:
        return await _render(request, principal, environment, site, name=given, errors={"name": refused.message})
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        actor = principal.actor(network_of(request))
        made = await keys.create_event_key(
            conn, site.sealer, environment.scope, actor, kind=environment.kind, name=name
        )
    return back(environment, "events", "created", made.id)


@post("/env/{slug:str}/keys/events/{key_id:str}/reveal", guards=[require_role("member")], status_code=200)
async def reveal_event_key(
    *, request: AnyRequest, key_id: FromPath[str], principal: Who, environment: Where, site: Here
) -> Response[Any]:
    """Answer the secret in the form that was asked for."""
    found = key_id_of(key_id)
    secret = await reveal(keys.reveal_event_key, request, principal, environment, site, found)
    if wants_text(request):
        return as_text(secret)
    return await _render(request, principal, environment, site, shown=Shown(found, secret))


@post("/env/{slug:str}/keys/events/{key_id:str}/revoke", guards=[require_role("admin")])
async def revoke_event_key(
    *, request: AnyRequest, key_id: FromPath[str], principal: Who, environment: Where, site: Here
) -> Response[Any]:
    """End a key; apps that send with it are refused within five seconds."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        await keys.revoke_event_key(conn, environment.scope, principal.actor(network_of(request)), key_id_of(key_id))
    return back(environment, "events", "revoked", key_id_of(key_id))


async def _render(
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    site: Site,
    *,
    shown: Shown | None = None,
    name: str = "",
    errors: dict[str, str] | None = None,
) -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        listed = await rows.list_event_keys(conn, environment.scope)
        now = await conn.fetchval("select clock()")
        parent = await rows.parent_of(conn, environment.scope) if environment.kind == "branch" else None
    context = frame(principal, environment, "event-keys") | {
        "kind": "events",
        "parent": parent,
        "keys": listed,
        "now": now,
        "name": name,
        "errors": errors or {},
    }
    return page(request, context, shown)


ROUTER = Router(
    path="/",
    route_handlers=[event_keys, create_event_key, reveal_event_key, revoke_event_key],
    guards=[require_person],
)
