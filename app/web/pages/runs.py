"""The runs list and the run page: parse, ask `reads` one question, render one template.

A page and its htmx answer include the same files from `templates/fragments/runs/`. The stream says *that* something
changed, `…/changes` says *what*, with the same fragments. `principal` and `environment` come from the guards by name;
an environment of somebody else is a 404 before a handler is reached.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import asyncpg
from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Redirect, Stream, Template

from app.domain.ids import EnvironmentId, RunId, parse_ulid, to_ulid
from app.reads.run_page import Detail, RunPage, load_detail, load_run, run_version
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
from app.reads.timeline import FIRST_ROWS, dom_id
from app.reads.usage import count_tabs, histogram
from app.store.accounts import Environment
from app.store.db import Connection, Pool, tenant
from app.web.guards import Principal, require_person
from app.web.headers import request_id_of
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
from app.web.pages.asked import RANGE_WORDS, Asked
from app.web.shell import frame
from app.web.site import Site

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
Waking = NamedDependency[Signals]
AnyRequest = Request[Any, Any, State]

#: Most rows of one answer of `/changes` (32 KB); beyond it the whole block is sent instead.
_MOST_CHANGED = 60
#: Sent with streams: proxies must neither buffer nor keep them.
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


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


# ------------------------------------------------------------------ one run


@get("/env/{slug:str}/runs/{run_id:str}", name="run", include_in_schema=False)
async def run_page(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    step: FromQuery[str | None] = None,
    tab: FromQuery[str | None] = None,
    fold: FromQuery[str | None] = None,
    rows: FromQuery[int] = FIRST_ROWS,
) -> Template:
    """The run with the panel of one step; for htmx with target `#detail` only the panel."""
    page, detail = await _load(page_pool, principal, environment, run_id, step=step, is_folded=fold != "0", rows=rows)
    context = frame(principal, environment, "runs") | _run_context(
        principal, slug, page, detail, tab=tab, fold=fold, rows=rows
    )
    is_panel = Hx.of(request.headers).wants("detail")
    name = "fragments/runs/detail_answer.html" if is_panel else "pages/runs/run.html"
    return Template(name, context=context, headers=PRIVATE)


@get("/env/{slug:str}/runs/{run_id:str}/changes", name="run_changes", include_in_schema=False)
async def run_changes(
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    after: FromQuery[int] = -1,
    scale: FromQuery[str] = "",
    drawn: FromQuery[int] = 0,
    step: FromQuery[str | None] = None,
    tab: FromQuery[str | None] = None,
    fold: FromQuery[str | None] = None,
    rows: FromQuery[int] = FIRST_ROWS,
) -> Template:
    """What changed since version `after`: single rows while the axis (`scale`) and the number of rows stay, else all.

    The panel comes along when its own step changed.
    """
    page, detail = await _load(page_pool, principal, environment, run_id, step=step, is_folded=fold != "0", rows=rows)
    lines = page.timeline.flat()
    changed = [r for r in lines if r.version > after or r.is_live or r.kind == "root"]
    is_whole = scale != page.timeline.scale.key or drawn != len(lines) or len(changed) > _MOST_CHANGED
    context = frame(principal, environment, "runs") | _run_context(
        principal, slug, page, detail, tab=tab, fold=fold, rows=rows
    )
    context |= {
        "changed": [] if is_whole else changed,
        "is_whole": is_whole,
        "has_detail": any(r.key == detail.key for r in changed) or detail.key == "run",
    }
    return Template("fragments/runs/run_changes.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/runs/{run_id:str}/stream", name="run_stream", include_in_schema=False)
async def run_stream(
    *,
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    signals: Waking,
    after: FromQuery[int] = -1,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> Stream:
    """Server-sent `changed` with the run's new version, and `done` when it has ended."""
    found = _parse_run(run_id)
    account_id, environment_id = principal.account_id, environment.id

    async def read() -> Mark | None:
        async with tenant(page_pool, account_id) as connection:
            state = await run_version(connection, environment_id, found)
        return None if state is None else Mark(str(state[0]), state[1])

    if await read() is None:
        raise NotFoundException
    lines: AsyncIterator[str] = stream(signals, environment_id, to_ulid(found), read, seen=last_event_id or str(after))
    return Stream(lines, media_type="text/event-stream", headers=STREAM_HEADERS)


async def _load(
    pool: Pool,
    principal: Principal,
    environment: Environment,
    run_id: str,
    *,
    step: str | None,
    is_folded: bool,
    rows: int,
) -> tuple[RunPage, Detail]:
    environment_id = environment.id
    async with tenant(pool, principal.account_id) as connection:
        limit = max(FIRST_ROWS, min(rows, 2000))
        page = await load_run(connection, environment_id, _parse_run(run_id), is_folded=is_folded, limit=limit)
        if page is None:
            raise NotFoundException
        wanted = step if step is not None else page.failing_step()
        detail = await load_detail(connection, environment_id, page, wanted)
    if detail is None:
        raise NotFoundException
    return page, detail


def _run_context(
    principal: Principal, slug: str, page: RunPage, detail: Detail, *, tab: str | None, fold: str | None, rows: int
) -> dict[str, Any]:
    tabs = _panel_tabs(detail)
    kept = {"fold": "0"} if fold == "0" else {}
    if rows > FIRST_ROWS:
        kept["rows"] = str(rows)
    return {
        "base": f"/env/{slug}/runs",
        "bulk": f"/env/{slug}/bulk",
        "may_act": principal.may("member"),
        "run": page.row,
        "around": page.around,
        "timeline": page.timeline,
        "detail": detail,
        "detail_dom": dom_id(detail.key),
        "failing": page.failing_step(),
        "panel_tabs": tabs,
        "tab": tab if tab in tabs else tabs[0],
        "is_folded": fold != "0",
        "kept": "".join(f"&{name}={value}" for name, value in kept.items()),
        "drawn": len(page.timeline.flat()),
        "rows_asked": rows,
        "now": page.row.now,
    }


def _panel_tabs(detail: Detail) -> Sequence[str]:
    """The tabs a panel has; the first is the most useful one for the state."""
    tabs = ["error"] if detail.problem is not None else []
    has_attempts = len(detail.attempts) > 1 and not tabs
    tabs += ["output", "input"] if detail.state == "completed" else ["input", "output"]
    return [*tabs, *(["attempts"] if has_attempts else []), "details"]


def _parse_run(text: str) -> RunId:
    found = parse_ulid(text)
    if found is None:
        raise NotFoundException
    return RunId(found)


async def provide_page_pool(site: NamedDependency[Site]) -> Any:
    """Dependency `page_pool`: the pool under row-level security."""
    return site.pages


async def provide_signals(state: State) -> Any:
    """Dependency `signals`: what wakes live pages of this process."""
    return state.signals


HANDLERS: tuple[Any, ...] = (home, runs_list, runs_changes, runs_stream, run_page, run_changes, run_stream)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool), "signals": Provide(provide_signals)},
)
