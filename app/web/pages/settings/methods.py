"""The ways somebody can sign in: connect and disconnect providers, prove oneself anew at one. On `/settings/security`."""

from typing import Any

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect

from app.accounts import providers
from app.domain.errors import Refused
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import NotFound, Principal, network_of, session_id_of
from app.web.letterbox import nudge_post
from app.web.pages.providers import go_to, provider_of
from app.web.pages.settings.desk import not_in_dev, wrong_password
from app.web.pages.settings.security import render
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]


@post("/security/methods/{provider:str}/connect", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def connect(request: AnyRequest, provider: FromPath[str], principal: Who, site: Here) -> Response[Any]:
    """Go to the provider; who comes back from there can sign in with it. Takes the password: it opens the account."""
    found = provider_of(site, provider)
    given = (await Fields.of(request)).secret("password")
    if sentence := await wrong_password(site, principal, given, session_id=session_id_of(request)):
        return await render(request, principal, site, errors={"method": sentence})
    return await go_to(request, site, found, "link")


@post("/security/methods/{provider:str}/disconnect", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def disconnect(request: AnyRequest, provider: FromPath[str], principal: Who, site: Here) -> Response[Any]:
    """Take a way in from the account; never the last one."""
    found = provider_of(site, provider)
    given = (await Fields.of(request)).secret("password")
    if sentence := await wrong_password(site, principal, given, session_id=session_id_of(request)):
        return await render(request, principal, site, errors={"method": sentence})
    try:
        async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
            is_done = await providers.unlink(
                conn,
                site.sealer,
                site.login_providers,
                found,
                principal.user_id,
                principal.actor(network_of(request)),
                base_url=site.base_url,
                sends_mail=site.sends_mail,
            )
    except Refused as refused:
        return await render(request, principal, site, errors={"method": refused.message})
    if not is_done:
        raise NotFound
    nudge_post(site)
    return Redirect("/settings/security?done=disconnected", status_code=303)


@post("/security/methods/{provider:str}/prove", guards=[not_in_dev], request_max_body_size=LARGEST_FORM)
async def prove(request: AnyRequest, provider: FromPath[str], site: Here) -> Response[Any]:
    """Go to the provider to sign in there anew, which counts for a while as a password does."""
    found = provider_of(site, provider)
    if not found.can_prove_again:
        raise NotFound
    return await go_to(request, site, found, "prove", next_path="/settings/security?done=proven")


HANDLERS = (connect, disconnect, prove)
