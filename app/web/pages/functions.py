"""Functions: the list, one function with its runs and settings, and what people may do to it: invoke, pause, resume."""

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.domain import canonical
from app.domain.errors import EventRefused, JsonRefused
from app.domain.event import NewEvent, read_invoke
from app.domain.ids import to_ulid
from app.domain.limits import PLANS
from app.engine.pause import PATIENCE, pause_function, resume_function
from app.reads import events, functions, volumes
from app.reads.functions import STATES, FunctionFilter, FunctionPage
from app.reads.overrides import overrides_of
from app.reads.settings_of import settings_of
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.deeds import note
from app.web.guards import Principal, require_person, require_role
from app.web.hx import PRIVATE, Hx
from app.web.pages.events import explain
from app.web.pages.provided import provide_page_pool
from app.web.shell import frame
from app.web.site import Site

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
Here = NamedDependency[Site]
AnyRequest = Request[Any, Any, State]

_LARGEST_FORM = 12 * 1024 * 1024
#: How long an invoke waits for its run before it shows the event instead (seconds), and how often it looks.
_PATIENCE_S, _EVERY_S = 3.0, 0.1
#: Statuses of the overview, in the order of the runs list.
_COUNTED = ("running", "queued", "waiting", "failed", "completed", "cancelled")
_LONGEST_REASON = 500
#: A minute in UTC, as addresses carry it.
_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


@get("/env/{slug:str}/functions", name="functions", include_in_schema=False)
async def functions_list(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """The list page; for htmx with target `#list` only the list."""
    asked = _Asked(list(request.query_params.multi_items()))
    async with tenant(page_pool, principal.account_id) as connection:
        found = await functions.list_functions(connection, environment.id, asked.wanted, after=asked.after)
    context = frame(principal, environment, "functions") | {
        "base": f"/env/{slug}/functions",
        "env_base": f"/env/{slug}",
        "asked": asked,
        "found": found,
        "states": STATES,
        "now": found.now,
    }
    wants_list = Hx.of(request.headers).wants("list")
    name = "fragments/functions/list.html" if wants_list else "pages/functions/list.html"
    return Template(name, context=context, headers=PRIVATE)


@get("/env/{slug:str}/functions/volumes", name="function_volumes", include_in_schema=False)
async def function_volumes(request: AnyRequest, *, principal: Who, environment: Where, page_pool: Pages) -> Template:
    """The bars, failure rate and p95 of the list with this query: asked for when its rows stand."""
    asked = _Asked(list(request.query_params.multi_items()))
    async with tenant(page_pool, principal.account_id) as connection:
        found = await functions.list_functions(connection, environment.id, asked.wanted, after=asked.after)
        rows = await volumes.volumes_of(connection, environment.id, [row.id for row in found.rows], found.now)
    return Template("fragments/functions/volumes.html", context={"volumes": rows}, headers=PRIVATE)


@get("/env/{slug:str}/functions/{fn:str}", name="function", include_in_schema=False)
async def function_page(
    request: AnyRequest, *, slug: FromPath[str], fn: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """Overview: what starts it, its last runs, and how they ended."""
    page, context = await _load(page_pool, principal, environment, slug, fn)
    async with tenant(page_pool, principal.account_id) as connection:
        runs, counts = await functions.runs_of_function(connection, environment.id, page.slug)
    context |= {"tab": "overview", "runs": runs, "counts": counts, "counted": _COUNTED, "vitals": None, "volume": None}
    if request.query_params.get("vitals") == "1":
        context |= await _vitals(page_pool, principal, environment, page)
    context["missed_link"] = _missed_link(slug, page, request.query_params.get("resumed", ""))
    return Template("pages/functions/overview.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/functions/{fn:str}/vitals", name="function_vitals", include_in_schema=False)
async def function_vitals(
    *, slug: FromPath[str], fn: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """How it does: the slow part of its overview, asked for when the page stands."""
    page, context = await _load(page_pool, principal, environment, slug, fn)
    context |= await _vitals(page_pool, principal, environment, page)
    return Template("fragments/functions/vitals.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/functions/{fn:str}/config", name="function_config", include_in_schema=False)
async def function_config(
    *, slug: FromPath[str], fn: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """Configuration: every setting with its value, and the versions."""
    page, context = await _load(page_pool, principal, environment, slug, fn)
    settings = () if page.config is None else settings_of(page.config)
    async with tenant(page_pool, principal.account_id) as connection:
        changes = await overrides_of(connection, environment.scope, page.id)
    context |= {"tab": "config", "settings": settings, "changes": changes}
    return Template("pages/functions/config.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/functions/{fn:str}/invoke", name="function_invoke_form", include_in_schema=False)
async def function_invoke_form(
    *, slug: FromPath[str], fn: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """The form to invoke it with."""
    _, context = await _load(page_pool, principal, environment, slug, fn)
    return _invoke_form(context, "{\n  \n}")


@post(
    "/env/{slug:str}/functions/{fn:str}/invoke",
    name="function_invoke",
    include_in_schema=False,
    guards=[require_role("member")],
    request_max_body_size=_LARGEST_FORM,
)
async def function_invoke(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fn: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    site: Here,
) -> Response[Any]:
    """Start it with the payload of the form; go to the run, or to the event when there is no run (yet)."""
    page, context = await _load(page_pool, principal, environment, slug, fn)
    text = _field(await request.form(), "payload")
    try:
        event = invoke_event(text, page.slug)
    except (JsonRefused, EventRefused) as refused:
        return _invoke_form(context, text, problem=explain(refused, text), status=422)
    (event_id,) = await site.events.add(environment.scope, [event], source="page")
    told = {"event": to_ulid(event_id)}
    await note(page_pool, request, principal, environment, "function.invoked", subject=page.slug, detail=told)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        async with tenant(page_pool, principal.account_id) as connection:
            is_handled, run = await events.first_run(connection, environment.id, event_id)
        if run is not None:
            return Redirect(f"/env/{slug}/runs/{run}", status_code=303)
        if is_handled:
            break
        await asyncio.sleep(_EVERY_S)
    return Redirect(f"/env/{slug}/events/{to_ulid(event_id)}", status_code=303)


@get("/env/{slug:str}/functions/{fn:str}/pause", name="function_pause_form", include_in_schema=False)
async def function_pause_form(
    *, slug: FromPath[str], fn: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """What pausing means, before it is done."""
    page, context = await _load(page_pool, principal, environment, slug, fn)
    async with tenant(page_pool, principal.account_id) as connection:
        _, counts = await functions.runs_of_function(connection, environment.id, page.slug)
    return Template("pages/functions/pause.html", context=context | {"tab": "pause", "counts": counts}, headers=PRIVATE)


@post(
    "/env/{slug:str}/functions/{fn:str}/pause",
    name="function_pause",
    include_in_schema=False,
    guards=[require_role("member")],
)
async def function_pause(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fn: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    site: Here,
) -> Redirect:
    """Start no runs of it any more, and call none of its steps; with `runs=cancel` its open runs end now."""
    page, context = await _load(page_pool, principal, environment, slug, fn)
    form = await request.form()
    reason = _field(form, "reason").replace("\x00", "").strip()[:_LONGEST_REASON]
    is_cancelling = _field(form, "runs") == "cancel"
    after = timedelta(0) if is_cancelling else PATIENCE
    if page.state == "active" and await pause_function(site.ingest, environment.scope, page.id, cancel_after=after):
        detail = {"reason": reason} | ({"runs": "cancelled"} if is_cancelling else {})
        await note(page_pool, request, principal, environment, "function.paused", subject=page.slug, detail=detail)
        site.bell.ring()
    return Redirect(context["base"], status_code=303)


@post(
    "/env/{slug:str}/functions/{fn:str}/resume",
    name="function_resume",
    include_in_schema=False,
    guards=[require_role("member")],
)
async def function_resume(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    fn: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    site: Here,
) -> Redirect:
    """Let events start it again, and its runs go on."""
    page, context = await _load(page_pool, principal, environment, slug, fn)
    missed = page.paused.missed.value if page.paused is not None else 0
    lanes = await resume_function(site.ingest, environment.scope, page.id)
    if lanes is not None:
        await note(page_pool, request, principal, environment, "function.resumed", subject=page.slug)
        site.bell.ring([lane.bytes for lane in lanes])
    told = f"?resumed={page.paused.at:%Y-%m-%dT%H:%M}" if page.paused is not None and missed else ""
    return Redirect(context["base"] + told, status_code=303)


def invoke_event(text: str, slug: str) -> NewEvent:
    """The event that starts one function (protocol 6), with the text of a form as its data; no text means no data.

    Raises JsonRefused (its offset counts in `text`) and EventRefused.
    """
    raw = text.encode() if text.strip() else b"{}"
    data = canonical.decode(raw)
    if not isinstance(data, dict):
        raise EventRefused("event_data_invalid", "The payload must be an object: it becomes the event's data.")
    return read_invoke(
        # Whole and valid on its own, so nothing of it can become a field beside `data`.
        b'{"data":' + raw + b"}",
        slug,
        max_event_bytes=PLANS["self_hosted"].event_bytes,
        received_ms=time.time_ns() // 1_000_000,
    )


async def _load(
    pool: Any, principal: Principal, environment: Environment, slug: str, fn: str
) -> tuple[FunctionPage, dict[str, Any]]:
    """The function, and what every page about it shows."""
    async with tenant(pool, principal.account_id) as connection:
        page = await functions.find_function(connection, environment.id, fn)
    if page is None:
        raise NotFoundException
    return page, function_frame(principal, environment, slug, page)


def function_frame(principal: Principal, environment: Environment, slug: str, page: FunctionPage) -> dict[str, Any]:
    """What every page about a function shows."""
    base = f"/env/{slug}/functions/{page.handle}"
    return frame(principal, environment, "functions") | {
        "fn": page,
        "list_base": f"/env/{slug}/functions",
        "base": base,
        "env_base": f"/env/{slug}",
        "runs_link": f"/env/{slug}/runs?{urlencode({'fn': page.slug, 'last': 'any'})}",
        "runs_base": f"/env/{slug}/runs",
        "now": page.now,
        "missed_link": None,
    }


async def _vitals(pool: Any, principal: Principal, environment: Environment, page: FunctionPage) -> dict[str, Any]:
    async with tenant(pool, principal.account_id) as connection:
        vitals = await volumes.vitals_of(connection, environment.id, page.id)
        (volume,) = await volumes.volumes_of(connection, environment.id, [page.id], page.now)
    return {"vitals": vitals, "volume": volume}


def _missed_link(slug: str, page: FunctionPage, since: str) -> str | None:
    """Where to replay what a pause left out, `since` (a minute in UTC) until now; None for no time."""
    if page.state != "active" or _MINUTE.fullmatch(since) is None:
        return None
    wanted = {"action": "replay", "all": "1", "from_step": "start", "status": "cancelled", "fn": page.slug}
    until = page.now + timedelta(minutes=1)
    return f"/env/{slug}/bulk/new?{urlencode(wanted | {'from': since, 'to': f'{until:%Y-%m-%dT%H:%M}'})}"


def _invoke_form(context: dict[str, Any], text: str, *, problem: str | None = None, status: int = 200) -> Template:
    more = {"tab": "invoke", "text": text, "problem": problem}
    return Template("pages/functions/invoke.html", context=context | more, headers=PRIVATE, status_code=status)


def _field(form: Any, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


class _Asked:
    """The list's query string, checked: what is not understood is left out, never an error page."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        first = {name: text.replace("\x00", "") for name, text in reversed(pairs)}
        self.q = first.get("q", "").strip()[:200]
        self.app = first.get("app", "")[:255]
        state = first.get("state", "")
        self.state = state if state in STATES else ""
        self.after = first.get("after", "")[:512]
        self.wanted = FunctionFilter(self.q, self.app, self.state)

    @property
    def has_filters(self) -> bool:
        return bool(self.q or self.app or self.state)

    def query(self, **other: str | None) -> str:
        """The query string with some parts replaced (None removes); `?` alone when nothing is left."""
        values = {"q": self.q, "app": self.app, "state": self.state} | other
        return "?" + urlencode([(name, value) for name, value in values.items() if value])


HANDLERS: tuple[Any, ...] = (
    functions_list,
    function_volumes,
    function_page,
    function_vitals,
    function_config,
    function_invoke_form,
    function_invoke,
    function_pause_form,
    function_pause,
    function_resume,
)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool)},
)
