"""Errors: failures put together by what went wrong, one group with its runs, and muting what is known."""

from typing import Any
from urllib.parse import urlencode

from litestar import Request, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.reads import error_groups, functions
from app.reads.error_groups import ErrorGroup
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.deeds import note
from app.web.guards import Principal, require_person, require_role
from app.web.hx import PRIVATE
from app.web.pages.functions import function_frame
from app.web.pages.provided import provide_page_pool
from app.web.shell import frame

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
AnyRequest = Request[Any, Any, State]

_LONGEST_REASON = 500
_MUTE = (
    "insert into error_mutes (environment_id, fingerprint, account_id, muted_by, reason) values ($1, $2, $3, $4, $5)"
    " on conflict (environment_id, fingerprint) do nothing"
)
_UNMUTE = "delete from error_mutes where environment_id = $1 and fingerprint = $2"


@get("/env/{slug:str}/errors", name="errors", include_in_schema=False)
async def errors_list(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """The groups of the last week; with `state=muted` those that are muted."""
    is_muted = request.query_params.get("state") == "muted"
    async with tenant(page_pool, principal.account_id) as connection:
        found = await error_groups.list_errors(connection, environment.id, is_muted=is_muted)
    context = frame(principal, environment, "errors") | _bases(slug) | {"found": found, "is_muted": is_muted}
    return Template("pages/error_groups/list.html", context=context | {"now": found.now}, headers=PRIVATE)


@get("/env/{slug:str}/errors/{fingerprint:str}", name="error_group", include_in_schema=False)
async def error_group(
    *, slug: FromPath[str], fingerprint: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """One group: its message, where and since when, its newest runs."""
    async with tenant(page_pool, principal.account_id) as connection:
        group, now = await _find(connection, environment, fingerprint)
        runs = await error_groups.runs_of_error(connection, environment.id, None, group.fingerprint)
    context = frame(principal, environment, "errors") | _bases(slug) | {"group": group, "runs": runs, "now": now}
    return Template("pages/error_groups/show.html", context=context, headers=PRIVATE)


@post(
    "/env/{slug:str}/errors/{fingerprint:str}/mute",
    name="error_mute",
    include_in_schema=False,
    guards=[require_role("member")],
)
async def error_mute(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fingerprint: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
) -> Redirect:
    """Take the group off the list; its runs fail and count as before."""
    text = (await request.form()).get("reason")
    reason = (text if isinstance(text, str) else "").replace("\x00", "").strip()[:_LONGEST_REASON]
    async with tenant(page_pool, principal.account_id) as connection:
        group, _ = await _find(connection, environment, fingerprint)
        await connection.execute(
            _MUTE, environment.id, group.fingerprint, principal.account_id, principal.email, reason
        )
    await note(
        page_pool, request, principal, environment, "error.muted", subject=fingerprint, detail={"reason": reason}
    )
    return Redirect(f"/env/{slug}/errors/{group.fingerprint}", status_code=303)


@post(
    "/env/{slug:str}/errors/{fingerprint:str}/unmute",
    name="error_unmute",
    include_in_schema=False,
    guards=[require_role("member")],
)
async def error_unmute(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fingerprint: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
) -> Redirect:
    """Put the group back on the list."""
    async with tenant(page_pool, principal.account_id) as connection:
        group, _ = await _find(connection, environment, fingerprint)
        await connection.execute(_UNMUTE, environment.id, group.fingerprint)
    await note(page_pool, request, principal, environment, "error.unmuted", subject=fingerprint)
    return Redirect(f"/env/{slug}/errors/{group.fingerprint}", status_code=303)


@get("/env/{slug:str}/functions/{fn:str}/errors", name="function_errors", include_in_schema=False)
async def function_errors(
    *, slug: FromPath[str], fn: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """The tab Errors of a function: its groups."""
    async with tenant(page_pool, principal.account_id) as connection:
        page = await functions.find_function(connection, environment.id, fn)
        if page is None:
            raise NotFoundException
        found = await error_groups.list_errors(connection, environment.id, function_id=page.id)
    context = function_frame(principal, environment, slug, page) | {"errors_base": f"/env/{slug}/errors"}
    context |= {"found": found, "is_muted": False, "tab": "errors"}
    return Template("pages/functions/errors.html", context=context, headers=PRIVATE)


async def _find(connection: Any, environment: Environment, fingerprint: str) -> tuple[ErrorGroup, Any]:
    if "\x00" in fingerprint:
        raise NotFoundException
    found = await error_groups.list_errors(connection, environment.id, fingerprint=fingerprint)
    if not found.groups:
        raise NotFoundException
    return found.groups[0], found.now


def _bases(slug: str) -> dict[str, Any]:
    return {
        "errors_base": f"/env/{slug}/errors",
        "functions_base": f"/env/{slug}/functions",
        "runs_base": f"/env/{slug}/runs",
        "replay_base": f"/env/{slug}/bulk/new?{urlencode({'action': 'replay', 'all': '1', 'status': 'failed'})}",
    }


HANDLERS: tuple[Any, ...] = (errors_list, error_group, error_mute, error_unmute, function_errors)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool)},
)
