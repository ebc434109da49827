"""`/metrics` for Prometheus: one address for the whole house, whichever web process answers.

Every process publishes what it measures (engine/vitals.py); this adds what the database knows of all of them. Not for the
public: `STEPWELL_METRICS` says who may read it, and for everybody else there is nothing here.
"""

import hmac
from ipaddress import ip_address
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from app import telemetry
from app.domain.errors import Refused
from app.reads.operations import load_house
from app.web.guards import NotFound
from app.web.site import Site

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@get("/metrics", include_in_schema=False)
async def metrics(request: Request[Any, Any, Any], site: NamedDependency[Site]) -> Response[str]:
    """What all processes measured, in the text form of Prometheus."""
    _check(request, site.metrics)
    async with site.operations.acquire(timeout=2) as connection:
        house = await load_house(connection)
    own: list[tuple[dict[str, str], Any]] = [({"process": p.name, "kind": p.kind}, p.measured) for p in house.processes]
    text = telemetry.render([({}, house.measured()), *own])
    return Response(text, headers={"Content-Type": _TYPE, "Cache-Control": "no-store"})


def _check(request: Request[Any, Any, Any], allowed: str) -> None:
    """Let in who may read; where metrics are off, or for this machine only, there is nothing to see for others."""
    if allowed == "off" or (allowed == "loopback" and not _is_loopback(request)):
        raise NotFound
    if allowed == "loopback":
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), allowed.encode()):
        raise Refused("unauthenticated", "Send the token of STEPWELL_METRICS as a bearer token.")


def _is_loopback(request: Request[Any, Any, Any]) -> bool:
    """Whether the request comes from this machine, and from no proxy on it, which would speak for anybody."""
    if request.headers.get("x-forwarded-for") or request.headers.get("forwarded"):
        return False
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
