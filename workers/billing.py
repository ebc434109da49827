"""Billing's caretaker in every worker: counts, settles, reads back, reports. Away from runs, and never in their way.

    each round   count events      usage that pages and plans go by
                 settle accounts   plans, stops, banners, mails        (hosted)
                 read back         what webhooks and owners asked for  (with Stripe)
                 cut and send      reports of usage                    (with Stripe)

Each part may fail alone: the others go on, and the next round tries it again. Any number of workers may do all of it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from app.billing import meter, read_back
from app.billing.standing import House, settle_all
from app.billing.usage import count_events
from app.domain.errors import Outside
from app.domain.subscription import Payments
from app.store.db import CONNECTION_LOST, Pool

log = logging.getLogger(__name__)

#: Seconds between two rounds that nobody asked for, and between two readings of prices.
_ROUND_S, _PRICES_S = 60.0, 6 * 3600.0


class Billing:
    """The caretaker of one worker. `stripe` is None where nothing is sold."""

    def __init__(self, pool: Pool, house: House, stripe: Payments | None) -> None:
        """Remember what is needed; nothing is done before `run`."""
        self._pool = pool
        self._house = house
        self._stripe = stripe
        self._prices_at = -_PRICES_S
        self._asked = asyncio.Event()

    def wake(self) -> None:
        """Somebody asked for something: do not wait for the next round."""
        self._asked.set()

    async def run(self) -> None:
        """Go round until cancelled."""
        try:
            while True:
                await self.round()
                try:
                    async with asyncio.timeout(_ROUND_S):
                        await self._asked.wait()
                except TimeoutError:
                    pass
                self._asked.clear()
        finally:
            if self._stripe is not None:
                await self._stripe.close()

    async def round(self) -> None:
        """Do everything once."""
        await self._part("counting events", lambda: count_events(self._pool))
        stripe, house, pool = self._stripe, self._house, self._pool
        if stripe is not None:
            if time.monotonic() - self._prices_at >= _PRICES_S and await self._part(
                "reading prices", lambda: read_back.read_prices(pool, stripe)
            ):
                self._prices_at = time.monotonic()
            await self._part("reading back", lambda: read_back.read_all_due(pool, stripe, house))
        await self._part("settling", lambda: settle_all(pool, house))
        if stripe is not None:
            await self._part("cutting reports", lambda: meter.cut(pool, list(stripe.sold)))
            await self._part("sending reports", lambda: meter.send(pool, stripe))

    async def _part(self, name: str, do: Callable[[], Awaitable[object]]) -> bool:
        try:
            await do()
        except (Outside, *CONNECTION_LOST) as error:
            log.warning("billing waits", extra={"part": name, "error": type(error).__name__})
        except Exception:
            log.exception("a part of billing failed", extra={"part": name})
        else:
            return True
        return False
