"""Bills, as they were read back last: `/billing/invoices`. The page does not need Stripe; bringing it up to date does."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Redirect, Template

from app.billing import checkout
from app.domain.errors import Outside
from app.store import billing
from app.store.db import tenant
from app.web.forms import LARGEST_FORM
from app.web.guards import Principal, require_role
from app.web.pages.billing.desk import around, hosted_only, page, till_of
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]


@get("/invoices", name="billing_invoices", guards=[hosted_only, require_role("admin")], include_in_schema=False)
async def show_invoices(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The last three years of bills."""
    return await _render(request, principal, site)


@post("/invoices", guards=[hosted_only, require_role("admin")], request_max_body_size=LARGEST_FORM)
async def refresh(request: AnyRequest, principal: Who, site: Here) -> Response[Any]:
    """Read everything back from Stripe now."""
    try:
        await checkout.refresh(till_of(site), principal.account_id)
    except Outside as away:
        return await _render(request, principal, site, failure=away.message)
    return Redirect("/billing/invoices?done=refreshed", status_code=303)


async def _render(request: AnyRequest, principal: Principal, site: Site, *, failure: str = "") -> Template:
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, site, "invoices")
        bills = await billing.list_bills(conn, principal.account_id)
    return page("invoices", context | {"bills": bills, "failure": failure})


HANDLERS = (show_invoices, refresh)
