"""The state of a subscription comes from Stripe, by asking; what a webhook or a browser says only makes us ask.

somebody wants it     `asked` + 1, due now        a webhook, a return from Checkout, a change made here
one worker begins     a ticket                    and the row comes back later if the worker dies
Stripe is asked       no connection is held
written               unless a later ticket was   so an old answer never replaces a newer one
due again             at once if somebody asked meanwhile, else in a day: lost webhooks cost a day at most
"""

import logging
from datetime import timedelta

from app.billing import plans
from app.billing.standing import House, settle
from app.domain.errors import Outside
from app.domain.ids import AccountId
from app.domain.subscription import Payments
from app.store import billing
from app.store.db import Pool

log = logging.getLogger(__name__)

#: Without news, an account is read back this often.
DAILY = timedelta(hours=24)
#: Until an account is tried again after a failure; n times as long after the nth.
_RETRY = timedelta(minutes=1)
#: How long events of Stripe's are remembered: it sends them again for three days.
_REMEMBERED = timedelta(days=60)


async def read_back(pool: Pool, stripe: Payments, house: House, account_id: AccountId | None = None) -> bool:
    """Read one account back: the next that is due, or the given one, due or not; false when there is none.

    Raises Outside when Stripe does not answer; the account stays due.
    """
    async with pool.acquire(timeout=10) as conn:
        claim = await billing.claim(conn, retry=_RETRY, account_id=account_id)
    if claim is None:
        return False
    state = await stripe.state_of(claim.customer_id)
    subscription = state.subscription
    if subscription is not None and subscription.plan is None:
        log.error("a subscription has a price that no plan has", extra={"subscription": subscription.id})
    owes = subscription is not None and subscription.status in plans.OWING
    async with pool.acquire(timeout=10) as conn, conn.transaction():
        if await billing.write_state(conn, claim, subscription, state.invoices, owes=owes, again=DAILY):
            await settle(conn, house, claim.account_id)
    return True


async def read_all_due(pool: Pool, stripe: Payments, house: House, most: int = 100) -> int:
    """Read back what is due; returns how many accounts. One that cannot be read does not stop the others."""
    done = 0
    for _ in range(most):
        try:
            if not await read_back(pool, stripe, house):
                break
        except Outside as error:
            log.warning("an account could not be read back from Stripe", extra={"code": error.code})
            if error.retryable:
                break
            continue
        done += 1
    async with pool.acquire(timeout=10) as conn:
        await billing.drop_events(conn, older=_REMEMBERED)
    return done


async def read_prices(pool: Pool, stripe: Payments) -> None:
    """Read what the plans cost. Raises Outside when Stripe does not answer; the figures of the last time stay."""
    prices = await stripe.read_prices()
    async with pool.acquire(timeout=10) as conn, conn.transaction():
        await billing.put_prices(conn, prices)
