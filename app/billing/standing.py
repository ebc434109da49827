"""What follows for an account from what it pays and what it uses: its plan, whether new runs start, who is told what.

`settle` is the only place that decides this. It runs in the transaction of whatever changed (a read-back, a cap, a plan
given by hand), and for everybody who used something every minute or so. Doing it twice changes nothing: mails are noted
once per period in the transaction that puts them out.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from app.adapters.mail import Letter
from app.billing import letters, plans
from app.billing.plans import Period, Price, Stage
from app.billing.usage import Used, used_between
from app.domain.ids import AccountId
from app.domain.limits import PlanLimits, plan_of
from app.store import audit, billing
from app.store.audit import Actor
from app.store.billing import Account
from app.store.db import CONNECTION_LOST, Connection, Pool

log = logging.getLogger(__name__)

#: Accounts asked for at once by `settle_all`.
_PAGE = 200
_LOCK = 0x5745_4C4E
#: Puts a letter into the outbox: (connection, letter, kind).
PutLetter = Callable[[Connection, Letter, str], Awaitable[None]]
KEEPER = Actor("billing")


@dataclass(frozen=True, slots=True)
class House:
    """What billing needs of the installation: where it is, how it writes, and whether plans cost anything here."""

    base_url: str
    put_letter: PutLetter
    is_hosted: bool = True


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an account stands in its period. `cost` is what executions beyond the plan cost, None where nothing does."""

    account: Account
    limits: PlanLimits
    period: Period
    used: Used
    price: Price | None
    cost: int | None

    @property
    def allowance_share(self) -> int:
        """Which mark of what the month includes is reached: 0, 80 or 100. Events count where they can stop runs."""
        executions = plans.reached(self.used.executions, self.limits.executions)
        return (
            max(executions, plans.reached(self.used.events, self.limits.events))
            if self.limits.stops_at_allowance
            else executions
        )

    @property
    def cap_share(self) -> int:
        """Which mark of the spend cap is reached: 0, 80 or 100."""
        return plans.reached(self.cost or 0, self.account.spend_cap)


async def standing_of(conn: Connection, account: Account, now: datetime) -> Standing:
    """Add up an account's period; pages show it, `settle` acts on it."""
    limits = plan_of(account.has_plan)
    began = account.period_start if account.status in plans.LIVING else None
    period = plans.period_of(now.date(), began.date() if began else None)
    since = period.first
    if began is None and account.period_end is not None and since <= account.period_end.date() <= now.date():
        # A subscription ended this month: what was paid for does not count against the free allowance.
        since = account.period_end.date() + timedelta(days=1)
    used = await used_between(conn, account.account_id, since, period.until)
    found = (await billing.list_prices(conn)).get(account.has_plan)
    price = Price(found.plan, found.currency, found.amount, found.each, found.included) if found else None
    is_metered = account.status in plans.LIVING and account.plan_by_hand is None
    cost = plans.beyond(used.executions, limits, price) if is_metered else None
    return Standing(account, limits, period, used, price, cost)


async def settle(conn: Connection, house: House, account_id: AccountId, actor: Actor = KEEPER) -> None:
    """Bring plan, stop and notice of an account up to date, and tell its owners once. The caller commits.

    Where plans cost nothing (one's own machine) nothing is decided.
    """
    account = await billing.find_account(conn, account_id, locks=True)
    if account is None or not house.is_hosted:
        return
    now: datetime = await conn.fetchval("select clock()")
    stage = plans.stage_at(account.failed_since, now)
    plan = plans.plan_given(account.status, account.plan, account.plan_by_hand, stage)
    if plan != account.has_plan:
        await audit.insert_entry(
            conn, account_id, actor, "plan.changed", subject=plan, detail={"before": account.has_plan}
        )
        account = _with(account, has_plan=plan)
    here = await standing_of(conn, account, now)
    stops_for = plans.stop_reason(here.limits, here.used.executions, here.used.events, here.cost, account.spend_cap)
    if stops_for != account.stops_for:
        action = "runs.stopped" if stops_for else "runs.started"
        await audit.insert_entry(conn, account_id, actor, action, subject=stops_for or str(account.stops_for))
    before = await conn.fetchrow("select plan, stops_for, notice from accounts where id = $1", account_id)
    notice = _notice(here, stops_for, stage)
    if (before["plan"], before["stops_for"], before["notice"]) != (plan, stops_for, notice):
        is_loud = (before["plan"], before["stops_for"]) != (plan, stops_for)
        await billing.set_standing(conn, account_id, plan=plan, stops_for=stops_for, notice=notice, is_loud=is_loud)
    await _tell(conn, house, here, stage)


async def settle_all(pool: Pool, house: House) -> int:
    """Settle everybody whose standing may have changed; returns how many. One process at a time does this."""
    if not house.is_hosted:
        return 0
    count, after = 0, UUID(int=0)
    while True:
        async with pool.acquire(timeout=10) as conn:
            page = await billing.accounts_to_settle(conn, after, _PAGE)
        for account_id in page:
            try:
                async with pool.acquire(timeout=10) as conn, conn.transaction():
                    await settle(conn, house, account_id)
            except CONNECTION_LOST:
                raise
            except Exception:
                # One account's trouble must not keep the others from being settled.
                log.exception("could not settle an account", extra={"account_id": str(account_id)})
            count += 1
        if len(page) < _PAGE:
            return count
        after = page[-1]


def _notice(here: Standing, stops_for: str | None, stage: Stage) -> str:
    """What every page says; the worst first."""
    if stops_for is not None:
        return stops_for
    if stage is not Stage.FINE:
        return stage.value
    if here.cap_share == 80:
        return "spend_cap_80"
    if here.limits.stops_at_allowance and here.allowance_share == 80:
        return "allowance_80"
    return ""


async def _tell(conn: Connection, house: House, here: Standing, stage: Stage) -> None:
    account, first = here.account, here.period.first
    wanted: list[tuple[str, Callable[[str], Letter]]] = []
    if stage.value != account.stage:
        await billing.set_stage(conn, account.account_id, stage.value)
        if account.stage == Stage.DOWNGRADED.value:
            # Meanwhile it had the free plan, which costs nothing.
            await billing.forgive(conn, account.account_id)
        if stage is not Stage.FINE and account.failed_since is not None:
            first_day = account.failed_since.date()
            if await billing.note_once(conn, account.account_id, first_day, f"stage {stage.value}"):
                wanted.append(("dunning", lambda to: letters.dunning(to, house.base_url, stage)))
    stops = here.limits.stops_at_allowance
    marks: tuple[tuple[str, int, object, Callable[[str, int], Letter]], ...] = (
        (
            "allowance",
            here.allowance_share,
            account.has_plan,
            lambda to, mark: letters.allowance(to, house.base_url, mark, stops=stops),
        ),
        ("spend_cap", here.cap_share, account.spend_cap, lambda to, mark: letters.spend_cap(to, house.base_url, mark)),
    )
    for kind, mark, of, letter in marks:
        fresh = [
            one
            for one in (100, 80)
            if mark >= one and await billing.note_once(conn, account.account_id, first, f"{kind} {one} of {of}")
        ]
        # Whoever passes both marks at once is told of the second only.
        if mark in fresh:
            wanted.append((kind, partial(_marked, letter, mark)))
    if not wanted:
        return
    for address in await billing.owners_of(conn, account.account_id):
        for kind, write in wanted:
            await house.put_letter(conn, write(address), f"billing_{kind}")


def _marked(letter: Callable[[str, int], Letter], mark: int, to: str) -> Letter:
    return letter(to, mark)


def _with(account: Account, **changed: Any) -> Account:
    return Account(**{name: getattr(account, name) for name in Account.__slots__} | changed)


#: How long the loop of workers waits between two rounds of `settle_all`.
EVERY = timedelta(minutes=1)
