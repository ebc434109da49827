"""Overview of an environment: what needs attention, what is going on, and what was deployed lately."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from litestar.response import Template

from app.reads import apps, overview, volumes
from app.reads.filters import RunFilter
from app.reads.usage import count_tabs, histogram
from app.store.accounts import Environment
from app.store.db import tenant
from app.web.guards import Principal, require_person
from app.web.hx import PRIVATE
from app.web.pages.provided import provide_page_pool
from app.web.shell import frame

Who = NamedDependency[Principal]
Where = NamedDependency[Environment]
Pages = NamedDependency[Any]

#: Counts of the last day, in this order.
_COUNTED = ("running", "queued", "waiting", "failed", "completed")


@get("/env/{slug:str}", name="overview", include_in_schema=False)
async def overview_page(*, slug: FromPath[str], principal: Who, environment: Where, page_pool: Pages) -> Template:
    """Failures by function and error, counts of the last day, and the last syncs."""
    async with tenant(page_pool, principal.account_id) as connection:
        load = await volumes.load_of(connection, environment.id)
        now, day = load.now, RunFilter(last="24h")
        failures = await overview.recent_failures(connection, environment.id)
        counts = await count_tabs(connection, environment.id, day, now)
        buckets = await histogram(connection, environment.id, day, now)
        syncs = await apps.recent_syncs(connection, environment.id)
    context = frame(principal, environment, "overview") | {
        "env_base": f"/env/{slug}",
        "failures": [
            (failure, f"/env/{slug}/runs?{urlencode({'fn': failure.function_slug, 'status': 'failed'})}")
            for failure in failures
        ],
        "load": load,
        "buckets": buckets,
        "between": _between,
        "counts": counts,
        "counted": _COUNTED,
        "syncs": syncs,
        "now": now,
    }
    return Template("pages/overview/overview.html", context=context, headers=PRIVATE)


def _between(since: datetime, until: datetime) -> str:
    """The query of the runs list for a bar of the chart."""
    return urlencode({"from": f"{since:%Y-%m-%dT%H:%M}", "to": f"{until:%Y-%m-%dT%H:%M}"})


HANDLERS: tuple[Any, ...] = (overview_page,)

ROUTER = Router(
    path="/",
    route_handlers=HANDLERS,
    guards=[require_person],
    dependencies={"page_pool": Provide(provide_page_pool)},
)
