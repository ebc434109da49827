"""The plan an organization has, how much of it is used, and the spend cap: `/billing`."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from app.billing import checkout, plans
from app.domain.errors import Outside, Refused
from app.store.db import tenant
from app.web.forms import LARGEST_FORM, Fields
from app.web.guards import Principal, network_of, require_role
from app.web.pages.billing.desk import PORTAL, around, hosted_only, not_proven, page, till_of
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]
#: Questions of the page, by the word in its address.
ASKS = ("portal", "cancel", "resume", "cap")


@get("/", name="billing", include_in_schema=False)
async def show_plan(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Plan, limits, cap; on one's own machine the usage instead."""
    if not site.is_hosted:
        return Redirect("/billing/usage", status_code=303)
    return await _render(request, principal, site)


@post("/portal", guards=[hosted_only, require_role("owner")], request_max_body_size=LARGEST_FORM)
async def open_portal(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Go to Stripe's pages for cards and addresses."""
    till = till_of(site)
    if sentence := await not_proven(request, site, principal, (await Fields.of(request)).secret("password")):
        return await _render(request, principal, site, ask="portal", errors={"password": sentence})
    try:
        url = await checkout.open_portal(till, principal.account_id, principal.actor(network_of(request)))
    except (Refused, Outside) as failed:
        return await _render(request, principal, site, ask="portal", **_said(failed))
    return Redirect(url, status_code=303)


@post("/cancel", guards=[hosted_only, require_role("owner")], request_max_body_size=LARGEST_FORM)
async def cancel(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Let the plan end with its period."""
    return await _set_cancelling(request, principal, site, is_cancelling=True)


@post("/resume", guards=[hosted_only, require_role("owner")], request_max_body_size=LARGEST_FORM)
async def resume(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Let a plan that was to end go on."""
    return await _set_cancelling(request, principal, site, is_cancelling=False)


@post("/cap", guards=[hosted_only, require_role("owner")], request_max_body_size=LARGEST_FORM)
async def set_cap(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Set or drop the spend cap."""
    till = till_of(site)
    form = await Fields.of(request)
    text = form.text("amount")
    if sentence := await not_proven(request, site, principal, form.secret("password")):
        return await _render(request, principal, site, ask="cap", errors={"password": sentence}, amount=text)
    try:
        async with site.ingest.acquire(timeout=2) as conn, conn.transaction():
            actor = principal.actor(network_of(request))
            await checkout.set_cap(
                conn, till.house, principal.account_id, actor, text, await _currency(conn, principal)
            )
    except Refused as refused:
        return await _render(request, principal, site, ask="cap", errors={"amount": refused.message}, amount=text)
    return Redirect("/billing?done=cap", status_code=303)


async def _currency(conn: Any, principal: Principal) -> str:
    """The currency the organization's plan is sold in; before it has one, that of any plan."""
    found: str | None = await conn.fetchval(
        "select p.currency from billing_prices p join accounts a on a.id = $1 order by p.plan <> a.plan, p.plan limit 1",
        principal.account_id,
    )
    return found or "usd"


async def _set_cancelling(
    request: AnyRequest, principal: Principal, site: Site, *, is_cancelling: bool
) -> Response[Any]:
    till = till_of(site)
    ask = "cancel" if is_cancelling else "resume"
    if sentence := await not_proven(request, site, principal, (await Fields.of(request)).secret("password")):
        return await _render(request, principal, site, ask=ask, errors={"password": sentence})
    try:
        actor = principal.actor(network_of(request))
        await checkout.set_cancelling(till, principal.account_id, actor, is_cancelling=is_cancelling)
    except (Refused, Outside) as failed:
        return await _render(request, principal, site, ask=ask, **_said(failed))
    return Redirect(f"/billing?done={'cancelled' if is_cancelling else 'resumed'}", status_code=303)


def _said(failed: Refused | Outside) -> dict[str, Any]:
    """What a page says about a deed that did not work."""
    return {"failure": failed.message} if isinstance(failed, Outside) else {"errors": {"form": failed.message}}


async def _render(
    request: AnyRequest,
    principal: Principal,
    site: Site,
    *,
    ask: str = "",
    errors: dict[str, str] | None = None,
    failure: str = "",
    amount: str | None = None,
) -> Template:
    ask = ask or request.query_params.get("ask", "")
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, site, "plan")
        currency = await _currency(conn, principal)
    here, account = context["here"], context["account"]
    cap = account.spend_cap
    context |= {
        "ask": ask if ask in ASKS and context["may_pay"] else "",
        "currency": currency,
        "amount": amount if amount is not None else ("" if cap is None else _plain(cap, currency)),
        "bars": _bars(here),
        "errors": errors or {},
        "failure": failure,
        "has_use_price": here.price is not None and here.price.each > 0 and not here.limits.stops_at_allowance,
        "each_words": _each(here),
        "stops": here.limits.stops_at_allowance,
    }
    return page("plan", context, goes_to=PORTAL if context["may_pay"] else "")


def _plain(minor: int, currency: str) -> str:
    """An amount as one would type it."""
    words = plans.money(minor, currency)
    return "".join(c for c in words if c.isdecimal() or c == ".")


def _each(here: Any) -> str:
    """What 1,000 executions beyond the plan cost, for people."""
    if here.price is None:
        return ""
    return plans.money(round(here.price.each * 1000), here.price.currency)


def _bars(here: Any) -> list[tuple[str, int, int | None]]:
    return [
        ("Executions", here.used.executions, here.limits.executions),
        ("Events", here.used.events, here.limits.events),
    ]


HANDLERS = (show_plan, open_portal, cancel, resume, set_cap)
