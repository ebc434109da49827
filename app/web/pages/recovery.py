"""Links that come by mail: `/reset`, `/reset/{token}`, `/verify/{token}`, `/invite/{token}`.

Looking at a link changes nothing (mail programs look, too); the button on its page does.
"""

import math
from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.accounts import login, members, recovery, sign_up
from app.accounts.members import Joined, SignInFirst
from app.accounts.recovery import AskedTooOften, BadAddress, Changed, LinkOver
from app.domain.ids import AccountId
from app.store.audit import Actor
from app.web.cookies import session_cookie
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import find_principal, network_of, require_same_origin, session_id_of
from app.web.hx import PRIVATE
from app.web.letterbox import nudge_post
from app.web.site import Site

AnyRequest = Request[Any, Any, Any]
Here = NamedDependency[Site]

_LONGEST_TOKEN = 200


@get("/reset", name="reset", include_in_schema=False)
async def show_reset(site: Here) -> Response[Any]:
    """Ask for the address; or say how to get a new password where no mail is sent."""
    return _page("reset", {"sends_mail": site.sends_mail, "given": {}, "errors": {}, "is_sent": False})


@post("/reset", include_in_schema=False)
async def submit_reset(request: AnyRequest, site: Here) -> Response[Any]:
    """The same answer for every address."""
    context: dict[str, Any] = {"sends_mail": site.sends_mail, "given": {}, "errors": {}, "is_sent": False}
    if not site.sends_mail:
        return _page("reset", context)
    email = (await Fields.of(request)).text("email")
    context["given"] = {"email": email}
    outcome = await recovery.ask_for_reset(
        site.ingest, site.sealer, site.base_url, email=email, network=network_of(request)
    )
    if isinstance(outcome, BadAddress):
        return _page("reset", context | {"errors": {"email": outcome.sentence}}, status=422)
    if isinstance(outcome, AskedTooOften):
        answer = _page("reset", context | {"errors": {"form": _TOO_OFTEN}}, status=429)
        answer.headers["Retry-After"] = str(max(1, math.ceil(outcome.retry_after.total_seconds())))
        return answer
    nudge_post(site)
    return _page("reset", context | {"is_sent": True})


@get("/reset/{token:str}", name="reset_link", include_in_schema=False)
async def show_new_password(token: FromPath[str], site: Here) -> Response[Any]:
    """The form for the new password."""
    email = await recovery.find_reset(site.ingest, token) if len(token) <= _LONGEST_TOKEN else None
    if email is None:
        return _over("reset")
    return _page("new_password", {"token": token, "email": email, "errors": {}})


@post("/reset/{token:str}", include_in_schema=False)
async def submit_new_password(request: AnyRequest, token: FromPath[str], site: Here) -> Response[Any]:
    """Set it. Everybody who was signed in as this person is not any more; signing in again is theirs to do."""
    outcome = await recovery.reset(
        site.ingest,
        site.sealer,
        site.passwords,
        site.base_url,
        token=token[:_LONGEST_TOKEN],
        password=(await Fields.of(request)).secret("password"),
        network=network_of(request),
    )
    if isinstance(outcome, LinkOver):
        return _over("reset")
    if isinstance(outcome, Changed):
        nudge_post(site)
        return Redirect("/login?done=reset", status_code=303, cookies=[session_cookie(site, "", max_age=0)])
    email = await recovery.find_reset(site.ingest, token) or ""
    context = {"token": token, "email": email, "errors": {"password": outcome.sentence}}
    return _page("new_password", context, status=422)


@get("/verify/{token:str}", name="verify", include_in_schema=False)
async def show_verify(token: FromPath[str], site: Here) -> Response[Any]:
    """The button that ends a sign-up."""
    email = await sign_up.find_sign_up(site.ingest, token) if len(token) <= _LONGEST_TOKEN else None
    return _over("sign_up") if email is None else _page("verify", {"token": token, "email": email})


@post("/verify/{token:str}", include_in_schema=False)
async def submit_verify(request: AnyRequest, token: FromPath[str], site: Here) -> Response[Any]:
    """Make the account and sign in."""
    network = network_of(request)
    outcome = await sign_up.finish(site.ingest, site.sealer, token=token[:_LONGEST_TOKEN], network=network)
    if isinstance(outcome, LinkOver):
        return _over("sign_up")
    actor = Actor(outcome.email, outcome.user_id, network)
    target = f"/env/{outcome.environment.slug}/start"
    return await _signed_in(request, site, actor, outcome.environment.scope.account_id, target)


@get("/invite/{token:str}", name="invite", include_in_schema=False)
async def show_invite(request: AnyRequest, token: FromPath[str], site: Here) -> Response[Any]:
    """Who invites to what, and the way in: a button, a form, or the login first."""
    return await _invite(request, token, site)


@post("/invite/{token:str}", include_in_schema=False)
async def submit_invite(request: AnyRequest, token: FromPath[str], site: Here) -> Response[Any]:
    """Join, and look at the organization that was joined."""
    form = await Fields.of(request)
    principal = None if site.is_dev else await find_principal(request)
    network = network_of(request)
    outcome = await members.join(
        site.ingest,
        site.passwords,
        token=token[:_LONGEST_TOKEN],
        who=principal.user_id if principal else None,
        name=" ".join(form.text("name").split())[:100],
        password=form.secret("password"),
        network=network,
    )
    match outcome:
        case LinkOver():
            return _over("invite")
        case Joined():
            actor = Actor(outcome.email, outcome.user_id, network)
            return await _signed_in(request, site, actor, outcome.account_id, "/")
        case SignInFirst():
            return await _invite(request, token, site)
        case members.BadPassword():
            return await _invite(
                request, token, site, name=form.text("name")[:100], errors={"password": outcome.sentence}
            )


async def _invite(
    request: AnyRequest, token: str, site: Site, *, name: str = "", errors: dict[str, str] | None = None
) -> Response[Any]:
    found = await members.find_invitation(site.ingest, token) if len(token) <= _LONGEST_TOKEN else None
    if found is None or site.is_dev:
        return _over("invite")
    invitation, is_known = found
    principal = await find_principal(request)
    is_theirs = principal is not None and principal.email.lower() == invitation.email.lower()
    context = {
        "token": token,
        "invitation": invitation,
        "is_known": is_known,
        "is_theirs": is_theirs,
        "other": principal.email if principal and not is_theirs else "",
        "csrf": principal.csrf_token if principal else "",
        "name": name,
        "errors": errors or {},
        "providers": site.login_providers,
    }
    return _page("invite", context, status=422 if errors else 200)


async def _signed_in(
    request: AnyRequest, site: Site, actor: Actor, account_id: AccountId, target: str
) -> Response[Any]:
    """Begin a session for somebody whose address was just proven."""
    async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
        session_id = await login.begin_session(
            conn,
            actor,
            account_id,
            agent=request.headers.get("user-agent", ""),
            ended_session=session_id_of(request),
        )
    return Redirect(target, status_code=303, cookies=[session_cookie(site, session_id)])


def _over(kind: str) -> Template:
    return _page("link_over", {"kind": kind}, status=410)


def _page(name: str, context: dict[str, Any], *, status: int = 200) -> Template:
    return Template(f"pages/auth/{name}.html", context=context, status_code=status, headers=dict(PRIVATE))


_TOO_OFTEN = "Too many attempts. Try again in a few minutes."

ROUTER = Router(
    path="/",
    route_handlers=[
        show_reset, submit_reset, show_new_password, submit_new_password, show_verify, submit_verify, show_invite,
        submit_invite,
    ],
    guards=[require_same_origin],
    request_max_body_size=LARGEST_FORM,
)  # fmt: skip
