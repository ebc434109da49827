"""`POST /v1/signals`: ends the wait for a signal (protocol 16.3, 23.2)."""

from typing import Any

from litestar import Request, Response, Router, post
from litestar.di import NamedDependency

from app.domain import canonical
from app.domain.errors import Refused
from app.domain.ids import to_ulid
from app.domain.limits import MAX_OUTPUT_BYTES
from app.domain.scope import Scope
from app.engine.signals import deliver
from app.web.api.bearer import COUNTED
from app.web.api.ids import NotFound
from app.web.api.runs import enveloped
from app.web.api.tell import tell
from app.web.site import Site


@post("/v1/signals", status_code=200)
async def send_signal(
    request: Request[Any, Any, Any], tenant_scope: NamedDependency[Scope], site: NamedDependency[Site]
) -> Response[bytes]:
    """Give the signal to the one run that waits for it; 404 when none does: signals are not kept."""
    body = canonical.decode(await request.body())
    signal = body.get("signal") if isinstance(body, dict) else None
    if not isinstance(signal, str) or not signal or "\x00" in signal:
        raise Refused("field_invalid", "A signal has a name: send signal and data.", {"field": "signal"})
    payload = canonical.encode(body.get("data"))
    if len(payload) > MAX_OUTPUT_BYTES:
        raise Refused("body_too_large", f"A signal's data may have {MAX_OUTPUT_BYTES} bytes.")
    delivered = await deliver(site.ingest, site.clock, tenant_scope, signal, payload, canonical.text(signal))
    if delivered is None:
        raise NotFound("no run waits for this signal")
    tell(site, delivered.entry)
    return enveloped({"run_id": to_ulid(delivered.run_id)})


ROUTER = Router(path="/", dependencies=COUNTED, route_handlers=[send_signal])
