"""What stands around the runs list: values to filter by, columns, and lists under a name.

Each is a page that works without scripts, and the content of a menu with them. Nothing of it is in the list's own page:
whoever opens a menu pays for it.
"""

import secrets
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.domain.ids import millis, parse_ulid, to_ulid, ulid_of
from app.reads.filters import MARKS
from app.reads.run_views import MORE_COLUMNS, MOST_PATHS, SYSTEM_VIEWS, Columns, columns_of, find_view, views_of
from app.reads.runs import TABS
from app.reads.usage import count_tabs, count_values
from app.store.accounts import Environment
from app.store.audit import insert_entry
from app.store.db import Connection, tenant
from app.store.named import fetch, named
from app.web.guards import Principal, RoleTooLow, network_of
from app.web.hx import PRIVATE, Hx
from app.web.pages.asked import Asked
from app.web.shell import frame

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]

_LONGEST_NAME = 100


def _answer(
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    name: str,
    context: dict[str, Any],
    status: int = 200,
) -> Template:
    """The page, or for htmx the content of the menu."""
    pages = {"filter": "Filter runs", "columns": "Columns", "views": "Views"}
    base = f"/env/{environment.slug}/runs"
    whole = frame(principal, environment, "runs") | {"base": base, "title": pages[name], "menu": name} | context
    is_part = Hx.of(request.headers).wants(f"{name}-list")
    template = f"fragments/runs/{name}_menu.html" if is_part else "pages/runs/menu.html"
    return Template(template, context=whole, headers=PRIVATE, status_code=status)


@get("/env/{slug:str}/runs/filter", name="runs_filter", include_in_schema=False)
async def values(request: AnyRequest, *, principal: Who, environment: Where, page_pool: Pages) -> Template:
    """Fields, and their values with how many runs each has in the range."""
    asked = Asked(list(request.query_params.multi_items()))
    async with tenant(page_pool, principal.account_id) as connection:
        await connection.execute("set local statement_timeout = 2000")
        now = await connection.fetchval("select clock()")
        found = await count_values(connection, environment.id, asked.wanted, now)
        counts = await count_tabs(connection, environment.id, asked.wanted, now) if asked.wanted.is_counted else {}
    fields: list[tuple[str, str, list[tuple[str, str, int | None]]]] = [
        (
            "status",
            "Status",
            [(s, s.capitalize(), counts[s].value if s in counts else None) for s in TABS if s != "all"],
        ),
        *((name, words, [(v, v, n) for v, n in found[name]]) for name, words in (("fn", "Function"), ("app", "App"))),
        ("is", "Run", [(key, words, None) for key, (words, _) in MARKS.items()]),
    ]
    return _answer(request, principal, environment, "filter", {"asked": asked, "fields": fields})


# ------------------------------------------------------------------ columns


@get("/env/{slug:str}/runs/columns", name="runs_columns", include_in_schema=False)
async def ask_columns(request: AnyRequest, *, principal: Who, environment: Where, page_pool: Pages) -> Template:
    """The form of the columns."""
    asked = Asked(list(request.query_params.multi_items()))
    async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
        chosen = await columns_of(connection, environment.id, principal.user_id)
    return _columns_form(request, principal, environment, asked, chosen.keys, chosen.paths)


def _columns_form(
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    asked: Asked,
    keys: Any,
    paths: Any,
    problem: str | None = None,
) -> Template:
    context = {
        "asked": asked,
        "all_columns": MORE_COLUMNS,
        "keys": keys,
        "paths": [*paths, *[""] * MOST_PATHS][:MOST_PATHS],
        "problem": problem,
    }
    return _answer(request, principal, environment, "columns", context, 422 if problem else 200)


@post("/env/{slug:str}/runs/columns", name="runs_keep_columns", status_code=303, include_in_schema=False)
async def keep_columns(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Response[Any]:
    """Keep the columns of this person here, and lead back to the list."""
    pairs = await _pairs(request)
    asked = Asked(pairs)
    keys = [text for name, text in pairs if name == "column"]
    paths = [text[:400] for name, text in pairs if name == "path"][:MOST_PATHS]
    try:
        chosen = Columns.of(keys, paths)
    except ValueError as error:
        problem = f"“{error}” is no path into an event. Write names with dots, such as data.order.id."
        return _columns_form(request, principal, environment, asked, keys, paths, problem)
    async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
        await fetch(
            connection,
            named("views", "keep_columns"),
            environment=environment.id,
            user=principal.user_id,
            account=environment.account_id,
            columns=list(chosen.keys),
            paths=list(chosen.paths),
        )
    return Redirect(f"/env/{slug}/runs{asked.query(view=None)}", status_code=303)


# ------------------------------------------------------------------ views


@get("/env/{slug:str}/runs/views", name="runs_views", include_in_schema=False)
async def ask_views(request: AnyRequest, *, principal: Who, environment: Where, page_pool: Pages) -> Template:
    """What can be opened, and the form that keeps what is shown now."""
    asked = Asked(list(request.query_params.multi_items()))
    async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
        return await _views_form(connection, request, principal, environment, asked)


async def _views_form(
    connection: Connection,
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    asked: Asked,
    problem: str | None = None,
) -> Template:
    context = {
        "asked": asked,
        "system": SYSTEM_VIEWS,
        "views": await views_of(connection, environment.id, principal.user_id),
        "may_share": principal.may("member"),
        "problem": problem,
    }
    return _answer(request, principal, environment, "views", context, 422 if problem else 200)


@post("/env/{slug:str}/runs/views", name="runs_keep_view", status_code=303, include_in_schema=False)
async def keep_view(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Response[Any]:
    """Keep the filters of the address, and one's columns, under a name."""
    pairs = await _pairs(request)
    asked, first = Asked(pairs), dict(reversed(pairs))
    name, is_shared = " ".join(first.get("name", "").split()), first.get("shared") == "1"
    if is_shared and not principal.may("member"):
        raise RoleTooLow
    async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
        if not name or len(name) > _LONGEST_NAME:
            problem = f"Give the view a name of at most {_LONGEST_NAME} characters."
            return await _views_form(connection, request, principal, environment, asked, problem)
        columns = await columns_of(connection, environment.id, principal.user_id)
        now = await connection.fetchval("select clock()")
        view_id = ulid_of(millis(now), secrets.token_bytes(10))
        made = await fetch(
            connection,
            named("views", "keep_view"),
            id=view_id,
            account=environment.account_id,
            environment=environment.id,
            user=principal.user_id,
            name=name,
            filters=asked.filters()[:8000],
            columns=list(columns.keys),
            paths=list(columns.paths),
            is_shared=is_shared,
        )
        if not made:
            problem = "You have as many views here as there can be. Delete one first."
            return await _views_form(connection, request, principal, environment, asked, problem)
        if is_shared:
            await _note(connection, request, principal, environment, "view.shared", view_id, name)
    return Redirect(f"/env/{slug}/runs{asked.query(view=to_ulid(view_id))}", status_code=303)


@get("/env/{slug:str}/runs/views/{view_id:str}", name="runs_view", include_in_schema=False)
async def open_view(
    *, slug: FromPath[str], view_id: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Redirect:
    """The list a view stands for."""
    found_id = parse_ulid(view_id)
    async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
        found = await find_view(connection, environment.id, principal.user_id, found_id) if found_id else None
    if found is None or found_id is None:
        raise NotFoundException
    asked = Asked([*parse_qsl(found[0]), ("view", to_ulid(found_id))])
    return Redirect(f"/env/{slug}/runs{asked.query()}")


@post(
    "/env/{slug:str}/runs/views/{view_id:str}/delete", name="runs_drop_view", status_code=303, include_in_schema=False
)
async def drop_view(
    *,
    slug: FromPath[str],
    view_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
) -> Redirect:
    """Forget a view of one's own; the runs it showed stay what they are."""
    found_id = parse_ulid(view_id)
    async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
        gone = found_id and await fetch(
            connection, named("views", "drop_view"), id=found_id, environment=environment.id, user=principal.user_id
        )
    if not gone:
        raise NotFoundException
    return Redirect(f"/env/{slug}/runs/views", status_code=303)


async def _note(
    connection: Connection,
    request: AnyRequest,
    principal: Principal,
    environment: Environment,
    action: str,
    view_id: Any,
    name: str,
) -> None:
    await insert_entry(
        connection,
        environment.account_id,
        principal.actor(network_of(request)),
        action,
        environment_id=environment.id,
        subject=to_ulid(view_id),
        detail={"name": name},
    )


async def _pairs(request: AnyRequest) -> list[tuple[str, str]]:
    form = await request.form()
    return [(name, value.replace("\x00", "")) for name, value in form.multi_items() if isinstance(value, str)]


HANDLERS: tuple[Any, ...] = (values, ask_columns, keep_columns, ask_views, keep_view, open_view, drop_view)
