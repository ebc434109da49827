"""The runs list: parse, ask `reads` one question, render one template. The run page is in `run`.

A page and its htmx answer include the same files from `templates/fragments/runs/`. The stream says *that* something
changed, `…/changes` says *what*, with the same fragments. `principal` and `environment` come from the guards by name;
an environment of somebody else is a 404 before a handler is reached.
"""

from datetime import UTC, datetime
from typing import Any

import asyncpg
from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Stream, Template

from app.domain.ids import EnvironmentId, parse_ulid
from app.reads.runs import (
    SIZES,
    TABS,
    RunList,
    code_names,
    count_newer,
    has_runs,
    list_mark,
    list_runs,
    rows_by_id,
)
from app.reads.usage import count_tabs, histogram
from app.store.accounts import Environment
from app.store.db import Connection, tenant
from app.web.guards import Principal, require_person
from app.web.headers import request_id_of
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
from app.web.pages import run, run_why
from app.web.pages.asked import RANGE_WORDS, Asked
from app.web.pages.provided import STREAM_HEADERS, provide_page_pool, provide_signals
from app.web.shell import frame

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
Waking = NamedDependency[Signals]
AnyRequest = Request[Any, Any, State]


@get("/", name="home", include_in_schema=False)
async def home(principal: Who, page_pool: Pages) -> Redirect:
    """Where a session starts: the runs of the production environment, or of the oldest one."""
    async with tenant(page_pool, principal.account_id) as connection:
        slug = await connection.fetchval(
            "select slug from environments where account_id = $1 and archived_at is null"
            " order by kind <> 'production', created_at limit 1",
            principal.account_id,
        )
    if slug is None:
        raise NotFoundException
    return Redirect(f"/env/{slug}/runs")


# ------------------------------------------------------------------ the list


@get("/env/{slug:str}/runs", name="runs", include_in_schema=False)
async def runs_list(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
) -> Template:
    """The list page; for htmx with target `#list` what a filter changes, with target `#histo` only the bars.

    When the database takes too long, the page says so and keeps the filters.
    """
    asked = Asked(list(request.query_params.multi_items()))
    hx = Hx.of(request.headers)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "bulk": f"/env/{slug}/bulk",
        "asked": asked,
        "tabs": TABS,
        "ranges": RANGE_WORDS,
        "sizes": SIZES,
        "new": 0,
        "may_act": principal.may("member"),
        "request_id": request_id_of(request.scope),
    }
    try:
        async with tenant(page_pool, principal.account_id) as connection:
            context |= await _list(connection, environment.id, asked)
    except asyncpg.QueryCanceledError:
        context |= _nothing()
    name = "pages/runs/list.html"
    if hx.wants("list"):
        name = "fragments/runs/list_answer.html"
    elif hx.wants("histo"):
        name = "fragments/runs/histogram.html"
    return Template(name, context=context, headers=PRIVATE)


async def _list(connection: Connection, environment_id: EnvironmentId, asked: Asked) -> dict[str, Any]:
    """What the list shows, in at most six statements."""
    await connection.execute("set local statement_timeout = 2000")
    runs = await list_runs(
        connection, environment_id, asked.wanted, before=asked.before, after=asked.after, size=asked.size
    )
    functions, apps = await code_names(connection, environment_id)
    has_any = bool(runs.rows) or await has_runs(connection, environment_id)
    return {
        "runs": runs,
        "is_late": False,
        "has_any": has_any,
        "functions": functions,
        "apps": apps,
        "counts": await count_tabs(connection, environment_id, asked.wanted, runs.now),
        "buckets": await histogram(connection, environment_id, asked.wanted, runs.now),
    }


def _nothing() -> dict[str, Any]:
    """The list when the database took too long: no rows, and no numbers either."""
    runs = RunList((), None, None, datetime.now(UTC))
    return {"runs": runs, "is_late": True, "has_any": True, "functions": [], "apps": [], "counts": {}, "buckets": ()}


@get("/env/{slug:str}/runs/changes", name="runs_changes", include_in_schema=False)
async def runs_changes(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """Rows that had not ended when last drawn (`live`, repeated), the counts, and how many new runs there are."""
    pairs = list(request.query_params.multi_items())
    asked = Asked(pairs)
    ids = [found for name, text in pairs if name == "live" and (found := parse_ulid(text)) is not None]
    newest = next((parse_ulid(text) for name, text in pairs if name == "newest"), None)
    environment_id = environment.id
    is_first_page = asked.before is None and asked.after is None
    async with tenant(page_pool, principal.account_id) as connection:
        rows = await rows_by_id(connection, environment_id, ids) if ids else []
        now = rows[0].now if rows else await connection.fetchval("select clock()")
        counts = await count_tabs(connection, environment_id, asked.wanted, now)
        new = await count_newer(connection, environment_id, asked.wanted, newest) if is_first_page else 0
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "asked": asked,
        "rows": rows,
        "counts": counts,
        "now": now,
        "tabs": TABS,
        "new": new,
        "may_act": principal.may("member"),
    }
    return Template("fragments/runs/list_changes.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/runs/stream", name="runs_stream", include_in_schema=False)
async def runs_stream(principal: Who, environment: Where, page_pool: Pages, signals: Waking) -> Stream:
    """Server-sent `changed` whenever a run of the environment moves."""
    account_id, environment_id = principal.account_id, environment.id

    async def read() -> Mark:
        async with tenant(page_pool, account_id) as connection:
            return Mark(await list_mark(connection, environment_id))

    first = await read()
    lines = stream(signals, environment_id, None, read, seen=first.value)
    return Stream(lines, media_type="text/event-stream", headers=STREAM_HEADERS)


HANDLERS: tuple[Any, ...] = (home, runs_list, runs_changes, runs_stream, *run.HANDLERS, *run_why.HANDLERS)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool), "signals": Provide(provide_signals)},
)
