"""The run page: the timeline, the panel of one step, what changed since, and payloads as files.

A page and its htmx answer include the same files from `templates/fragments/runs/`. The stream says *that* something
changed, `…/changes` says *what*, `…/steps` brings the rows that the first answer left out.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Stream, Template

from app.domain.ids import RunId, parse_ulid, to_ulid
from app.reads.raw_calls import load_raw_calls
from app.reads.replayable import TAKES_INPUT, Beginning, load_beginning
from app.reads.run_page import RunPage, load_inside, load_run, run_version
from app.reads.scale import Scale, Span
from app.reads.step_panel import Detail, load_detail
from app.reads.stored import load_payload
from app.reads.timeline.build import FIRST_ROWS, window
from app.reads.timeline.facts import ms_since
from app.reads.timeline.rows import StepFilter, dom_id
from app.store.accounts import Environment
from app.store.db import Pool, tenant
from app.web.guards import DEVELOPER, Principal
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
from app.web.pages.provided import STREAM_HEADERS
from app.web.run_as_test import Told, code_of_test
from app.web.shell import frame

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
Waking = NamedDependency[Signals]
AnyRequest = Request[Any, Any, State]

#: Most rows of one answer of `/changes` (32 KB); beyond it the whole block is sent instead.
_MOST_CHANGED = 60
#: Kinds of steps that can be chosen, and their words.
KINDS = {
    "run": "Run code",
    "sleep": "Sleep",
    "wait_for_event": "Wait for event",
    "wait_for_signal": "Wait for signal",
    "invoke": "Invoke",
    "ai": "AI",
    "gateway": "Fetch",
}
_MOST_ROWS = 2000


@dataclass(frozen=True, slots=True)
class View:
    """What the address says about how a run is looked at; `step` None means the most useful one."""

    step: str | None
    tab: str | None
    is_folded: bool
    rows: int
    wanted: StepFilter
    #: The part of the run that fills the axis, in milliseconds since it was queued.
    part: Span | None
    #: Where in a payload its tree begins: which one, a colon, and a JSON pointer.
    at: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "View":
        """Read the query string; what is not understood is left out."""
        rows = query.get("rows", "")
        kind = query.get("kind", "")
        return cls(
            query.get("step"),
            query.get("tab"),
            query.get("fold") != "0",
            max(FIRST_ROWS, min(int(rows), _MOST_ROWS)) if rows.isdigit() and len(rows) < 6 else FIRST_ROWS,
            StepFilter(query.get("q", "").strip()[:200], query.get("failed") == "1", kind if kind in KINDS else ""),
            _part(query.get("from", ""), query.get("to", "")),
            query.get("at", "")[:4000],
        )

    def at_of(self, name: str) -> str:
        """The JSON pointer at which the tree of one payload begins; empty for the whole."""
        which, _, pointer = self.at.partition(":")
        return pointer if which == name else ""

    @property
    def kept(self) -> str:
        """What links within the page keep, beginning with `&`; empty when everything is as usual."""
        part = [("from", f"{self.part[0]:.0f}"), ("to", f"{self.part[1]:.0f}")] if self.part else []
        return self.without_part + ("&" + urlencode(part) if part else "")

    @property
    def without_part(self) -> str:
        """The same for links that show another part of the run."""
        parts = [] if self.is_folded else [("fold", "0")]
        parts += [("rows", str(self.rows))] if self.rows > FIRST_ROWS else []
        parts += [("q", self.wanted.q)] if self.wanted.q else []
        parts += [("failed", "1")] if self.wanted.is_failed_only else []
        parts += [("kind", self.wanted.kind)] if self.wanted.kind else []
        return "&" + urlencode(parts) if parts else ""


def _part(start: str, end: str) -> Span | None:
    """Milliseconds as the address has them; None for anything but a stretch of time."""
    if not all(text.isascii() and text.isdigit() and len(text) < 13 for text in (start, end)):
        return None
    return (float(start), float(end)) if float(start) < float(end) else None


@get("/env/{slug:str}/runs/{run_id:str}", name="run", include_in_schema=False)
async def run_page(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
) -> Template:
    """The run with the panel of one step; for htmx with target `#detail` or `#timeline` only that."""
    view = View.of(request.query_params)
    page, detail, more = await _load(page_pool, principal, environment, run_id, view)
    context = frame(principal, environment, "runs") | _run_context(principal, slug, page, detail, view) | more
    hx = Hx.of(request.headers)
    name = "pages/runs/run.html"
    if hx.wants("detail"):
        name = "fragments/runs/detail_answer.html"
    elif hx.wants("timeline"):
        name = "fragments/runs/timeline_answer.html"
    return Template(name, context=context, headers=PRIVATE)


@get("/env/{slug:str}/runs/{run_id:str}/steps", name="run_steps", include_in_schema=False)
async def run_steps(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    after: FromQuery[int] = 0,
    group: FromQuery[str | None] = None,
) -> Template:
    """Rows that the page left out, from number `after`; with `group` those that one row stands for."""
    view = View.of(request.query_params)
    page = await _page(page_pool, principal, environment, run_id, view)
    after = max(0, after)
    rows, more = window(
        page.facts, is_folded=view.is_folded, after=after, group=group, wanted=view.wanted, part=view.part
    )
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "run": page.row,
        "timeline": page.timeline,
        "around": page.around,
        "now": page.row.now,
        "rows": rows,
        "more": more,
        "after": after + len(rows),
        "group": group,
        "kept": view.kept,
    }
    return Template("fragments/runs/steps.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/runs/{run_id:str}/inside", name="run_inside", include_in_schema=False)
async def run_inside(
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    child: FromQuery[str] = "",
    scale: FromQuery[str] = "",
) -> Template:
    """The steps of a run that this one invoked, on this one's axis (`scale`, its key)."""
    axis = Scale.of(scale)
    if axis is None:
        raise NotFoundException
    async with tenant(page_pool, principal.account_id) as connection:
        found = await load_inside(connection, environment.id, parse_run(run_id), parse_run(child), axis)
    if found is None:
        raise NotFoundException
    parent, inner, rows, left_out = found
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "run": inner,
        "rows": rows,
        "left_out": left_out,
        "folds": axis.drawn_folds(None if parent.ended_at is None else ms_since(parent.queued_at, parent.ended_at)),
        "now": parent.now,
    }
    return Template("fragments/runs/inside.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/runs/{run_id:str}/changes", name="run_changes", include_in_schema=False)
async def run_changes(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    after: FromQuery[int] = -1,
    scale: FromQuery[str] = "",
    drawn: FromQuery[int] = 0,
) -> Template:
    """What changed since version `after`: single rows while the axis (`scale`) and the number of rows stay, else all.

    The panel comes along when its own step changed.
    """
    view = View.of(request.query_params)
    page, detail, more = await _load(page_pool, principal, environment, run_id, view)
    lines = page.timeline.flat()
    changed = [r for r in lines if r.version > after or r.is_live or r.kind == "root"]
    is_whole = scale != page.timeline.scale.key or drawn != len(lines) or len(changed) > _MOST_CHANGED
    context = frame(principal, environment, "runs") | _run_context(principal, slug, page, detail, view) | more
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
    found = parse_run(run_id)
    account_id, environment_id = principal.account_id, environment.id

    async def read() -> Mark | None:
        async with tenant(page_pool, account_id) as connection:
            state = await run_version(connection, environment_id, found)
        return None if state is None else Mark(str(state[0]), state[1])

    if await read() is None:
        raise NotFoundException
    lines: AsyncIterator[str] = stream(signals, environment_id, to_ulid(found), read, seen=last_event_id or str(after))
    return Stream(lines, media_type="text/event-stream", headers=STREAM_HEADERS)


@get("/env/{slug:str}/runs/{run_id:str}/payload", name="run_payload", include_in_schema=False)
async def run_payload(
    *,
    run_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    step: FromQuery[str] = "run",
    part: FromQuery[str] = "output",
) -> Response[bytes]:
    """A whole stored text as a file: the `input`, `output` or `options` of a step, or of the run (`step=run`)."""
    found = parse_run(run_id)
    if "\x00" in step:
        raise NotFoundException
    async with tenant(page_pool, principal.account_id) as connection:
        text = await load_payload(connection, environment.id, found, step, part)
    if text is None:
        raise NotFoundException
    name = f"{to_ulid(found)}-{part if part in {'input', 'output', 'options'} else 'payload'}.json"
    headers = PRIVATE | {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(text.encode(errors="replace"), media_type="application/octet-stream", headers=headers)


async def _page(pool: Pool, principal: Principal, environment: Environment, run_id: str, view: View) -> RunPage:
    async with tenant(pool, principal.account_id) as connection:
        page = await load_run(
            connection,
            environment.id,
            parse_run(run_id),
            is_folded=view.is_folded,
            limit=view.rows,
            wanted=view.wanted,
            part=view.part,
        )
    if page is None:
        raise NotFoundException
    return page


async def _load(
    pool: Pool, principal: Principal, environment: Environment, run_id: str, view: View
) -> tuple[RunPage, Detail, dict[str, Any]]:
    page = await _page(pool, principal, environment, run_id, view)
    wanted = view.step if view.step is not None else page.failing_step()
    async with tenant(pool, principal.account_id) as connection:
        detail = await load_detail(connection, environment.id, page, wanted)
        if detail is None:
            raise NotFoundException
        more: dict[str, Any] = {"raw_calls": (), "test": None}
        if view.tab == "details" and detail.place is not None:
            kind = "dev" if principal == DEVELOPER else "cloud"
            more["raw_calls"] = await load_raw_calls(connection, environment.id, page.row.id, detail.key, kind)
        elif view.tab == "test":
            begins = await load_beginning(connection, environment.id, page.row.id, detail.key)
            more["test"] = None if begins is None else _test_of(page, detail, begins)
    return page, detail, more


def _test_of(page: RunPage, detail: Detail, begins: Beginning) -> tuple[str, str]:
    """(language, code) of a test of the step, or of the whole function."""
    sdk = next((call.sdk for call in page.facts.calls if call.sdk), "")
    step = detail.name if detail.place is not None else None
    return code_of_test(sdk, Told(page.row.function_slug, begins.event, begins.steps, step))


def _run_context(principal: Principal, slug: str, page: RunPage, detail: Detail, view: View) -> dict[str, Any]:
    tabs = _panel_tabs(detail)
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
        "tab": view.tab if view.tab in (*tabs, "test") else tabs[0],
        "takes_input": detail.kind in TAKES_INPUT,
        "view": view,
        "kinds": KINDS,
        "is_folded": view.is_folded,
        "kept": view.kept,
        "drawn": len(page.timeline.flat()),
        "now": page.row.now,
    }


def _panel_tabs(detail: Detail) -> Sequence[str]:
    """The tabs a panel has; the first is the most useful one for the state."""
    tabs = ["error"] if detail.problem is not None else []
    has_attempts = len(detail.attempts) > 1 and not tabs
    tabs += ["output", "input"] if detail.state == "completed" else ["input", "output"]
    return [*tabs, *(["attempts"] if has_attempts else []), "logs", "details"]


def parse_run(text: str) -> RunId:
    """The id in a path; raises not found."""
    found = parse_ulid(text)
    if found is None:
        raise NotFoundException
    return RunId(found)


HANDLERS: tuple[Any, ...] = (run_page, run_steps, run_inside, run_changes, run_stream, run_payload)
