"""What all pages of billing share: the frame, who may do what, and what is said when Stripe is away."""

from typing import Any

from litestar import Request
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.response import Template

from app.billing import plans
from app.billing.checkout import Desk
from app.billing.plans import money
from app.billing.standing import Standing, standing_of
from app.domain.limits import PLANS
from app.store import billing
from app.store.accounts import list_environments
from app.store.db import Connection
from app.web.guards import AnyConnection, NotFound, Principal, session_id_of
from app.web.headers import CONTENT_POLICY
from app.web.hx import PRIVATE
from app.web.pages.settings.desk import wrong_password
from app.web.shell import frame
from app.web.site import Site, site_of

AnyRequest = Request[Any, Any, State]
#: Where browsers are sent after a form of ours; the names are also in `adapters.stripe`, which is not loaded everywhere.
CHECKOUT, PORTAL = "https://checkout.stripe.com", "https://billing.stripe.com"
#: What may be shown after a redirect to ourselves.
DEEDS = {
    "subscribed": "Thank you. The plan holds as soon as Stripe has confirmed the payment, usually within seconds.",
    "changed": "The plan is changed. Its limits hold within seconds.",
    "cancelled": "The plan ends with the period that is paid for. Until then nothing changes.",
    "resumed": "The plan goes on.",
    "portal": "Changes made at Stripe show here within a minute.",
    "cap": "The spend cap is saved.",
    "refreshed": "Read back from Stripe just now.",
}


async def hosted_only(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """Guard: plans and invoices are not there on one's own machine."""
    if not site_of(connection.app).is_hosted:
        raise NotFound


def till_of(site: Site) -> Desk:
    """What owners pay with. Raises `NotFound` where nothing is sold."""
    till = site.till
    if till is None:
        raise NotFound
    return till


async def not_proven(request: AnyRequest, site: Site, principal: Principal, password: str) -> str:
    """The sentence beside the password where money is concerned; empty when it is the person themselves.

    Who signs in elsewhere and has no password proves it by a fresh login there.
    """
    return await wrong_password(site, principal, password, session_id=session_id_of(request))


async def around(conn: Connection, request: AnyRequest, principal: Principal, site: Site, tab: str) -> dict[str, Any]:
    """The template variables of every tab: the frame, and where the organization stands."""
    rows = await list_environments(conn, principal.account_id)
    asked = request.query_params.get("from", "")
    environment = next((e for e in rows if e.slug == asked), None) or next(
        (e for e in rows if e.archived_at is None), next(iter(rows), None)
    )
    account = await billing.find_account(conn, principal.account_id)
    if environment is None or account is None:
        raise NotFound
    now = await conn.fetchval("select clock()")
    here: Standing = await standing_of(conn, account, now)
    tabs = [("usage", "Usage", "/billing/usage", None, None)]
    if site.is_hosted:
        tabs = [
            ("plan", "Plan", "/billing", None, None),
            *tabs,
            ("plans", "Compare plans", "/billing/plans", None, None),
        ]
        if principal.may("admin"):
            tabs.append(("invoices", "Invoices", "/billing/invoices", None, None))
    return frame(principal, environment, f"billing-{tab}") | {
        "tab": tab,
        "tabs_shown": tabs,
        "environments": rows,
        "here": here,
        "account": account,
        "limits": PLANS.get(account.has_plan, PLANS["self_hosted"]),
        "plan_words": plan_words(account.has_plan),
        "money": money,
        "now": now,
        "is_hosted": site.is_hosted,
        "sells": site.stripe is not None,
        "may_pay": principal.may("owner") and site.stripe is not None,
        "is_living": account.status in plans.LIVING,
        "done": DEEDS.get(request.query_params.get("done", ""), ""),
        "errors": {},
        "failure": "",
    }


def plan_words(name: str) -> str:
    """A plan's name for people."""
    return {"self_hosted": "Self-hosted"}.get(name, name.capitalize())


def page(tab: str, context: dict[str, Any], *, goes_to: str = "", status: int | None = None) -> Template:
    """A tab's page; 422 when something on it is wrong, 503 when Stripe is away.

    `goes_to` is the one origin its form may lead to.
    """
    code = status or (503 if context["failure"] else 422 if context["errors"] else 200)
    headers = dict(PRIVATE)
    if goes_to:
        headers["Content-Security-Policy"] = CONTENT_POLICY.replace(
            "form-action 'self'", f"form-action 'self' {goes_to}"
        )
    return Template(f"pages/billing/{tab}.html", context=context, headers=headers, status_code=code)
