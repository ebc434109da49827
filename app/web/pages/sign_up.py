"""Sign up: `/sign-up`. Whoever gets through is signed in and stands before the set-up guide."""

import math
from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from app.accounts import login, sign_up
from app.accounts.login import SignedIn
from app.accounts.sign_up import Closed, Faulty, Founded, Known, Sent, TooManySignUps
from app.web.cookies import session_cookie
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import find_principal, network_of, require_same_origin, session_id_of
from app.web.hx import PRIVATE
from app.web.letterbox import nudge_post
from app.web.site import Site

AnyRequest = Request[Any, Any, Any]

_TAKEN = "No account can be made with this address. If it is yours, sign in instead."


@get("/sign-up", name="sign_up", include_in_schema=False)
async def show_sign_up(request: AnyRequest, site: NamedDependency[Site]) -> Response[Any]:
    """Show the form, or say that this door is closed; who is signed in goes on."""
    if await find_principal(request) is not None:
        return Redirect("/", status_code=303)
    return _form(site, {}, is_open=await sign_up.is_open(site.ingest, site.sign_up))


@post("/sign-up", guards=[require_same_origin], request_max_body_size=LARGEST_FORM, include_in_schema=False)
async def submit_sign_up(request: AnyRequest, site: NamedDependency[Site]) -> Response[Any]:
    """Make the account and sign in; else the form again, with what was typed (but the password) and what is wrong."""
    if site.is_dev:
        return Redirect("/", status_code=303)
    form = await Fields.of(request)
    given = {"email": form.text("email"), "organization": form.text("organization")}
    network = network_of(request)
    outcome = await sign_up.sign_up(
        site.ingest,
        site.sealer,
        site.passwords,
        site.sign_up,
        **given,
        password=form.secret("password"),
        network=network,
        base_url=site.base_url,
        sends_mail=site.sends_mail,
    )
    match outcome:
        case Sent():
            nudge_post(site)
            return _form(site, given, is_sent=True)
        case Founded():
            return await _signed_in(request, site, given, form, f"/env/{outcome.environment.slug}/start")
        case Known():
            # A form that was sent twice, or somebody who forgot that they have an account: their password opens it.
            return await _signed_in(request, site, given, form, "/")
        case Faulty():
            return _form(site, given, errors=outcome.errors, status=422)
        case Closed():
            return _form(site, given, is_open=False, status=403)
        case TooManySignUps():
            seconds = max(1, math.ceil(outcome.retry_after.total_seconds()))
            response = _form(site, given, errors={"form": "Too many attempts. Try again in a few minutes."}, status=429)
            response.headers["Retry-After"] = str(seconds)
            return response


async def _signed_in(
    request: AnyRequest, site: Site, given: dict[str, str], form: Fields, target: str
) -> Response[Any]:
    outcome = await login.sign_in(
        site.pages,
        site.passwords,
        email=given["email"],
        password=form.secret("password"),
        network=network_of(request),
        agent=request.headers.get("user-agent", ""),
        limits=site.login_limits,
        ended_session=session_id_of(request),
    )
    if isinstance(outcome, SignedIn):
        return Redirect(target, status_code=303, cookies=[session_cookie(site, outcome.session_id)])
    return _form(site, given, errors={"email": _TAKEN}, status=422)


def _form(
    site: Site,
    given: dict[str, str],
    *,
    errors: dict[str, str] | None = None,
    is_open: bool = True,
    is_sent: bool = False,
    status: int = 200,
) -> Template:
    return Template(
        "pages/auth/sign_up.html",
        context={
            "given": given,
            "errors": errors or {},
            "is_open": is_open,
            "is_sent": is_sent,
            "providers": site.login_providers,
        },
        status_code=status,
        headers=PRIVATE,
        media_type="text/html",
    )


ROUTER = Router(path="/", route_handlers=[show_sign_up, submit_sign_up])
