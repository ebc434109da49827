"""The organization's name, and the way out of it: `/settings/organization`."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from app.accounts import endings
from app.accounts.environments import checked_name
from app.domain.errors import Refused
from app.store import accounts, audit
from app.store import endings as ending_rows
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import Principal, network_of, require_role, session_id_of
from app.web.letterbox import nudge_post
from app.web.pages.settings.desk import around, not_in_dev, page, wrong_password
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]


@get("/organization", name="organization", guards=[not_in_dev], include_in_schema=False)
async def show_organization(request: AnyRequest, principal: Who, site: Here) -> Template:
    """Name, slug and the danger zone."""
    return await _render(request, principal, site)


@post("/organization", guards=[not_in_dev, require_role("admin")], request_max_body_size=LARGEST_FORM)
async def rename(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Give it another name; addresses stay as they are."""
    given = (await Fields.of(request)).text("name")
    try:
        name = checked_name(given)
    except Refused as refused:
        return await _render(request, principal, site, name=given, errors={"name": refused.message})
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        if await accounts.set_account_name(conn, principal.account_id, name):
            actor = principal.actor(network_of(request))
            await audit.insert_entry(conn, principal.account_id, actor, "account.renamed", subject=name)
    return Redirect("/settings/organization?done=renamed", status_code=303)


@post("/organization/delete", guards=[not_in_dev, require_role("owner")], request_max_body_size=LARGEST_FORM)
async def delete(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Ask for its end; takes its name, typed, and the password."""
    form = await Fields.of(request)
    given = form.secret("password")
    if sentence := await wrong_password(site, principal, given, session_id=session_id_of(request)):
        return await _render(request, principal, site, errors={"delete": sentence})
    try:
        async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
            await endings.delete_account(
                conn,
                site.sealer,
                principal.account_id,
                principal.actor(network_of(request)),
                name=principal.account_name,
                typed=form.text("typed"),
                base_url=site.base_url,
                sends_mail=site.sends_mail,
            )
    except Refused as refused:
        return await _render(request, principal, site, errors={"delete": refused.message})
    nudge_post(site)
    return Redirect("/settings/organization?done=ending", status_code=303)


@post("/organization/keep", guards=[not_in_dev, require_role("owner")], request_max_body_size=LARGEST_FORM)
async def keep(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Keep it after all."""
    try:
        async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
            await endings.keep_account(conn, principal.account_id, principal.actor(network_of(request)))
    except Refused as refused:
        return await _render(request, principal, site, errors={"delete": refused.message})
    return Redirect("/settings/organization?done=kept", status_code=303)


async def _render(
    request: AnyRequest,
    principal: Principal,
    site: Site,
    *,
    name: str | None = None,
    errors: dict[str, str] | None = None,
) -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, "organization")
        mine = await accounts.list_memberships(conn, principal.user_id)
        person = await accounts.find_person(conn, principal.user_id)
        ending = await ending_rows.find_ending(conn, principal.account_id)
    slug = next((m.account_slug for m in mine if m.account_id == principal.account_id), "")
    context |= {
        "name": principal.account_name if name is None else name,
        "slug": slug,
        "has_password": person.password_hash is not None,
        "ending": ending,
        "grace_days": endings.GRACE.days,
        "errors": errors or {},
    }
    return page("organization", context)


HANDLERS = (show_organization, rename, delete, keep)
