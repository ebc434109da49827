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

from app.domain.ids import EnvironmentId, UserId, parse_ulid
from app.reads.filters import TIMES
from app.reads.run_views import MORE_COLUMNS, Columns, columns_of, find_view, more_of
from app.reads.runs import (
    SIZES,
    TABS,
    RunList,
    count_newer,
    has_runs,
    list_mark,
    list_runs,
    rows_by_id,
)
from app.reads.usage import Count, count_tabs, histogram
from app.store.accounts import Environment
from app.store.db import Connection, tenant
from app.web.guards import Principal, require_person
from app.web.headers import request_id_of
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
from app.web.pages import run, run_views, run_why
from app.web.pages.asked import RANGE_WORDS, Asked
from app.web.pages.provided import STREAM_HEADERS, provide_page_pool, provide_signals
from app.web.shell import frame

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
Waking = NamedDependency[Signals]
AnyRequest = Request[Any, Any, State]

#: For htmx: only the sentence is swapped, and the address stays that of the results.
_KEEP_THE_LIST = {"HX-Retarget": "#q-problem", "HX-Reswap": "outerHTML", "HX-Push-Url": "false"}


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

    When the database takes too long, the page says so and keeps the filters. A search that is none is answered with its
    sentence alone, and the old results stay; on a page of its own they are what the other filters leave.
    """
    asked = Asked(list(request.query_params.multi_items()))
    hx = Hx.of(request.headers)
    if asked.problem and hx.wants("list"):
        # Not 422: somebody is still typing, and a browser notes every such answer as an error.
        return Template("fragments/runs/problem.html", context={"asked": asked}, headers=PRIVATE | _KEEP_THE_LIST)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "bulk": f"/env/{slug}/bulk",
        "asked": asked,
        "tabs": TABS,
        "ranges": RANGE_WORDS,
        "times": TIMES,
        "sizes": SIZES,
        "new": 0,
        "may_act": principal.may("member"),
        "more_columns": MORE_COLUMNS,
        "request_id": request_id_of(request.scope),
    }
    try:
        async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
            context |= await _list(connection, environment.id, principal.user_id, asked)
    except asyncpg.QueryCanceledError:
        context |= _nothing()
    name = "pages/runs/list.html"
    if hx.wants("list"):
        name = "fragments/runs/list_answer.html"
    elif hx.wants("histo"):
        name = "fragments/runs/histogram.html"
    return Template(name, context=context, headers=PRIVATE)


async def _list(connection: Connection, environment_id: EnvironmentId, user_id: UserId, asked: Asked) -> dict[str, Any]:
    """What the list shows, in at most six statements."""
    await connection.execute("set local statement_timeout = 2000")
    runs = await list_runs(
        connection,
        environment_id,
        asked.wanted,
        before=asked.before,
        after=asked.after,
        size=asked.size,
        sort=asked.sort,
    )
    has_any = bool(runs.rows) or await has_runs(connection, environment_id)
    columns = await _columns(connection, environment_id, user_id, asked)
    counts = (
        _found(runs)
        if asked.wanted.expression
        else await count_tabs(connection, environment_id, asked.wanted, runs.now)
    )
    return {
        "runs": runs,
        "is_late": False,
        "has_any": has_any,
        "columns": columns,
        "more": await more_of(connection, environment_id, columns, runs.rows),
        "counts": counts if asked.is_top else {},
        "buckets": await histogram(connection, environment_id, asked.wanted, runs.now),
    }


async def _columns(connection: Connection, environment_id: EnvironmentId, user_id: UserId, asked: Asked) -> Columns:
    """Those of the saved view that is open, or else the person's own."""
    if (
        asked.view is not None
        and (view := await find_view(connection, environment_id, user_id, asked.view)) is not None
    ):
        return view[1]
    return await columns_of(connection, environment_id, user_id)


def _found(runs: RunList) -> dict[str, Count]:
    """Counts of an expression: of the runs it was tried on."""
    counts = {tab: Count(runs.counts.get(tab, 0), runs.is_cut) for tab in TABS}
    return counts | {"all": Count(sum(runs.counts.values()), runs.is_cut)}


def _nothing() -> dict[str, Any]:
    """The list when the database took too long: no rows, and no numbers either."""
    runs = RunList((), None, None, datetime.now(UTC))
    return {
        "runs": runs,
        "is_late": True,
        "has_any": True,
        "columns": Columns(),
        "more": {},
        "counts": {},
        "buckets": (),
    }


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
    async with tenant(page_pool, principal.account_id, principal.user_id) as connection:
        rows = await rows_by_id(connection, environment_id, ids) if ids else []
        columns = await _columns(connection, environment_id, principal.user_id, asked) if rows else Columns()
        more = await more_of(connection, environment_id, columns, rows)
        now = rows[0].now if rows else await connection.fetchval("select clock()")
        # What an expression is true for is counted when somebody asks, not whenever something changes.
        is_counted = not asked.wanted.expression
        counts = await count_tabs(connection, environment_id, asked.wanted, now) if is_counted else {}
        new = await count_newer(connection, environment_id, asked.wanted, newest) if asked.is_first_page else 0
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "asked": asked,
        "rows": rows,
        "columns": columns,
        "more": more,
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


HANDLERS: tuple[Any, ...] = (
    home,
    runs_list,
    runs_changes,
    runs_stream,
    *run.HANDLERS,
    *run_views.HANDLERS,
    *run_why.HANDLERS,
)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool), "signals": Provide(provide_signals)},
)
