"""Apps: the cards, one app with its functions and syncs, a new sync with its progress, and a check of what is wrong."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.domain.ids import parse_ulid, time_of
from app.domain.protocol.addresses import is_app_address
from app.engine.pause import archive_app, unarchive_app
from app.engine.sync import Synced, SyncFailed
from app.reads import apps, functions
from app.reads.apps import AppRow, SyncPage
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.app_calls import STEPS, AppCalls, findings_of
from app.web.deeds import note
from app.web.guards import Principal, require_person, require_role
from app.web.hx import PRIVATE
from app.web.pages.provided import provide_page_pool
from app.web.shell import frame
from app.web.site import Site

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
Calls = NamedDependency[AppCalls]
Here = NamedDependency[Site]
AnyRequest = Request[Any, Any, State]

_LARGEST_FORM = 16 * 1024
_LONGEST_URL = 2000
_BAD_URL = "Enter the URL where the app serves its functions, such as http://localhost:3000/api/inngest."
#: An attempt that left no trace for this long has been lost with its process.
_GIVEN_UP = timedelta(seconds=90)
#: What people read for each step of a sync.
_WORDS = {"reached": "The app answered", "signed": "Its answer is signed with our key", "found": "Functions read"}


@get("/env/{slug:str}/apps", name="apps", include_in_schema=False)
async def apps_list(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """All apps as cards, and the failed syncs that belong to none."""
    is_archived = request.query_params.get("state") == "archived"
    async with tenant(page_pool, principal.account_id) as connection:
        found = await apps.list_apps(connection, environment.id, is_archived=is_archived)
    context = _context(principal, environment, slug) | {"found": found, "now": found.now, "is_archived": is_archived}
    return Template("pages/apps/list.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/apps/new", name="app_new", include_in_schema=False)
async def app_new(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages, app_calls: Calls
) -> Response[Any]:
    """The form to sync an app by its URL; with `attempt`, how that sync goes."""
    attempt = request.query_params.get("attempt", "")
    context = _context(principal, environment, slug) | {"errors": {}, "url": "", "progress": None}
    if attempt:
        progress = await _progress(page_pool, principal, environment, app_calls, slug, attempt)
        context |= {"progress": progress, "url": progress["url"]}
    return Template("pages/apps/new.html", context=context, headers=PRIVATE)


@post(
    "/env/{slug:str}/apps/new",
    name="app_sync_new",
    include_in_schema=False,
    guards=[require_role("member")],
    request_max_body_size=_LARGEST_FORM,
)
async def app_sync_new(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages, app_calls: Calls
) -> Response[Any]:
    """Begin a sync and go to the page that shows how it goes."""
    value = (await request.form()).get("url")
    url = value.strip() if isinstance(value, str) else ""
    if len(url) > _LONGEST_URL or not is_app_address(url) or not url.startswith(("http://", "https://")):
        context = _context(principal, environment, slug) | {
            "errors": {"url": _BAD_URL},
            "url": url[:_LONGEST_URL],
            "progress": None,
        }
        return Template("pages/apps/new.html", context=context, headers=PRIVATE, status_code=422)
    return await _begin_sync(request, principal, environment, page_pool, app_calls, slug, url)


@get("/env/{slug:str}/apps/new/progress", name="app_sync_progress", include_in_schema=False)
async def app_sync_progress(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages, app_calls: Calls
) -> Template:
    """How a sync goes: the fragment that the page polls."""
    attempt = request.query_params.get("attempt", "")
    progress = await _progress(page_pool, principal, environment, app_calls, slug, attempt)
    context = _context(principal, environment, slug) | {"progress": progress}
    return Template("fragments/apps/progress.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/apps/{app:str}", name="app", include_in_schema=False)
async def app_page(
    *, slug: FromPath[str], app: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """One app: its facts, functions and syncs."""
    async with tenant(page_pool, principal.account_id) as connection:
        row = await apps.find_app(connection, environment.id, app)
        if row is None:
            raise NotFoundException
        found = await functions.functions_of_app(connection, environment.id, row.id)
        syncs = await apps.syncs_of_app(connection, environment.id, row.id)
        held = await apps.held_back(connection, environment.id, row.id)
        now = await connection.fetchval("select clock()")
    context = _context(principal, environment, slug) | {
        "app": row,
        "functions": found,
        "syncs": syncs,
        "held": held,
        "most_held": apps.MOST_HELD,
        "now": now,
    }
    return Template("pages/apps/app.html", context=context, headers=PRIVATE)


@post(
    "/env/{slug:str}/apps/{app:str}/resync", name="app_resync", include_in_schema=False, guards=[require_role("member")]
)
async def app_resync(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    app: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    app_calls: Calls,
) -> Response[Any]:
    """Sync it again where it lives, and go to the page that shows how it goes."""
    row = await _find(page_pool, principal, environment, app)
    return await _begin_sync(request, principal, environment, page_pool, app_calls, slug, row.url)


@get("/env/{slug:str}/apps/{app:str}/check", name="app_check_form", include_in_schema=False)
async def app_check_form(
    *, slug: FromPath[str], app: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """What a check looks at, and the button that makes it."""
    row = await _find(page_pool, principal, environment, app)
    context = _context(principal, environment, slug) | {"app": row, "check": None}
    return Template("pages/apps/check.html", context=context, headers=PRIVATE)


@post(
    "/env/{slug:str}/apps/{app:str}/check",
    name="app_check",
    include_in_schema=False,
    guards=[require_role("member")],
    status_code=200,
)
async def app_check(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    app: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    app_calls: Calls,
) -> Template:
    """Ask the app what it is and what it knows; nothing is changed."""
    async with tenant(page_pool, principal.account_id) as connection:
        row = await apps.find_app(connection, environment.id, app)
        hashes = await apps.event_key_hashes(connection, environment.id)
    if row is None:
        raise NotFoundException
    await note(page_pool, request, principal, environment, "app.checked", subject=row.name, detail={"url": row.url})
    check = await app_calls.check(environment.scope, row.url, hashes)
    context = _context(principal, environment, slug) | {"app": row, "check": check, "findings": findings_of(check)}
    return Template("pages/apps/check.html", context=context, headers=PRIVATE)


@post(
    "/env/{slug:str}/apps/{app:str}/archive",
    name="app_archive",
    include_in_schema=False,
    guards=[require_role("admin")],
)
async def app_archive(
    request: AnyRequest, *, app: FromPath[str], principal: Who, environment: Where, page_pool: Pages, site: Here
) -> Redirect:
    """Let nothing start its functions any more; runs that exist go on."""
    return await _set_archived(request, page_pool, principal, environment, site, app, is_archived=True)


@post(
    "/env/{slug:str}/apps/{app:str}/unarchive",
    name="app_unarchive",
    include_in_schema=False,
    guards=[require_role("admin")],
)
async def app_unarchive(
    request: AnyRequest, *, app: FromPath[str], principal: Who, environment: Where, page_pool: Pages, site: Here
) -> Redirect:
    """Bring it back with the functions it had."""
    return await _set_archived(request, page_pool, principal, environment, site, app, is_archived=False)


@get("/env/{slug:str}/apps/{app:str}/syncs/{sync_id:uuid}", name="sync", include_in_schema=False)
async def sync_page(
    *,
    slug: FromPath[str],
    app: FromPath[str],
    sync_id: FromPath[UUID],
    principal: Who,
    environment: Where,
    page_pool: Pages,
) -> Template:
    """One sync: what it changed, or why it failed. Those of no app stand below `-`."""
    async with tenant(page_pool, principal.account_id) as connection:
        page = await apps.find_sync(connection, environment.id, sync_id)
    if page is None or (page.app_handle or "-") != app:
        raise NotFoundException
    context = _context(principal, environment, slug) | {"page": page, "sync": page.sync, "now": page.now}
    return Template("pages/apps/sync.html", context=context, headers=PRIVATE)


async def _begin_sync(
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    pool: Any,
    app_calls: AppCalls,
    slug: str,
    url: str,
) -> Redirect:
    await note(pool, request, principal, environment, "app.synced", subject=url[:500])
    attempt = await app_calls.start_sync(environment.scope, url)
    return Redirect(f"/env/{slug}/apps/new?attempt={attempt.id}", status_code=303)


async def _progress(
    pool: Any, principal: Principal, environment: Environment, app_calls: AppCalls, slug: str, attempt_id: str
) -> dict[str, Any]:
    """What a page shows of an attempt: from this process, else what came of it according to the stored syncs."""
    attempt, began = app_calls.find(environment.id, attempt_id), parse_ulid(attempt_id)
    if attempt is None and began is None:
        raise NotFoundException
    steps = attempt.steps if attempt is not None else []
    outcome = attempt.outcome if attempt is not None else None
    page: SyncPage | None = None
    async with tenant(pool, principal.account_id) as connection:
        now: datetime = await connection.fetchval("select clock()")
        sync_id = outcome.sync_id if isinstance(outcome, Synced) else None
        if attempt is None and began is not None:
            sync_id = await apps.sync_since(connection, environment.id, time_of(began))
        if sync_id is not None:
            page = await apps.find_sync(connection, environment.id, sync_id)
    is_lost = attempt is None and page is None and began is not None and now - time_of(began) > _GIVEN_UP
    failure = outcome if isinstance(outcome, SyncFailed) else page.sync.failure if page is not None else None
    is_synced = page is not None and failure is None
    is_signed = attempt is None or attempt.is_signed
    return {
        "id": attempt_id,
        "url": attempt.url if attempt is not None else page.sync.url if page is not None else "",
        "is_over": outcome is not None or page is not None or is_lost,
        "is_lost": is_lost,
        "failure": failure,
        "sync": page.sync if page is not None and is_synced else None,
        "app_name": page.app_name if page is not None else "",
        "link": f"/env/{slug}/apps/{page.app_handle}" if page is not None and page.app_handle else None,
        "warnings": outcome.warnings if isinstance(outcome, Synced) else (),
        "steps": [
            (_WORDS[name], name in steps or is_synced)
            for name in STEPS
            # Nothing is signed in dev, and an app that posts its functions itself proves itself by its key.
            if name != "signed" or (is_signed and (name in steps or not is_synced))
        ],
    }


async def _find(pool: Any, principal: Principal, environment: Environment, app: str) -> AppRow:
    async with tenant(pool, principal.account_id) as connection:
        row = await apps.find_app(connection, environment.id, app)
    if row is None:
        raise NotFoundException
    return row


async def _set_archived(
    request: AnyRequest,
    pool: Any,
    principal: Principal,
    environment: Environment,
    site: Site,
    app: str,
    *,
    is_archived: bool,
) -> Redirect:
    row = await _find(pool, principal, environment, app)
    change = archive_app if is_archived else unarchive_app
    if await change(site.ingest, environment.scope, row.id):
        action = "app.archived" if is_archived else "app.unarchived"
        await note(pool, request, principal, environment, action, subject=row.name)
    return Redirect(f"/env/{environment.slug}/apps/{row.handle}", status_code=303)


def _context(principal: Principal, environment: Environment, slug: str) -> dict[str, Any]:
    return frame(principal, environment, "apps") | {
        "base": f"/env/{slug}/apps",
        "functions_base": f"/env/{slug}/functions",
        "runs_base": f"/env/{slug}/runs",
        "env_base": f"/env/{slug}",
    }


async def provide_app_calls(state: State) -> AppCalls:
    """Dependency `app_calls`: what this process asks of apps."""
    calls: AppCalls = state.app_calls
    return calls


HANDLERS: tuple[Any, ...] = (
    apps_list,
    app_new,
    app_sync_new,
    app_sync_progress,
    app_page,
    app_resync,
    app_check_form,
    app_check,
    app_archive,
    app_unarchive,
    sync_page,
)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool), "app_calls": Provide(provide_app_calls)},
)
