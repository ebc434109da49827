"""Sign in and out: `/login`, `/logout`."""

import math
from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from app.accounts import login, sign_up
from app.accounts.login import SignedIn, TooManyTries, WrongLogin
from app.domain.errors import Outside
from app.store.db import CONNECTION_LOST
from app.web.cookies import cookies_of, session_cookie
from app.web.guards import (
    find_principal,
    local_path,
    network_of,
    require_person,
    require_same_origin,
    session_id_of,
)
from app.web.site import Site

AnyRequest = Request[Any, Any, Any]

_LARGEST_FORM_BYTES = 16 * 1024
_MISSING = {"email": "Enter your e-mail address.", "password": "Enter your password."}
_WRONG = "E-mail address or password is wrong."


@get("/login", name="login")
async def show_login(request: AnyRequest, site: NamedDependency[Site]) -> Response[Any]:
    """Show the form, or go on when somebody is signed in already."""
    target = local_path(request.query_params.get("next"))
    if await find_principal(request) is not None:
        return Redirect(target, status_code=303)
    done = request.query_params.get("done", "")
    return _form(site, target, has_sign_up=await _has_sign_up(site), done=done)


@post("/login", guards=[require_same_origin], request_max_body_size=_LARGEST_FORM_BYTES)
async def submit_login(request: AnyRequest, site: NamedDependency[Site]) -> Response[Any]:
    """Sign in and go on to `next`; else the form again, with the address kept and a sentence beside what is wrong."""
    if site.is_dev:
        return Redirect("/", status_code=303)
    form = await request.form()
    email, password, target = (_text(form.get(name)) for name in ("email", "password", "next"))
    target = local_path(target)
    given = {"email": email.strip(), "password": password}
    errors = {name: _MISSING[name] for name, value in given.items() if not value}
    if errors:
        return _form(site, target, email=email, errors=errors, status=422)
    outcome = await login.sign_in(
        site.pages,
        site.passwords,
        email=email,
        password=password,
        network=network_of(request),
        agent=request.headers.get("user-agent", ""),
        limits=site.login_limits,
        ended_session=session_id_of(request),
    )
    match outcome:
        case SignedIn():
            cookies = [session_cookie(site, outcome.session_id), *await cookies_of(site, outcome.user_id)]
            return Redirect(target, status_code=303, cookies=cookies)
        case WrongLogin():
            return _form(site, target, email=email, errors={"password": _WRONG}, status=401)
        case TooManyTries():
            seconds = max(1, math.ceil(outcome.retry_after.total_seconds()))
            response = _form(site, target, email=email, errors={"form": _too_many(seconds)}, status=429)
            response.headers["Retry-After"] = str(seconds)
            return response


@post("/logout", guards=[require_person], request_max_body_size=_LARGEST_FORM_BYTES)
async def submit_logout(request: AnyRequest, site: NamedDependency[Site]) -> Response[Any]:
    """End the session and show the login."""
    session_id = session_id_of(request)
    if session_id is not None:
        await login.sign_out(site.pages, session_id, network=network_of(request))
    return Redirect("/login", status_code=303, cookies=[session_cookie(site, "", max_age=0)])


def _form(
    site: Site,
    target: str,
    *,
    email: str = "",
    errors: dict[str, str] | None = None,
    has_sign_up: bool = False,
    done: str = "",
    status: int = 200,
) -> Template:
    return Template(
        "pages/auth/login.html",
        context={
            "next": target,
            "email": email,
            "errors": errors or {},
            "has_sign_up": has_sign_up,
            "done": done,
            "providers": site.login_providers,
        },
        status_code=status,
        media_type="text/html",
    )


async def _has_sign_up(site: Site) -> bool:
    """Whether the form links to the sign-up. The form itself needs no database."""
    try:
        return await sign_up.is_open(site.ingest, site.sign_up)
    except (Outside, *CONNECTION_LOST):
        return False


def _text(value: object) -> str:
    return value.replace("\x00", "") if isinstance(value, str) else ""


def _too_many(seconds: int) -> str:
    minutes = math.ceil(seconds / 60)
    return f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."


ROUTER = Router(path="/", route_handlers=[show_login, submit_login, submit_logout])
