"""Stripe says that something happened. We remember that it said so, and ask what is true; what it says is not used.

A second delivery, an order of deliveries other than that of the deeds, and a delivery we never got all come to the same.
"""

from app.domain.subscription import Event
from app.store import billing
from app.store.db import Pool

#: Kinds of events after which a customer is read back; all others change nothing here.
HEEDED = frozenset(
    {
        "checkout.session.completed",
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.resumed",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_succeeded",
        "invoice.updated",
        "invoice.voided",
        "invoice.marked_uncollectible",
    }
)


async def heed(pool: Pool, event: Event) -> bool:
    """Remember an event and have its customer read back; false when nothing follows from it.

    Nothing follows from an event that was seen before, of a kind not heeded, or about a customer nobody here is.
    """
    if event.type not in HEEDED or event.customer_id is None:
        return False
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        if not await billing.put_event(conn, event.id, event.type):
            return False
        return await billing.ask(conn, customer_id=event.customer_id)
