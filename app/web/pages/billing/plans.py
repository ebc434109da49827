"""The plans beside each other, and how to change to one: `/billing/plans`."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from app.billing import checkout, plans
from app.domain.errors import Outside, Refused
from app.domain.limits import PLANS, PlanLimits
from app.store import billing
from app.store.billing import Cost
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import Principal, network_of, require_role
from app.web.pages.billing.desk import CHECKOUT, around, hosted_only, not_proven, page, plan_words, till_of
from app.web.site import Site
from app.web.words import count, size

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]


@get("/plans", name="billing_plans", guards=[hosted_only], include_in_schema=False)
async def show_plans(request: AnyRequest, principal: Who, site: Here) -> Template:
    """What each plan holds and costs; `?choose=pro` asks for the password and goes on."""
    return await _render(request, principal, site)


@post("/plans", guards=[hosted_only, require_role("owner")], request_max_body_size=LARGEST_FORM)
async def choose_plan(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Go and pay, or change the subscription there is."""
    till = till_of(site)
    form = await Fields.of(request)
    wanted = form.text("plan")
    if sentence := await not_proven(request, site, principal, form.secret("password")):
        return await _render(request, principal, site, choose=wanted, errors={"password": sentence})
    try:
        actor = principal.actor(network_of(request))
        url = await checkout.choose(till, principal.account_id, actor, wanted, email=principal.email)
    except Refused as refused:
        return await _render(request, principal, site, choose=wanted, errors={"form": refused.message})
    except Outside as away:
        return await _render(request, principal, site, choose=wanted, failure=away.message)
    return Redirect(url or "/billing?done=changed", status_code=303)


async def _render(
    request: AnyRequest,
    principal: Principal,
    site: Site,
    *,
    choose: str = "",
    errors: dict[str, str] | None = None,
    failure: str = "",
) -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, site, "plans")
        prices = await billing.list_prices(conn)
    sold = site.stripe.sold if site.stripe is not None else {}
    choose = choose or request.query_params.get("choose", "")
    present = context["account"].has_plan
    shown = [name for name in plans.CHOICES if name == plans.FREE or name in sold or name == present]
    context |= {
        "cards": [_card(name, prices.get(name), present) for name in shown],
        "rows": _rows(shown, prices),
        "sold": sold,
        "choose": choose if choose in sold and context["may_pay"] and choose != present else "",
        "choose_words": plan_words(choose),
        "choose_price": _price(prices.get(choose)),
        "is_upgrade": plans.is_upgrade(present, choose),
        "errors": errors or {},
        "failure": failure,
    }
    return page("plans", context, goes_to=CHECKOUT if context["may_pay"] else "")


def _card(name: str, cost: Cost | None, present: str) -> dict[str, Any]:
    return {
        "name": name,
        "words": plan_words(name),
        "price": "No charge" if name == plans.FREE else _price(cost) or "Shown before you pay",
        "per": "a month" if name != plans.FREE and cost else "",
        "is_present": name == present,
    }


def _price(cost: Cost | None) -> str:
    return plans.money(cost.amount, cost.currency) if cost else ""


def _rows(shown: list[str], prices: dict[str, Cost]) -> list[tuple[str, list[str]]]:
    """Row by row what the plans hold, for people."""
    held = [PLANS[name] for name in shown]

    def row(words: str, say: Any) -> tuple[str, list[str]]:
        return words, [say(plan) for plan in held]

    def beyond(plan: PlanLimits) -> str:
        cost = prices.get(plan.name)
        if plan.stops_at_allowance:
            return "New runs stop"
        return f"{plans.money(round(cost.each * 1000), cost.currency)} per 1,000" if cost and cost.each else "Included"

    return [
        row("Executions a month", lambda p: _number(p.executions)),
        row("Executions beyond", beyond),
        row("Events a month", lambda p: _number(p.events)),
        row("Calls at once", lambda p: _number(p.concurrency)),
        row("Events a second", lambda p: _number(p.event_rate)),
        row("Largest event", lambda p: size(p.event_bytes)),
        row("Steps of a run", lambda p: _number(p.steps_per_run)),
        row("Longest sleep", lambda p: f"{p.max_sleep.days} days"),
        row("Events in a batch", lambda p: _number(p.batch_size)),
        row("Schedules", lambda p: _number(p.schedules)),
        row("History kept", lambda p: f"{p.retention.days} day{'' if p.retention.days == 1 else 's'}"),
    ]


def _number(value: int | None) -> str:
    return "No limit" if value is None else count(value)


HANDLERS = (show_plans, choose_plan)
