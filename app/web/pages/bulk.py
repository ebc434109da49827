"""Bulk actions: what would happen, the yes, the progress, the result. Everything works without scripts.

    ticked rows or a filter ─► GET bulk/new ─► POST bulk ─► GET bulk/{id}, live ─► result

The set is computed anew when the form comes back and compared with what the person was shown.
"""

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, HeaderParameter
from litestar.response import Redirect, Stream, Template

from app.adapters.arq import JobName
from app.domain.ids import millis, parse_ulid, to_ulid, ulid_of
from app.reads import bulk as reads
from app.reads.bulk import MOST, OUTCOMES, Preview
from app.reads.filters import RunFilter
from app.store.accounts import Environment
from app.store.audit import insert_entry
from app.store.db import Connection, tenant
from app.store.named import fetch, named
from app.web.guards import Principal, network_of, require_person, require_role
from app.web.hx import PRIVATE, Hx
from app.web.live import Mark, Signals, stream
from app.web.pages.asked import Asked
from app.web.pages.provided import STREAM_HEADERS, provide_page_pool, provide_signals
from app.web.run_desk import RunDesk, provide_run_desk
from app.web.shell import frame

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]

ACTIONS = ("replay", "cancel")
#: Above this many runs a reason must be given.
REASON_ABOVE = 100
#: The set may differ by this part from what was shown.
_DRIFT = 0.05


class _Wanted:
    """What the form asks for: an action on ticked runs, or on everything that matches a filter."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        pairs = [(name, text.replace("\x00", "")) for name, text in pairs]
        first = dict(reversed(pairs))
        self.asked = Asked(pairs)
        self.action = first.get("action") if first.get("action") in ACTIONS else "replay"
        self.is_all = first.get("all") == "1"
        self.from_step = "start" if first.get("from_step") == "start" else "failed"
        self.is_again = first.get("again") == "1"
        self.reason = first.get("reason", "").strip()[:500]
        self.token = first.get("token", "")[:100] or secrets.token_urlsafe(16)
        self.expected = int(first["expected"]) if first.get("expected", "").isdigit() else None
        self.runs = [found for name, text in pairs if name == "run" and (found := parse_ulid(text)) is not None][:MOST]

    def wanted(self, now: datetime) -> RunFilter | list[UUID]:
        """The set: frozen in time when it is a filter."""
        return self.asked.frozen(now) if self.is_all else self.runs

    def fields(self, now: datetime) -> list[tuple[str, str]]:
        """The set as hidden fields: the same runs when the form comes back."""
        if not self.is_all:
            return [("run", to_ulid(run)) for run in self.runs]
        frozen = self.asked.frozen(now)
        pairs = [(name, value) for name, value in self.asked.pairs() if name not in {"last", "from", "to", "size"}]
        pairs += [("from", f"{frozen.since:%Y-%m-%dT%H:%M}")] if frozen.since else []
        pairs += [("to", f"{frozen.until:%Y-%m-%dT%H:%M}")] if frozen.until else []
        return [("all", "1"), *pairs]

    async def preview(self, connection: Connection, environment: Environment) -> tuple[Preview, datetime]:
        """What would happen now."""
        now: datetime = await connection.fetchval("select clock()")
        await connection.execute("set local statement_timeout = 2000")
        found = await reads.preview(
            connection,
            environment.id,
            self.wanted(now),
            now,
            action=self.action or "replay",
            from_step=self.from_step,
            is_again=self.is_again,
        )
        return found, now


def _form(
    principal: Principal,
    environment: Environment,
    wanted: _Wanted,
    found: Preview,
    now: datetime,
    problem: str | None = None,
) -> Template:
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{environment.slug}/runs",
        "bulk": f"/env/{environment.slug}/bulk",
        "wanted": wanted,
        "preview": found,
        "fields": wanted.fields(now),
        "now": now,
        "most": MOST,
        "needs_reason": len(found.chosen) > REASON_ABOVE,
        "problem": problem,
    }
    return Template("pages/bulk/new.html", context=context, headers=PRIVATE, status_code=422 if problem else 200)


@get("/env/{slug:str}/bulk/new", name="bulk_new", guards=[require_role("member")], include_in_schema=False)
async def ask(request: AnyRequest, *, principal: Who, environment: Where, page_pool: Pages) -> Template:
    """What the action would do, and the form that does it."""
    wanted = _Wanted(list(request.query_params.multi_items()))
    async with tenant(page_pool, principal.account_id) as connection:
        found, now = await wanted.preview(connection, environment)
    return _form(principal, environment, wanted, found, now)


@post("/env/{slug:str}/bulk", name="bulk_start", guards=[require_role("member")], status_code=303)
async def start(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    desk: NamedDependency[Any],
) -> Response[Any]:
    """Freeze the set and begin; the same form sent twice is one action."""
    form = await request.form()
    wanted = _Wanted([(name, value) for name, value in form.multi_items() if isinstance(value, str)])
    acts: RunDesk = desk
    async with tenant(page_pool, principal.account_id) as connection:
        known = await fetch(connection, named("bulk", "by_token"), environment=environment.id, token=wanted.token)
        if known:
            return Redirect(f"/env/{slug}/bulk/{to_ulid(known[0]['id'])}", status_code=303)
        found, now = await wanted.preview(connection, environment)
        problem = _problem(wanted, found)
        if problem is not None:
            return _form(principal, environment, wanted, found, now, problem)
        bulk_id = ulid_of(millis(now), secrets.token_bytes(10))
        made = await fetch(
            connection,
            named("bulk", "make"),
            id=bulk_id,
            account=environment.account_id,
            environment=environment.id,
            action=wanted.action,
            from_step=wanted.from_step if wanted.action == "replay" else None,
            token=wanted.token,
            reason=wanted.reason,
            filters=urlencode([pair for pair in wanted.fields(now) if pair[0] != "run"]),
            run_ids=list(found.chosen),
            left_out=sum(found.left_out.values()),
            actor_id=principal.user_id,
            actor=principal.email,
        )
        if not made:  # the twin of this form was faster
            known = await fetch(connection, named("bulk", "by_token"), environment=environment.id, token=wanted.token)
            return Redirect(f"/env/{slug}/bulk/{to_ulid(known[0]['id'])}", status_code=303)
        await insert_entry(
            connection,
            environment.account_id,
            principal.actor(network_of(request)),
            "bulk.started",
            environment_id=environment.id,
            subject=to_ulid(bulk_id),
            detail={"action": wanted.action, "runs": len(found.chosen), "reason": wanted.reason},
        )
    acts.nudge(JobName.BULK)
    return Redirect(f"/env/{slug}/bulk/{to_ulid(bulk_id)}", status_code=303)


def _problem(wanted: _Wanted, found: Preview) -> str | None:
    """Why it cannot begin, as a sentence."""
    if found.is_cut:
        return f"More than {MOST:,} runs match. Narrow the filter: an action takes at most {MOST:,} runs."
    if not found.chosen:
        return "There is nothing to do: every run is left out."
    if len(found.chosen) > REASON_ABOVE and not wanted.reason:
        return f"Say why: actions on more than {REASON_ABOVE} runs need a reason."
    if wanted.expected is not None and abs(len(found.chosen) - wanted.expected) > _DRIFT * wanted.expected:
        return f"The runs have changed: it was {wanted.expected:,}, now it is {len(found.chosen):,}. Look again."
    return None


@get("/env/{slug:str}/bulk", name="bulk_list", include_in_schema=False)
async def history(*, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages) -> Template:
    """The newest actions."""
    async with tenant(page_pool, principal.account_id) as connection:
        actions = await reads.recent(connection, environment.id)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "bulk": f"/env/{slug}/bulk",
        "actions": actions,
        "now": actions[0].now if actions else datetime.now(UTC),
    }
    return Template("pages/bulk/list.html", context=context, headers=PRIVATE)


@get("/env/{slug:str}/bulk/{bulk_id:str}", name="bulk", include_in_schema=False)
async def show(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    bulk_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    outcome: FromQuery[str | None] = None,
) -> Template:
    """Progress and result; for htmx with target `#bulk` only what changes."""
    found_id = _id(bulk_id)
    outcome = outcome if outcome in OUTCOMES else None
    async with tenant(page_pool, principal.account_id) as connection:
        progress = await reads.find_progress(connection, environment.id, found_id)
        if progress is None:
            raise NotFoundException
        rows = await reads.results(connection, environment.id, found_id, outcome)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "bulk": f"/env/{slug}/bulk",
        "progress": progress,
        "rows": rows,
        "outcome": outcome,
        "outcomes": OUTCOMES,
        "now": progress.now,
        "may_act": principal.may("member"),
    }
    name = "fragments/bulk/progress.html" if Hx.of(request.headers).wants("bulk") else "pages/bulk/show.html"
    return Template(name, context=context, headers=PRIVATE)


@get("/env/{slug:str}/bulk/{bulk_id:str}/stream", name="bulk_stream", include_in_schema=False)
async def follow(
    *,
    bulk_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
    signals: NamedDependency[Signals],
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> Stream:
    """Server-sent `changed` while runs are changed, and `done` at the end."""
    found_id, account_id, environment_id = _id(bulk_id), principal.account_id, environment.id

    async def read() -> Mark | None:
        async with tenant(page_pool, account_id) as connection:
            progress = await reads.find_progress(connection, environment_id, found_id)
        return None if progress is None else Mark(progress.mark, progress.is_ended)

    if await read() is None:
        raise NotFoundException
    lines = stream(signals, environment_id, None, read, seen=last_event_id or "")
    return Stream(lines, media_type="text/event-stream", headers=STREAM_HEADERS)


@post("/env/{slug:str}/bulk/{bulk_id:str}/stop", name="bulk_stop", guards=[require_role("member")], status_code=303)
async def stop(
    request: AnyRequest,
    *,
    slug: FromPath[str],
    bulk_id: FromPath[str],
    principal: Who,
    environment: Where,
    page_pool: Pages,
) -> Redirect:
    """Drop what has not started; what was done stays done."""
    found_id = _id(bulk_id)
    async with tenant(page_pool, principal.account_id) as connection:
        if await reads.find_progress(connection, environment.id, found_id) is None:
            raise NotFoundException
        dropped = await fetch(connection, named("bulk", "stop"), id=found_id, environment=environment.id)
        if dropped:
            await insert_entry(
                connection,
                environment.account_id,
                principal.actor(network_of(request)),
                "bulk.stopped",
                environment_id=environment.id,
                subject=to_ulid(found_id),
                detail={"dropped": len(dropped)},
            )
    return Redirect(f"/env/{slug}/bulk/{to_ulid(found_id)}", status_code=303)


def _id(text: str) -> UUID:
    found = parse_ulid(text)
    if found is None:
        raise NotFoundException
    return found


HANDLERS: tuple[Any, ...] = (ask, start, history, show, follow, stop)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={
        "page_pool": Provide(provide_page_pool),
        "signals": Provide(provide_signals),
        "desk": Provide(provide_run_desk),
    },
)
