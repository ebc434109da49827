"""Event types: the names that came lately or that functions wait for, and who listens."""

from typing import Any

from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from litestar.response import Template

from app.reads.event_types import list_event_types
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.guards import Principal, require_person
from app.web.hx import PRIVATE
from app.web.pages.provided import provide_page_pool
from app.web.shell import frame

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]


@get("/env/{slug:str}/event-types", name="event_types", include_in_schema=False)
async def event_types(*, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages) -> Template:
    """Each name with its functions; the name leads to its events."""
    async with tenant(page_pool, principal.account_id) as connection:
        found = await list_event_types(connection, environment.id)
    context = frame(principal, environment, "event-types") | {
        "events_base": f"/env/{slug}/events",
        "functions_base": f"/env/{slug}/functions",
        "found": found,
        "now": found.now,
    }
    return Template("pages/events/types.html", context=context, headers=PRIVATE)


HANDLERS: tuple[Any, ...] = (event_types,)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool)},
)
