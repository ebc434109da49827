"""Through a login provider: `/login/{key}`, `/login/{key}/callback`, and the name of a new organization.

The way out is a POST of our own page, so that nobody else's page begins one. It answers with a page that goes on by
itself: the policy `form-action 'self'` rightly keeps a form from ending at another origin.
"""

from typing import Any

import structlog
from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.accounts import providers
from app.accounts.environments import NameInvalid
from app.accounts.provider_refusals import JourneyOver
from app.accounts.providers import Connected, In, NameWanted, Returned, Visitor
from app.domain.errors import Outside, Refused
from app.domain.providers import Provider
from app.store.identities import Purpose
from app.web.cookies import cookies_of, journey_cookie, session_cookie
from app.web.errors import fault_of
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import (
    NotFound,
    find_principal,
    local_path,
    network_of,
    require_same_origin,
    session_id_of,
)
from app.web.hx import PRIVATE
from app.web.site import Site

log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, State]
Here = NamedDependency[Site]

#: Longest text of a return that is looked at; codes of large providers have some 1,500 characters.
_LONGEST = 4096
_LONGEST_TOKEN = 200
#: Codes that say that a provider, or how it is set here, is at fault; operators find them in the log.
_THEIR_FAULT = frozenset({"provider_down", "provider_refused", "token_invalid", "issuer_invalid", "nonce_invalid"})


@post("/login/{provider:str}", guards=[require_same_origin], request_max_body_size=LARGEST_FORM)
async def leave(request: AnyRequest, provider: FromPath[str], site: Here) -> Response[Any]:
    """Go to a provider, to sign in, sign up or join."""
    found = provider_of(site, provider)
    form = await Fields.of(request)
    return await go_to(
        request,
        site,
        found,
        "sign_in",
        next_path=local_path(form.text("next")),
        invitation=form.text("invitation")[:_LONGEST_TOKEN],
    )


@get("/login/{provider:str}/callback", name="callback", include_in_schema=False)
async def come_back(request: AnyRequest, provider: FromPath[str], site: Here) -> Response[Any]:
    """Back from a provider: signed in, connected, proven, asked for a name, or told what went wrong."""
    found = provider_of(site, provider)
    visitor = await visitor_of(request, site)
    query = request.query_params
    state, code, error = (query.get(name, "")[:_LONGEST] for name in ("state", "code", "error"))
    back = Returned(state, code, error, query["iss"][:_LONGEST] if "iss" in query else None)
    assert site.asker is not None
    try:
        outcome = await providers.arrive(
            site.ingest,
            site.sealer,
            site.asker,
            found,
            visitor,
            back,
            base_url=site.base_url,
            policy=site.sign_up,
            sends_mail=site.sends_mail,
        )
    except (Refused, Outside) as refused:
        return problem(site, found, refused, is_signed_in=visitor.who is not None)
    match outcome:
        case In():
            return await _in(site, outcome)
        case NameWanted():
            return Redirect(f"/sign-up/{outcome.token}", status_code=303)
        case Connected():
            return Redirect("/settings/security?done=connected", status_code=303)


@get("/sign-up/{token:str}", name="newcomer", include_in_schema=False)
async def show_newcomer(request: AnyRequest, token: FromPath[str], site: Here) -> Response[Any]:
    """Ask a new person how their organization is called."""
    return await _newcomer(request, site, token)


@post("/sign-up/{token:str}", guards=[require_same_origin], request_max_body_size=LARGEST_FORM)
async def submit_newcomer(request: AnyRequest, token: FromPath[str], site: Here) -> Response[Any]:
    """Make the account and sign in."""
    organization = (await Fields.of(request)).text("organization")
    visitor = await visitor_of(request, site)
    known = await providers.find_newcomer(site.ingest, site.sealer, visitor, token[:_LONGEST_TOKEN])
    if known is None:
        return _over()
    found = provider_of(site, known[1])
    try:
        outcome = await providers.found(
            site.ingest, site.sealer, found, visitor, token=token, organization=organization, policy=site.sign_up
        )
    except NameInvalid as refused:
        sentence = refused.message if organization else "Enter the name of your organization."
        return await _newcomer(request, site, token, organization, {"organization": sentence})
    except JourneyOver:
        return _over()
    except Refused as refused:
        return problem(site, found, refused)
    return await _in(site, outcome)


async def go_to(
    request: AnyRequest,
    site: Site,
    provider: Provider,
    purpose: Purpose,
    *,
    next_path: str = "/",
    invitation: str = "",
) -> Response[Any]:
    """Send the browser to a provider; it goes by itself, or by the link on the page."""
    visitor = await visitor_of(request, site)
    assert site.asker is not None
    try:
        url = await providers.depart(
            site.ingest,
            site.sealer,
            site.asker,
            provider,
            visitor,
            purpose=purpose,
            base_url=site.base_url,
            next_path=next_path,
            invitation=invitation,
        )
    except (Refused, Outside) as refused:
        return problem(site, provider, refused, is_signed_in=visitor.who is not None)
    return Template(
        "pages/auth/leave.html",
        context={"provider": provider, "url": url},
        headers={**PRIVATE, "Refresh": f"0; url={url}"},
        cookies=[journey_cookie(site, visitor.browser)],
        media_type="text/html",
    )


def provider_of(site: Site, key: str) -> Provider:
    """The provider with this key. Raises `NotFound`."""
    found = next((one for one in site.login_providers if one.key == key), None)
    if found is None or site.asker is None:
        raise NotFound
    return found


async def visitor_of(request: AnyRequest, site: Site) -> Visitor:
    """Who asks. A browser that left before keeps its secret, so that two tabs can be away at once."""
    browser = request.cookies.get(site.journey_cookie_name, "")
    principal = None if site.is_dev else await find_principal(request)
    return Visitor(
        browser if 20 <= len(browser) <= _LONGEST_TOKEN else providers.new_browser(),
        network_of(request),
        request.headers.get("user-agent", ""),
        principal.user_id if principal else None,
        session_id_of(request),
    )


def problem(site: Site, provider: Provider, refused: Refused | Outside, *, is_signed_in: bool = False) -> Template:
    """The page that says what went wrong, with a stable code, and where to go from there."""
    fault = fault_of(refused)
    if fault.code in _THEIR_FAULT:
        log.warning("login.provider_failed", provider=provider.key, code=fault.code, cause=_cause(refused))
    return Template(
        "pages/auth/provider_problem.html",
        context={
            "provider": provider,
            "code": fault.code,
            "message": fault.message,
            "is_signed_in": is_signed_in,
            "sends_mail": site.sends_mail,
        },
        status_code=fault.status,
        headers={**PRIVATE, **fault.headers},
        media_type="text/html",
    )


async def _in(site: Site, outcome: In) -> Redirect:
    cookies = [session_cookie(site, outcome.session_id), *await cookies_of(site, outcome.user_id)]
    return Redirect(outcome.next_path, status_code=303, cookies=cookies)


async def _newcomer(
    request: AnyRequest, site: Site, token: str, organization: str = "", errors: dict[str, str] | None = None
) -> Template:
    visitor = await visitor_of(request, site)
    known = await providers.find_newcomer(site.ingest, site.sealer, visitor, token[:_LONGEST_TOKEN])
    if known is None:
        return _over()
    profile, key = known
    context = {
        "token": token,
        "profile": profile,
        "provider": provider_of(site, key),
        "organization": organization,
        "errors": errors or {},
    }
    return Template(
        "pages/auth/newcomer.html",
        context=context,
        status_code=422 if errors else 200,
        headers=PRIVATE,
        media_type="text/html",
    )


def _over() -> Template:
    return Template("pages/auth/link_over.html", context={"kind": "journey"}, status_code=410, headers=PRIVATE)


def _cause(refused: Exception) -> str:
    """What was wrong, as far as it holds nothing secret: the kinds of errors behind it."""
    names: list[str] = []
    error = refused.__cause__
    while error is not None and len(names) < 4:
        names.append(str(getattr(error, "kind", "") or type(error).__name__))
        error = error.__cause__
    return " < ".join(names)


ROUTER = Router(path="/", route_handlers=[leave, come_back, show_newcomer, submit_newcomer])
