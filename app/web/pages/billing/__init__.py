"""Plan, usage, plans to choose from, invoices: `/billing`. On one's own machine there is only the usage."""

from litestar import Router

from app.web.guards import require_person
from app.web.pages.billing import invoices, plan, plans, usage

ROUTER = Router(
    path="/billing",
    route_handlers=[*plan.HANDLERS, *usage.HANDLERS, *plans.HANDLERS, *invoices.HANDLERS],
    guards=[require_person],
)
