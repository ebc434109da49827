"""Keys of programs that ask the API: `/settings/api-keys`. A key is shown once, in the answer that made it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.accounts import api_keys
from app.domain.errors import Refused
from app.store import api_keys as rows
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import NotFound, Principal, network_of, require_role
from app.web.pages.settings.desk import around, not_in_dev, page
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]

#: Lives to choose from, in days; 0 is for ever.
LIVES = ((90, "90 days"), (30, "30 days"), (365, "One year"), (0, "Until it is revoked"))


@get("/api-keys", name="api_keys", guards=[not_in_dev, require_role("admin")], include_in_schema=False)
async def show_keys(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The keys, masked."""
    return await _render(request, principal, site)


@post("/api-keys", guards=[not_in_dev, require_role("admin")], request_max_body_size=LARGEST_FORM)
async def create(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Make a key for one environment and show it this once."""
    form = await Fields.of(request)
    given = {name: form.text(name) for name in ("name", "environment", "days")}
    days = next((days for days, _ in LIVES if str(days) == given["days"]), LIVES[0][0])
    try:
        async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
            context = await around(conn, request, principal, "api-keys")
            environment = next((e for e in context["environments"] if e.slug == given["environment"]), None)
            if environment is None or environment.archived_at is not None:
                raise Refused("environment_unknown", "Choose an environment that is in use.")
            made = await api_keys.create_api_key(
                conn,
                environment.scope,
                principal.actor(network_of(request)),
                name=given["name"],
                lasts=timedelta(days=days) if days else None,
            )
    except Refused as refused:
        field = "environment" if refused.code == "environment_unknown" else "name"
        return await _render(request, principal, site, given=given, errors={field: refused.message})
    return await _render(request, principal, site, secret=made.secret, made=made.id)


@post("/api-keys/{key_id:str}/revoke", guards=[not_in_dev, require_role("admin")], request_max_body_size=LARGEST_FORM)
async def revoke(request: AnyRequest, key_id: FromPath[str], principal: Who, site: Here) -> Redirect:
    """End a key; programs that use it are refused within five seconds."""
    try:
        found = UUID(key_id)
    except ValueError:
        raise NotFound from None
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        await api_keys.revoke_api_key(conn, principal.account_id, principal.actor(network_of(request)), found)
    return Redirect("/settings/api-keys?done=revoked", status_code=303)


async def _render(
    request: AnyRequest,
    principal: Principal,
    site: Site,
    *,
    given: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    secret: str = "",
    made: UUID | None = None,
) -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, "api-keys")
        listed = await rows.list_api_keys(conn, principal.account_id)
    context |= {
        "keys": listed,
        "given": given or {},
        "errors": errors or {},
        "secret": secret,
        "made": made,
        "lives": LIVES,
        "base_url": site.base_url,
    }
    return page("api-keys", context)


HANDLERS = (show_keys, create, revoke)
