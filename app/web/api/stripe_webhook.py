"""`POST /webhooks/stripe`: Stripe says that something happened. Signed over the raw body; answered before anything is done."""

import asyncio
from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency

from app.adapters.arq import JobName, enqueue
from app.billing import webhook
from app.web.guards import NotFound
from app.web.site import Site

#: Octets of an event; those of subscriptions with many items have a few ten thousand.
LARGEST_EVENT = 1024 * 1024
_SENT: set["asyncio.Task[bool]"] = set()


@post("/webhooks/stripe", status_code=200, request_max_body_size=LARGEST_EVENT, include_in_schema=False)
async def receive(request: Request[Any, Any, Any], site: NamedDependency[Site]) -> Response[dict[str, bool]]:
    """Remember the event and have its customer read back; 400 without a fresh signature, 404 where nothing is sold."""
    if site.stripe is None:
        raise NotFound
    event = site.stripe.read_event(await request.body(), request.headers.get("stripe-signature"))
    if await webhook.heed(site.ingest, event):
        nudge_billing(site)
    return Response({"received": True})


def nudge_billing(site: Site) -> None:
    """Ask a worker to read back now, and do not wait: Redis may be away and slow to say so."""
    task = asyncio.create_task(enqueue(site.jobs, JobName.USAGE))
    _SENT.add(task)
    task.add_done_callback(_SENT.discard)
