"""Events: the list, one event with what it set off or why nothing, and sending one from the page.

The list and the event's page are live the way runs are: a stream says *that* something changed, `…/changes` says *what*
with the same fragments. What people send goes through the same door as any program's events, with source `page`.
"""

import shlex
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Stream, Template

from app.domain.errors import EventRefused, JsonRefused
from app.domain.event import read_events
from app.domain.ids import parse_ulid, to_ulid
from app.domain.limits import PLANS
from app.reads import events
from app.reads.events import EventFilter, EventPage, Place
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.deeds import note
from app.web.guards import Principal, require_person, require_role
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
from app.web.pages.provided import provide_page_pool, provide_signals
from app.web.shell import frame
from app.web.site import Site

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]
Waking = NamedDependency[Signals]
Here = NamedDependency[Site]
AnyRequest = Request[Any, Any, State]

_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
#: Largest form: an event of the largest kind, percent-encoded.
_LARGEST_FORM = 12 * 1024 * 1024
#: A command to copy holds payloads up to this size; larger ones are downloaded.
_LARGEST_COMMAND = 32 * 1024
SAMPLE = """{
  "name": "order/placed",
  "data": {
    "order_id": "ord_58213",
    "total": 184.50
  }
}"""


# ------------------------------------------------------------------ the list


@get("/env/{slug:str}/events", name="events", include_in_schema=False)
async def events_list(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """The list page; for htmx with target `#list` only the list."""
    asked = _Asked(list(request.query_params.multi_items()))
    async with tenant(page_pool, principal.account_id) as connection:
        found = await events.list_events(
            connection, environment.id, asked.wanted, before=asked.before, after=asked.after
        )
    context = frame(principal, environment, "events") | {
        "base": f"/env/{slug}/events",
        "runs_base": f"/env/{slug}/runs",
        "asked": asked,
        "events": found,
        "new": 0,
    }
    wants_list = Hx.of(request.headers).wants("list")
    name = "fragments/events/list_answer.html" if wants_list else "pages/events/list.html"
    return Template(name, context=context, headers=PRIVATE)


@get("/env/{slug:str}/events/changes", name="events_changes", include_in_schema=False)
async def events_changes(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """The rows named by `live` (repeated), and how many events are newer than `newest`."""
    pairs = list(request.query_params.multi_items())
    asked = _Asked(pairs)
    ids = [found for name, text in pairs if name == "live" and (found := parse_ulid(text)) is not None]
    newest = next((Place.parse(text) for name, text in pairs if name == "newest"), None)
    async with tenant(page_pool, principal.account_id) as connection:
        rows = await events.rows_by_id(connection, environment.id, ids) if ids else ()
        new = await events.count_newer(connection, environment.id, asked.wanted, newest) if asked.is_first_page else 0
        now = await connection.fetchval("select clock()")
    context = frame(principal, environment, "events") | {
        "base": f"/env/{slug}/events",
        "runs_base": f"/env/{slug}/runs",
        "asked": asked,
        "rows": rows,
        "new": new,
        "now": now,
    }
    return Template("fragments/events/list_changes.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/events/stream", name="events_stream", include_in_schema=False)
async def events_stream(principal: Who, environment: Where, page_pool: Pages, signals: Waking) -> Stream:
    """Server-sent `changed` whenever an event arrives or a run moves."""
    account_id, environment_id = principal.account_id, environment.id

    async def read() -> Mark:
        async with tenant(page_pool, account_id) as connection:
            return Mark(await events.list_mark(connection, environment_id))

    first = await read()
    lines = stream(signals, environment_id, None, read, seen=first.value)
    return Stream(lines, media_type="text/event-stream", headers=_STREAM)


# ------------------------------------------------------------------ sending


@get("/env/{slug:str}/events/send", name="event_form", include_in_schema=False)
async def event_form(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """The form, with a sample in it or, with `from`, the event that is to be sent again."""
    text = SAMPLE
    origin = parse_ulid(request.query_params.get("from", ""))
    if origin is not None:
        async with tenant(page_pool, principal.account_id) as connection:
            stored = await events.event_text(connection, environment.id, origin)
        if stored is None:
            raise NotFoundException
        text = _pretty(_sendable(stored))
    return _form(principal, environment, slug, text)


@post(
    "/env/{slug:str}/events/send",
    name="event_send",
    include_in_schema=False,
    guards=[require_role("member")],
    request_max_body_size=_LARGEST_FORM,
)
async def event_send(
    request: AnyRequest, *, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages, site: Here
) -> Response[Any]:
    """Send what the form holds; go to the event, or to the list when there were several."""
    text = _field(await request.form(), "body")
    try:
        ids = await _send(site, environment, text.encode())
    except (JsonRefused, EventRefused) as refused:
        return _form(principal, environment, slug, text, problem=explain(refused, text), status=422)
    await note(page_pool, request, principal, environment, "event.sent", **_noted(ids))
    if len(ids) == 1:
        return Redirect(f"/env/{slug}/events/{to_ulid(ids[0])}", status_code=303)
    return Redirect(f"/env/{slug}/events", status_code=303)


# ------------------------------------------------------------------ one event


@get("/env/{slug:str}/events/{event_id:str}", name="event", include_in_schema=False)
async def event_page(
    *, slug: FromPath[str], event_id: FromPath[str], principal: Who, environment: Where, page_pool: Pages, site: Here
) -> Template:
    """The event: its payload, what it set off, and how to send it again."""
    page = await _load(page_pool, principal, environment, event_id)
    context = frame(principal, environment, "events") | _event_context(slug, page) | {"command": _command(site, page)}
    return Template("pages/events/event.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/events/{event_id:str}/changes", name="event_changes", include_in_schema=False)
async def event_changes(
    *, slug: FromPath[str], event_id: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Template:
    """What the event has set off by now."""
    page = await _load(page_pool, principal, environment, event_id)
    context = frame(principal, environment, "events") | _event_context(slug, page)
    return Template("fragments/events/answers.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/events/{event_id:str}/stream", name="event_stream", include_in_schema=False)
async def event_stream(
    *, event_id: FromPath[str], principal: Who, environment: Where, page_pool: Pages, signals: Waking
) -> Stream:
    """Server-sent `changed` whenever the event is handled, or one of its runs moves."""
    found = _parse(event_id)
    account_id, environment_id = principal.account_id, environment.id

    async def read() -> Mark:
        async with tenant(page_pool, account_id) as connection:
            return Mark(await events.event_mark(connection, environment_id, found))

    async with tenant(page_pool, account_id) as connection:
        if await events.event_text(connection, environment_id, found) is None:
            raise NotFoundException
    lines = stream(signals, environment_id, None, read, seen="")
    return Stream(lines, media_type="text/event-stream", headers=_STREAM)


@get("/env/{slug:str}/events/{event_id:str}/payload", name="event_payload", include_in_schema=False)
async def event_payload(
    *, event_id: FromPath[str], principal: Who, environment: Where, page_pool: Pages
) -> Response[bytes]:
    """The whole payload as a download; never shown by the browser, because a tenant wrote it."""
    found = _parse(event_id)
    async with tenant(page_pool, principal.account_id) as connection:
        text = await events.event_text(connection, environment.id, found)
    if text is None:
        raise NotFoundException
    headers = PRIVATE | {
        "Content-Disposition": f'attachment; filename="event-{to_ulid(found)}.json"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(text.encode(), media_type="application/json", headers=headers)


@post(
    "/env/{slug:str}/events/{event_id:str}/again",
    name="event_again",
    include_in_schema=False,
    guards=[require_role("member")],
)
async def event_again(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    event_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    site: Here,
) -> Redirect:
    """Send a copy with a new id and time, so that nothing takes it for a duplicate; go to the copy."""
    found = _parse(event_id)
    async with tenant(page_pool, principal.account_id) as connection:
        text = await events.event_text(connection, environment.id, found)
    if text is None:
        raise NotFoundException
    ids = await _send(site, environment, _sendable(text).encode())
    await note(page_pool, request, principal, environment, "event.sent_again", **_noted(ids))
    return Redirect(f"/env/{slug}/events/{to_ulid(ids[0])}", status_code=303)


# ------------------------------------------------------------------ helpers of the handlers


async def _load(pool: Any, principal: Principal, environment: Environment, event_id: str) -> EventPage:
    async with tenant(pool, principal.account_id) as connection:
        page = await events.find_event(connection, environment.id, _parse(event_id))
    if page is None:
        raise NotFoundException
    return page


async def _send(site: Site, environment: Environment, body: bytes) -> list[UUID]:
    found = read_events(body, max_event_bytes=PLANS["self_hosted"].event_bytes, received_ms=time.time_ns() // 1_000_000)
    return await site.events.add(environment.scope, found, source="page")


def _noted(ids: Sequence[UUID]) -> dict[str, Any]:
    return {"subject": to_ulid(ids[0]), "detail": {"count": len(ids)}}


def _form(
    principal: Principal,
    environment: Environment,
    slug: str,
    text: str,
    *,
    problem: str | None = None,
    status: int = 200,
) -> Template:
    context = frame(principal, environment, "events") | {
        "base": f"/env/{slug}/events",
        "text": text,
        "problem": problem,
    }
    return Template("pages/events/send.html", context=context, headers=PRIVATE, status_code=status)


def _event_context(slug: str, page: EventPage) -> dict[str, Any]:
    return {
        "base": f"/env/{slug}/events",
        "runs_base": f"/env/{slug}/runs",
        "functions_base": f"/env/{slug}/functions",
        "event": page,
        "now": page.now,
    }


def explain(refused: JsonRefused | EventRefused, text: str) -> str:
    """A refusal as one sentence with its place: line and column for people, counted from one."""
    offset, index = refused.details.get("offset"), refused.details.get("index")
    place = ""
    if isinstance(offset, int):
        before = text.encode()[:offset].decode(errors="ignore")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        place = f" Line {line}, column {column}."
    elif isinstance(index, int) and text.lstrip().startswith("["):
        place = f" It is event number {index + 1} of the list."
    return refused.message + place


def _command(site: Site, page: EventPage) -> str | None:
    """A shell command that sends the event as a new one; None for what cannot be sent, or is too long to copy."""
    if page.is_internal or page.payload.is_cut or page.payload.octets > _LARGEST_COMMAND:
        return None
    key = "dev" if site.is_dev else "$INNGEST_EVENT_KEY"
    body = shlex.quote(_sendable(page.payload.text))
    return f'curl -X POST "{site.base_url}/e/{key}" \\\n  -H "Content-Type: application/json" \\\n  -d {body}'


def _sendable(stored: str) -> str:
    """A stored event as it would be sent anew: without its id and time. Values are not decoded, so no digit is lost."""
    parts = msgspec.json.decode(stored.encode(), type=dict[str, msgspec.Raw])
    kept = {name: parts[name] for name in ("name", "data", "user", "v") if name in parts}
    if kept.get("user") == msgspec.Raw(b"{}"):
        del kept["user"]
    return msgspec.json.encode(kept).decode()


def _pretty(text: str) -> str:
    return msgspec.json.format(text.encode(), indent=2).decode()


def _field(form: Any, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _parse(text: str) -> UUID:
    found = parse_ulid(text)
    if found is None:
        raise NotFoundException
    return found


class _Asked:
    """The list's query string, checked: what is not understood is left out, never an error page."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        first = dict(reversed(list(pairs)))
        self.q = first.get("q", "").strip().replace("\x00", "")[:256]
        self.names = tuple(text.replace("\x00", "")[:512] for name, text in pairs if name == "name" and text)[:20]
        self.has_internal = first.get("internal") == "1"
        self.before = Place.parse(first.get("before", ""))
        self.after = Place.parse(first.get("after", ""))
        self.before_text, self.after_text = first.get("before"), first.get("after")
        self.wanted = EventFilter.of(self.q, self.names, has_internal=self.has_internal)

    @property
    def has_filters(self) -> bool:
        return bool(self.q or self.names)

    @property
    def is_first_page(self) -> bool:
        return self.before is None and self.after is None

    def query(self, **other: str | None) -> str:
        """The query string with some parts replaced (None removes); `?` alone when nothing is left."""
        values = {"q": self.q, "internal": "1" if self.has_internal else ""} | other
        parts = [(name, value) for name, value in values.items() if value and name != "without"]
        parts += [("name", name) for name in self.names if name != other.get("without")]
        return "?" + urlencode(parts)


HANDLERS: tuple[Any, ...] = (
    events_list,
    events_changes,
    events_stream,
    event_form,
    event_send,
    event_page,
    event_changes,
    event_stream,
    event_payload,
    event_again,
)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool), "signals": Provide(provide_signals)},
)
