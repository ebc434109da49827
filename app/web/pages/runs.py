"""The runs list and the run page: parse, ask `reads` one question, render one template.

A page and its htmx answer include the same files from `templates/fragments/runs/`. The stream says *that* something
changed, `…/changes` says *what*, with the same fragments. `principal` and `environment` come from the guards by name;
an environment of somebody else is a 404 before a handler is reached.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Redirect, Stream, Template

from app.domain.ids import RunId, parse_ulid, to_ulid
from app.reads.run_page import Detail, RunPage, load_detail, load_run, run_version
from app.reads.runs import (
    RANGES,
    SIZES,
    TABS,
    RunFilter,
    count_newer,
    count_tabs,
    list_mark,
    list_runs,
    parse_search,
    rows_by_id,
)
from app.reads.timeline import FIRST_ROWS, dom_id
from app.store.accounts import Environment
from app.store.db import Pool, tenant
from app.web.guards import Principal, require_person
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
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
_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


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
    """The list page; for htmx with target `#list` only the list and the tabs."""
    asked = _Asked(list(request.query_params.multi_items()))
    environment_id = environment.id
    async with tenant(page_pool, principal.account_id) as connection:
        runs = await list_runs(
            connection, environment_id, asked.wanted, before=asked.before, after=asked.after, size=asked.size
        )
    hx = Hx.of(request.headers)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "asked": asked,
        "runs": runs,
        "counts": runs.counts,
        "tabs": TABS,
        "ranges": tuple(RANGES),
        "sizes": SIZES,
        "new": 0,
    }
    name = "fragments/runs/list_answer.html" if hx.wants("list") else "pages/runs/list.html"
    return Template(name, context=context, headers=PRIVATE)


@get("/env/{slug:str}/runs/changes", name="runs_changes", include_in_schema=False)
async def runs_changes(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """Rows that were not ended when last drawn (`live`, repeated), the counts, and how many new runs there are."""
    pairs = list(request.query_params.multi_items())
    asked = _Asked(pairs)
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
    return Stream(lines, media_type="text/event-stream", headers=_STREAM)


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
    context = frame(principal, environment, "runs") | _run_context(slug, page, detail, tab=tab, fold=fold, rows=rows)
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
    context = frame(principal, environment, "runs") | _run_context(slug, page, detail, tab=tab, fold=fold, rows=rows)
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
    return Stream(lines, media_type="text/event-stream", headers=_STREAM)


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
    slug: str, page: RunPage, detail: Detail, *, tab: str | None, fold: str | None, rows: int
) -> dict[str, Any]:
    tabs = _panel_tabs(detail)
    kept = {"fold": "0"} if fold == "0" else {}
    if rows > FIRST_ROWS:
        kept["rows"] = str(rows)
    return {
        "base": f"/env/{slug}/runs",
        "run": page.row,
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


class _Asked:
    """The list's query string, checked: what is not understood is left out, never an error page."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        first = dict(reversed(list(pairs)))
        self.q = first.get("q", "").strip()[:200]
        found = parse_search(self.q) if self.q else ()
        #: One sentence under the search field, or None.
        self.problem = None if found is not None else "Not a run ID or an event ID: both have 26 letters and digits."
        status, last = first.get("status", "all"), first.get("last")
        self.tab = status if status in TABS else "all"
        self.last = last if last in RANGES else None
        self.functions = tuple(text for name, text in pairs if name == "fn" and text)[:20]
        size = first.get("size", "")
        self.size = int(size) if size.isdigit() and int(size) in SIZES else SIZES[0]
        self.before: UUID | None = parse_ulid(first.get("before", ""))
        self.after: UUID | None = parse_ulid(first.get("after", ""))
        self.before_text, self.after_text = first.get("before"), first.get("after")
        self.wanted = RunFilter(self.tab, found or (), self.functions, self.last)

    @property
    def has_filters(self) -> bool:
        return bool(self.q or self.functions or self.last or self.tab != "all")

    @property
    def is_first_page(self) -> bool:
        return self.before is None and self.after is None

    def query(self, **other: str | None) -> str:
        """The query string with some parts replaced (None removes); a leading `?`, or `?` alone to clear it."""
        parts: list[tuple[str, str]] = []
        values = {
            "q": self.q,
            "status": self.tab if self.tab != "all" else "",
            "last": self.last or "",
            "size": str(self.size) if self.size != SIZES[0] else "",
        } | other
        parts += [(name, value) for name, value in values.items() if value]
        if "fn" not in other:
            parts += [("fn", slug) for slug in self.functions]
        return "?" + urlencode(parts)

    def without_function(self, slug: str) -> str:
        """The query string without one function."""
        rest = [("fn", other) for other in self.functions if other != slug]
        return self.query(fn=None) + ("&" + urlencode(rest) if rest else "")


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
