"""Which plan an account has, for what must be known at every request. Remembered as keys are (five seconds)."""

import time
from collections.abc import Callable

from app.accounts.resolve import Remembered
from app.domain.ids import AccountId
from app.domain.limits import PlanLimits, plan_of
from app.store import accounts
from app.store.db import Pool


class Plans:
    """Finds plans. `pool` is the engine's, because the question comes before any tenant is set."""

    def __init__(self, pool: Pool, *, now: Callable[[], float] = time.monotonic) -> None:
        """Remember where to ask; nothing is read before the first account."""
        self._pool = pool
        self._seen: Remembered[AccountId, str] = Remembered(self._ask, now=now)

    async def of(self, account_id: AccountId) -> PlanLimits:
        """The limits of an account's plan; those of one's own machine when nobody knows it."""
        return plan_of(await self._seen.get(account_id))

    def forget(self, account_id: AccountId) -> None:
        """Ask again at the next opportunity: the plan was just changed by this process."""
        self._seen.forget(account_id)

    async def _ask(self, account_id: AccountId) -> str | None:
        async with self._pool.acquire(timeout=2) as conn:
            return await accounts.find_plan(conn, account_id)
