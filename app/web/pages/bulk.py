"""Bulk actions, before: what would happen, the yes, and the history. `bulk_result` is what comes after.

    ticked rows or a filter ─► GET bulk/new ─► POST bulk ─► GET bulk/{id}, live ─► result

The set is computed anew when the form comes back and compared with what the person was shown. Everything works without
scripts.
"""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import asyncpg
from litestar import Request, Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from litestar.response import Redirect, Template

from app.adapters.arq import JobName
from app.domain.ids import millis, parse_ulid, to_ulid, ulid_of
from app.reads import bulk as reads
from app.reads.bulk import MOST, MOST_TICKED, Preview
from app.reads.filters import RunFilter
from app.reads.scan import EXAMINED
from app.store.accounts import Environment
from app.store.audit import insert_entry
from app.store.db import Connection, tenant
from app.store.named import fetch, named
from app.web.guards import Principal, network_of, require_person, require_role
from app.web.hx import PRIVATE
from app.web.pages import bulk_result
from app.web.pages.asked import Asked
from app.web.pages.provided import provide_page_pool, provide_signals
from app.web.run_desk import RunDesk, provide_run_desk
from app.web.shell import frame

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]

ACTIONS = ("replay", "cancel")
#: Above this many runs a reason must be given, and above this many the number typed.
REASON_ABOVE, TYPED_ABOVE = 100, 1000
#: Runs a second that are offered; none is as fast as possible.
SPEEDS = (1, 10, 50, 200)
#: The set may differ by this part from what was shown.
_DRIFT = 0.05
_LONGEST_NAME = 100


class _Wanted:
    """What the form asks for: an action on ticked runs, or on everything that matches a filter."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        pairs = [(name, text.replace("\x00", "")) for name, text in pairs]
        first = dict(reversed(pairs))
        self.asked = Asked(pairs)
        self.action = first["action"] if first.get("action") in ACTIONS else ACTIONS[0]
        self.is_all = first.get("all") == "1"
        self.from_step = "start" if first.get("from_step") == "start" else "failed"
        self.is_again = first.get("again") == "1"
        self.is_deep = first.get("deep") == "1" and self.action == "cancel"
        self.name = " ".join(first.get("name", "").split())[:_LONGEST_NAME]
        self.reason = first.get("reason", "").strip()[:500]
        speed = first.get("speed", "")
        self.speed = int(speed) if speed.isascii() and speed.isdigit() and 1 <= int(speed[:5]) <= 1000 else None
        self.typed = first.get("typed", "").replace(",", "").strip()
        self.token = first.get("token", "")[:100] or secrets.token_urlsafe(16)
        expected = first.get("expected", "")[:12]
        self.expected = int(expected) if expected.isascii() and expected.isdigit() else None
        runs = [found for name, text in pairs if name == "run" and (found := parse_ulid(text)) is not None]
        self.runs = runs[:MOST_TICKED]

    def wanted(self, now: datetime) -> RunFilter | list[UUID]:
        """The set: frozen in time when it is a filter."""
        return self.asked.frozen(now) if self.is_all else self.runs

    def fields(self, now: datetime) -> list[tuple[str, str]]:
        """The set as hidden fields: the same runs when the form comes back."""
        if not self.is_all:
            return [("run", to_ulid(run)) for run in self.runs]
        frozen = self.asked.frozen(now)
        left_out = {"last", "from", "to", "size", "sort", "view"}
        pairs = [(name, value) for name, value in self.asked.pairs() if name not in left_out]
        pairs += [("from", f"{frozen.since:%Y-%m-%dT%H:%M}")] if frozen.since else []
        pairs += [("to", f"{frozen.until:%Y-%m-%dT%H:%M}")] if frozen.until else []
        return [("all", "1"), *pairs]

    def options(self) -> list[tuple[str, str]]:
        """What else the form says, for an address that asks the same again."""
        pairs = [("action", self.action), ("from_step", self.from_step if self.action == "replay" else "")]
        pairs += [("again", "1" if self.is_again else ""), ("deep", "1" if self.is_deep else "")]
        return [(name, value) for name, value in pairs if value]

    def without(self, chip_query: str) -> str:
        """The same question about another set: what the × of a filter leads to."""
        return "?" + urlencode([*self.options(), ("all", "1"), *parse_qsl(chip_query.removeprefix("?"))])

    async def preview(self, connection: Connection, environment: Environment) -> tuple[Preview, datetime]:
        """What would happen now."""
        now: datetime = await connection.fetchval("select clock()")
        await connection.execute("set local statement_timeout = 4000")
        found = await reads.preview(
            connection,
            environment.id,
            self.wanted(now),
            now,
            action=self.action,
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
    number = len(found.chosen)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{environment.slug}/runs",
        "bulk": f"/env/{environment.slug}/bulk",
        "wanted": wanted,
        "preview": found,
        "fields": wanted.fields(now),
        "now": now,
        "most": MOST,
        "examined": EXAMINED,
        "speeds": [(speed, number / speed * 1000) for speed in SPEEDS if speed < max(2, number)],
        "needs_reason": number > REASON_ABOVE,
        "needs_number": number > TYPED_ABOVE,
        "problem": problem,
    }
    return Template("pages/bulk/new.html", context=context, headers=PRIVATE, status_code=422 if problem else 200)


@get("/env/{slug:str}/bulk/new", name="bulk_new", guards=[require_role("member")], include_in_schema=False)
async def ask(request: AnyRequest, *, principal: Who, environment: Where, page_pool: Pages) -> Template:
    """What the action would do, and the form that does it."""
    wanted = _Wanted(list(request.query_params.multi_items()))
    try:
        async with tenant(page_pool, principal.account_id) as connection:
            found, now = await wanted.preview(connection, environment)
    except asyncpg.QueryCanceledError:
        problem = "Counting these runs took too long. Narrow the filter, for example to a shorter range."
        return _form(principal, environment, wanted, reads.NOTHING, datetime.now(UTC), problem)
    if wanted.is_all and wanted.asked.problem:
        # Without its search the rest of the filter would mean more runs than somebody asked for.
        return _form(principal, environment, wanted, reads.NOTHING, now, wanted.asked.problem)
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
    """Freeze the set; it begins when it can no longer be undone. The same form sent twice is one action."""
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
            name=wanted.name,
            reason=wanted.reason,
            filters=urlencode([pair for pair in wanted.fields(now) if pair[0] != "run"]),
            run_ids=list(found.chosen),
            left_out=sum(found.left_out.values()),
            actor_id=principal.user_id,
            actor=principal.email,
            wait=acts.undo_window,
            speed=wanted.speed,
            is_deep=wanted.is_deep,
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
    if acts.undo_window <= timedelta():
        acts.nudge(JobName.BULK)
    return Redirect(f"/env/{slug}/bulk/{to_ulid(bulk_id)}", status_code=303)


def _problem(wanted: _Wanted, found: Preview) -> str | None:
    """Why it cannot begin, as a sentence."""
    number = len(found.chosen)
    if wanted.is_all and wanted.asked.problem:
        return wanted.asked.problem
    if found.is_cut:
        return f"More than {MOST:,} runs match. Narrow the filter: an action takes at most {MOST:,} runs."
    if found.is_unsure:
        return "The expression was not tried on every run of the range. Narrow the range, so that none is forgotten."
    if not found.chosen:
        return "There is nothing to do: every run is left out."
    if wanted.expected is not None and abs(number - wanted.expected) > _DRIFT * wanted.expected:
        return f"The runs have changed: it was {wanted.expected:,}, now it is {number:,}. Look again."
    if number > REASON_ABOVE and not wanted.reason:
        return f"Say why: actions on more than {REASON_ABOVE} runs need a reason."
    if number > TYPED_ABOVE and wanted.typed not in {str(number), str(wanted.expected)}:
        return f"Type the number of runs, {number:,}, to go on."
    return None


@get("/env/{slug:str}/bulk", name="bulk_list", include_in_schema=False)
async def history(*, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages) -> Template:
    """The newest actions, with what each was about and a way to ask for the same again."""
    async with tenant(page_pool, principal.account_id) as connection:
        actions = await reads.recent(connection, environment.id)
    context = frame(principal, environment, "runs") | {
        "base": f"/env/{slug}/runs",
        "bulk": f"/env/{slug}/bulk",
        "actions": [(action, Asked(parse_qsl(action.filters)) if action.filters else None) for action in actions],
        "now": actions[0].now if actions else datetime.now(UTC),
        "may_act": principal.may("member"),
    }
    return Template("pages/bulk/list.html", context=context, headers=PRIVATE)


HANDLERS: tuple[Any, ...] = (ask, start, history, *bulk_result.HANDLERS)

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
