"""The house as its operators see it: what is stuck, what was repaired, lag, queue by gate, workers, partitions. `/operator`.

Numbers of all organizations and no content of any. Only for operators (`Principal.is_operator`): for others there is
nothing here. The invariants are asked of the live database only when somebody presses the button, one at a time.
"""

import asyncio
from typing import Any

from litestar import Request, Router, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.response import Template

from app.domain.errors import Refused
from app.engine.repairs import KINDS
from app.reads.environments import list_environments
from app.reads.operations import GATES, MOST, House, check_invariants, invariants, load_house
from app.store.accounts import Environment, find_environment
from app.store.db import tenant
from app.web.guards import NotFound, Principal, find_principal, require_person
from app.web.hx import PRIVATE, Hx
from app.web.shell import frame
from app.web.site import Site

Who = NamedDependency[Principal]
Here = NamedDependency[Site]

#: What a gate of the queue means to people.
_GATES = {
    "ready": "Due, free to go",
    "leased": "With a worker",
    "calls": "Behind a limit of calls",
    "runs": "Behind a limit of runs",
    "throttle": "Behind a throttle",
    "limit": "Behind a limit that changed",
    "paused": "Of paused functions",
    "later": "Due later",
}
#: Seconds of lag from which the page warns: ten times what is usual.
_LATE_S = 10.0
#: Partitions for fewer days than this need somebody to look.
_DAYS_LOW = 2
_one_check = asyncio.Semaphore(1)


async def require_operator(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Guard: the person runs this installation. Others learn nothing."""
    principal = await find_principal(connection)
    if principal is None or not principal.is_operator:
        raise NotFound


@get("/operator", name="operator", include_in_schema=False)
async def operator_page(request: Request[Any, Any, Any], principal: Who, site: Here) -> Template:
    """The page; for htmx with target `#house` only what changes."""
    async with site.operations.acquire(timeout=2) as connection:
        house = await load_house(connection)
    shown = _shown(house)
    if Hx.of(request.headers).wants("house"):
        return Template("fragments/operator/house.html", context=shown, headers=PRIVATE)
    context = frame(principal, await _around(principal, site), "operator") | shown | {"checked": None}
    return Template("pages/operator/house.html", context=context, headers=PRIVATE)


@post("/operator/check", status_code=200, include_in_schema=False)
async def check(principal: Who, site: Here) -> Template:
    """Ask every invariant of the live database and show what is wrong; twenty seconds at most."""
    if _one_check.locked():
        raise Refused("busy", "The invariants are being checked already. Please wait for that to end.")
    async with _one_check:
        checked = await check_invariants(site.operations)
    async with site.operations.acquire(timeout=2) as connection:
        house = await load_house(connection)
    context = frame(principal, await _around(principal, site), "operator") | _shown(house) | {"checked": checked}
    return Template("pages/operator/house.html", context=context, headers=PRIVATE)


async def _around(principal: Principal, site: Site) -> Environment:
    """The environment for the side bar: the first in use."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as connection:
        listing = await list_environments(connection, principal.account_id)
        first = next(iter((*listing.live(), *listing.rows)), None)
        found = None if first is None else await find_environment(connection, principal.account_id, first.slug)
    if found is None:
        raise NotFound
    return found


def _shown(house: House) -> dict[str, Any]:
    lags = [("Oldest due work", house.oldest_due_s), ("Oldest event in the inbox", house.oldest_event_s)]
    return {
        "house": house,
        "now": house.now,
        "most": MOST,
        "gates": [(_GATES[gate], house.queue.get(gate, 0)) for gate in GATES],
        "lags": [(words, seconds * 1000, seconds > _LATE_S) for words, seconds in lags],
        "repairs": [(KINDS.get(repair.kind, repair.kind), repair) for repair in house.repairs],
        "days_low": _DAYS_LOW,
        "has_invariants": bool(invariants()),
        "is_well": not house.stuck
        and all(seconds <= _LATE_S for _, seconds in lags)
        and any(worker.state == "living" for worker in house.workers)
        and all(part.ahead >= _DAYS_LOW for part in house.partitions),
    }


ROUTER = Router(path="/", route_handlers=[operator_page, check], guards=[require_person, require_operator])
