"""Password and sessions of the person who looks: `/settings/security`."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.accounts import letters, login, outbox, recovery
from app.accounts.passwords import PasswordRefused, check_password
from app.store import accounts, audit, identities, mails, sessions
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import NotFound, Principal, network_of, session_id_of
from app.web.letterbox import nudge_post
from app.web.pages.settings.desk import around, not_in_dev, page, wrong_password
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]


@get("/security", name="security", guards=[not_in_dev], include_in_schema=False)
async def show_security(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The form for a new password, and where one is signed in."""
    return await render(request, principal, site)


@post("/security/password", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def change_password(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Change it; all other sessions end, and the person is told by mail."""
    form = await Fields.of(request)
    errors: dict[str, str] = {}
    try:
        check_password(form.secret("new"), email=principal.email)
    except PasswordRefused as refused:
        errors["new"] = refused.message if form.secret("new") else "Enter a password of at least 12 characters."
    given, session_id = form.secret("current"), session_id_of(request)
    if not errors and (sentence := await wrong_password(site, principal, given, session_id=session_id)):
        errors["current"] = sentence
    if errors:
        return await render(request, principal, site, errors=errors)
    hashed = await site.passwords.hash(form.secret("new"))
    async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
        await accounts.set_password_hash(conn, principal.user_id, hashed, is_new_password=True)
        await login.sign_out_everywhere(conn, principal.user_id, but=session_id_of(request))
        await mails.delete_links_of(conn, principal.user_id)
        await outbox.put(
            conn,
            site.sealer,
            letters.password_changed(principal.email, site.base_url),
            "password_changed",
            is_wanted=site.sends_mail,
        )
        actor = principal.actor(network_of(request))
        await recovery.note_everywhere(conn, principal.user_id, actor, "password.changed")
    nudge_post(site)
    return Redirect("/settings/security?done=password", status_code=303)


@post("/security/sessions/{handle:str}/end", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def end_session(request: AnyRequest, handle: FromPath[str], principal: Who, site: Here) -> Redirect:
    """End one session of one's own."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        mine = await sessions.list_sessions(conn, principal.user_id, idle=login.IDLE)
        found = next((s for s in mine if login.handle_of(s.id_hash) == handle), None)
        if found is None:
            raise NotFound
        await sessions.delete_session(conn, found.id_hash)
        await audit.insert_entry(conn, principal.account_id, principal.actor(network_of(request)), "session.ended")
    is_own = login.is_session(found.id_hash, session_id_of(request))
    return Redirect("/login" if is_own else "/settings/security?done=session", status_code=303)


@post("/security/sessions/end", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def end_others(request: AnyRequest, principal: Who, site: Here) -> Redirect:
    """End every session but this one."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        ended = await login.sign_out_everywhere(conn, principal.user_id, but=session_id_of(request))
        actor = principal.actor(network_of(request))
        await audit.insert_entry(
            conn, principal.account_id, actor, "session.ended_elsewhere", detail={"sessions": ended}
        )
    return Redirect("/settings/security?done=others", status_code=303)


async def render(
    request: AnyRequest, principal: Principal, site: Site, *, errors: dict[str, str] | None = None
) -> Template:
    """The page: password, other ways in, sessions."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, "security")
        person = await accounts.find_person(conn, principal.user_id)
        mine = await sessions.list_sessions(conn, principal.user_id, idle=login.IDLE)
    own = session_id_of(request)
    async with site.ingest.acquire(timeout=2) as conn:
        connected = {one.issuer: one for one in await identities.list_identities(conn, principal.user_id)}
    is_proven = not person.password_hash and own is not None and await login.is_proven(site.ingest, own)
    context |= {
        "person": person,
        "sessions": [(s, login.handle_of(s.id_hash), login.is_session(s.id_hash, own)) for s in mine],
        "methods": [(provider, connected.get(provider.issuer)) for provider in site.login_providers],
        "is_proven": is_proven,
        "sends_mail": site.sends_mail,
        "errors": errors or {},
    }
    return page("security", context)


HANDLERS = (show_security, change_password, end_session, end_others)
