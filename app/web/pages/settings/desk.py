"""What all tabs of the settings share: the frame around them, and the guards only they need."""

from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.response import Template

from app.accounts import login
from app.accounts.login import TooManyTries
from app.store.accounts import find_person, list_environments
from app.store.db import Connection
from app.web.guards import AnyConnection, NotFound, Principal
from app.web.hx import PRIVATE
from app.web.shell import frame
from app.web.site import Site, site_of

AnyRequest = Request[Any, Any, State]


@dataclass(frozen=True, slots=True)
class Tab:
    """One page of the settings. `role` is the least that sees it; `in_dev`: there where nobody signs in, too."""

    key: str
    words: str
    role: str = "viewer"
    in_dev: bool = False


TABS = (
    Tab("profile", "Profile", in_dev=True),
    Tab("security", "Password and sessions"),
    Tab("team", "Team"),
    Tab("api-keys", "API keys", "admin"),
    Tab("organization", "Organization"),
    Tab("audit", "Audit log", "admin", in_dev=True),
)
#: Why a password was not taken.
_NOT_YOURS = "This is not your password."
_NONE_YET = "Your account has no password. Confirm under Password and sessions that it is you, then repeat this."
_TOO_MANY = "Too many attempts. Try again in a few minutes."


async def not_in_dev(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Guard: pages about signing in are not there where nobody signs in."""
    if site_of(connection.app).is_dev:
        raise NotFound


async def around(conn: Connection, request: AnyRequest, principal: Principal, tab: str) -> dict[str, Any]:
    """The template variables of every tab: the frame, with the environment somebody came from in the side bar."""
    rows = await list_environments(conn, principal.account_id)
    asked = request.query_params.get("from", "")
    environment = next((e for e in rows if e.slug == asked), None) or next(
        (e for e in rows if e.archived_at is None), next(iter(rows), None)
    )
    if environment is None:
        raise NotFound
    context = frame(principal, environment, f"settings-{tab}")
    seen = [t for t in TABS if principal.may(t.role) and (t.in_dev or not context["is_dev"])]
    return context | {
        "tab": tab,
        "tabs_shown": [(t.key, t.words, f"/settings/{t.key}", None, None) for t in seen],
        "environments": rows,
        "now": await conn.fetchval("select clock()"),
        "done": request.query_params.get("done", ""),
        "errors": {},
    }


def page(tab: str, context: dict[str, Any], *, status: int | None = None) -> Template:
    """A tab's page; 422 when something on it is wrong."""
    code = status or (422 if context["errors"] else 200)
    return Template(f"pages/settings/{tab}.html", context=context, headers=dict(PRIVATE), status_code=code)


async def wrong_password(site: Site, principal: Principal, password: str, *, session_id: str | None = None) -> str:
    """The sentence beside a password that does not prove who asks; empty when it does.

    Who has none proves themselves by a fresh login at their provider, which the session `session_id` remembers a while.
    """
    if not password and session_id and await login.is_proven(site.ingest, session_id):
        return ""
    if not password:
        async with site.ingest.acquire(timeout=2) as conn:
            person = await find_person(conn, principal.user_id)
        return "Enter your password." if person.password_hash else _NONE_YET
    proven = await login.prove(site.ingest, site.passwords, principal.user_id, password, limits=site.login_limits)
    if isinstance(proven, TooManyTries):
        return _TOO_MANY
    return "" if proven else _NOT_YOURS
