"""How somebody is called and likes to see the pages: `/settings/profile`; which of their organizations they look at.

Theme, time zone and shortcuts are kept with the person and, as cookies, in the browser, so that no page asks for them.
"""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.accounts import endings, login
from app.domain.errors import Refused
from app.store import accounts, audit
from app.store.accounts import Person
from app.store.db import tenant
from app.web.cookies import preference_cookies, session_cookie
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import NotFound, Principal, network_of, session_id_of
from app.web.letterbox import nudge_post
from app.web.pages.settings.desk import around, not_in_dev, page, wrong_password
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]

_LONGEST_NAME = 100


@get("/", name="settings", include_in_schema=False)
async def show_settings() -> Redirect:
    """The first tab."""
    return Redirect("/settings/profile", status_code=303)


@get("/profile", name="profile", include_in_schema=False)
async def show_profile(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The form, filled; and the organizations one may look at."""
    return await _render(request, principal, site)


@post("/profile", request_max_body_size=LARGEST_FORM, include_in_schema=False)
async def save_profile(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Keep it, here and in the browser."""
    form = await Fields.of(request)
    name = " ".join(form.text("name").split())
    if len(name) > _LONGEST_NAME or not (name.isprintable() or not name):
        return await _render(request, principal, site, errors={"name": "A name has at most 100 characters."})
    theme = form.text("theme") if form.text("theme") in ("light", "dark") else ""
    zone = "local" if form.text("time_zone") == "local" else "utc"
    has_shortcuts = form.text("shortcuts") == "1"
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        await accounts.set_preferences(
            conn, principal.user_id, name=name, theme=theme, time_zone=zone, has_shortcuts=has_shortcuts
        )
    cookies = preference_cookies(site, theme=theme, time_zone=zone, has_shortcuts=has_shortcuts)
    return Redirect("/settings/profile?done=saved", status_code=303, cookies=cookies)


@post("/profile/delete", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def delete_person(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Delete one's own account, for good and at once; takes the password, or a fresh login where there is none."""
    given = (await Fields.of(request)).secret("password")
    if sentence := await wrong_password(site, principal, given, session_id=session_id_of(request)):
        return await _render(request, principal, site, errors={"delete": sentence})
    try:
        async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
            await endings.delete_person(
                conn,
                site.sealer,
                principal.actor(network_of(request)),
                base_url=site.base_url,
                sends_mail=site.sends_mail,
            )
    except Refused as refused:
        return await _render(request, principal, site, errors={"delete": refused.message})
    nudge_post(site)
    return Redirect("/login?done=deleted", status_code=303, cookies=[session_cookie(site, "", max_age=0)])


@post("/organizations/{org:str}/open", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def open_organization(request: AnyRequest, org: FromPath[str], principal: Who, site: Here) -> Redirect:
    """Look at another of one's organizations, under a new session id."""
    async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
        mine = await accounts.list_memberships(conn, principal.user_id)
        wanted = next((m for m in mine if m.account_slug == org), None)
        session_id = session_id_of(request)
        if wanted is None or session_id is None:
            raise NotFound
        new_id = await login.switch_account(conn, session_id, wanted.account_id)
        if new_id is None:
            raise NotFound
        await audit.insert_entry(conn, wanted.account_id, principal.actor(network_of(request)), "session.switched")
    return Redirect("/", status_code=303, cookies=[session_cookie(site, new_id)])


async def _render(
    request: AnyRequest, principal: Principal, site: Site, *, errors: dict[str, str] | None = None
) -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, "profile")
        person: Person = await accounts.find_person(conn, principal.user_id)
        mine = await accounts.list_memberships(conn, principal.user_id)
    return page("profile", context | {"person": person, "memberships": mine, "errors": errors or {}})


HANDLERS = (show_settings, show_profile, save_profile, delete_person, open_organization)
