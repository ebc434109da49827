"""Tells Stripe what was used: slices of executions, each with an identifier of its own, so that twice is once.

    cut      days' `reported` moves, and a slice is written            one transaction: each execution is in one slice
    claim    `tried_at` is set, the slice comes back if we die
    send     identifier = the slice's id; Stripe forgets identifiers after a day
    mark     sent

A slice that may have been sent more than 23 hours ago, and of which nobody knows, is not sent again: it becomes `unsure`,
in the customer's favour, and is logged for the operator. Nothing here is on the way of a run.
"""

import logging
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from app.domain.errors import Outside
from app.domain.subscription import StripeRefuses
from app.store import billing
from app.store.db import Pool

log = logging.getLogger(__name__)

#: Until a slice is tried again that was not marked.
_RETRY = timedelta(minutes=2)
#: Stripe knows an identifier for at least 24 hours.
KNOWN_FOR = timedelta(hours=23)
_KEPT = timedelta(days=90)


class Reports(Protocol):
    """The part of `adapters.stripe.Stripe` that is used here."""

    async def report(self, identifier: UUID, customer_id: str, quantity: int, at: datetime) -> None:
        """Report executions; the same identifier again counts nothing."""


async def cut(pool: Pool, plans: list[str]) -> int:
    """Cut what is used and not reported into slices; returns how many."""
    async with pool.acquire(timeout=10) as conn, conn.transaction():
        made = await billing.cut_slices(conn, plans)
        await billing.drop_slices(conn, older=_KEPT)
    return made


async def send(pool: Pool, stripe: Reports, most: int = 200) -> int:
    """Send slices that are due; returns how many Stripe has now. Raises Outside when Stripe does not answer."""
    sent = 0
    for _ in range(most):
        async with pool.acquire(timeout=10) as conn:
            piece = await billing.claim_slice(conn, retry=_RETRY)
            if piece is None:
                break
            now: datetime = await conn.fetchval("select clock()")
            if piece.tried_at is not None and now - piece.tried_at > KNOWN_FOR:
                await billing.mark_slice(conn, piece.id, "unsure")
                log.error("usage may or may not be reported, and is left", extra=_about(piece))
                continue
        try:
            # Counted when it was cut: in the customer's present month, and never in the future of Stripe's clock.
            await stripe.report(piece.id, piece.customer_id, piece.quantity, min(piece.made_at, now))
        except StripeRefuses as refused:
            async with pool.acquire(timeout=10) as conn:
                await billing.mark_slice(conn, piece.id, "refused", refused.reason)
            log.exception("Stripe refused a report of usage", extra=_about(piece) | {"reason": refused.reason})
            continue
        except Outside as error:
            log.warning("usage could not be reported", extra=_about(piece) | {"code": error.code})
            raise
        async with pool.acquire(timeout=10) as conn:
            await billing.mark_slice(conn, piece.id, "sent")
        sent += 1
    return sent


def _about(piece: billing.Slice) -> dict[str, object]:
    return {"slice": str(piece.id), "quantity": piece.quantity}
