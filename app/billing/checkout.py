"""What an owner does about their plan: subscribe, change, cancel, go on, pay, set a cap.

A deed is noted in the audit log before Stripe is asked, because Stripe may do it and the answer get lost; what came of it
is read back, and noted when it changed something. No connection is held while Stripe is asked.
"""

from dataclasses import dataclass

from app.billing import plans
from app.billing.read_back import read_back
from app.billing.standing import House, settle
from app.domain.errors import Refused
from app.domain.ids import AccountId
from app.domain.subscription import Payments
from app.store import audit, billing
from app.store.audit import Actor
from app.store.billing import Account
from app.store.db import Connection, Pool


class PlanUnknown(Refused):
    """Choose one of the plans on the page."""

    def __init__(self) -> None:
        super().__init__("plan_unknown")


class PlanAlready(Refused):
    """Your organization has this plan already."""

    def __init__(self) -> None:
        super().__init__("plan_already")


class NothingToChange(Refused):
    """There is no subscription to change. Choose a plan first."""

    def __init__(self) -> None:
        super().__init__("no_subscription")


class CapInvalid(Refused):
    """Write an amount such as 50 or 49.50, or leave the field empty for no cap."""

    def __init__(self) -> None:
        super().__init__("spend_cap_invalid")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the deeds need: `pool` sees every tenant, so every statement names the account."""

    pool: Pool
    stripe: Payments
    house: House


async def choose(desk: Desk, account_id: AccountId, actor: Actor, plan: str, *, email: str) -> str | None:
    """Move an account to a plan: the address of the page to pay on, or None when it is done.

    Raises `PlanUnknown`, `PlanAlready`, Outside.
    """
    if plan not in desk.stripe.sold:
        raise PlanUnknown
    account = await _note(desk, account_id, actor, "plan.asked", subject=plan)
    if account.customer_id is not None:
        # Paid in another tab a moment ago, perhaps: nobody is to pay for two subscriptions.
        await _read(desk, account_id)
        async with desk.pool.acquire(timeout=2) as conn:
            account = await billing.find_account(conn, account_id) or account
    if account.status in plans.LIVING and account.subscription_id is not None:
        if account.plan == plan:
            raise PlanAlready
        upgrade = plans.is_upgrade(account.plan or plans.FREE, plan)
        await desk.stripe.change_plan(account.subscription_id, plan, is_upgrade=upgrade)
        await _read(desk, account_id)
        return None
    customer = account.customer_id or await _customer(desk, account, email)
    url = desk.house.base_url
    return await desk.stripe.open_checkout(
        customer, plan, done_url=f"{url}/billing?done=subscribed", back_url=f"{url}/billing/plans"
    )


async def set_cancelling(desk: Desk, account_id: AccountId, actor: Actor, *, is_cancelling: bool) -> None:
    """End the subscription with its period, or take that back. Raises `NothingToChange`, Outside."""
    account = await _note(desk, account_id, actor, "plan.cancelled" if is_cancelling else "plan.resumed")
    if account.subscription_id is None or account.status not in plans.LIVING:
        raise NothingToChange
    await desk.stripe.set_cancelling(account.subscription_id, is_cancelling=is_cancelling)
    await _read(desk, account_id)


async def open_portal(desk: Desk, account_id: AccountId, actor: Actor) -> str:
    """The address where cards, addresses and bills are. Raises `NothingToChange`, Outside."""
    account = await _note(desk, account_id, actor, "billing.portal_opened")
    if account.customer_id is None:
        raise NothingToChange
    return await desk.stripe.open_portal(account.customer_id, back_url=f"{desk.house.base_url}/billing?done=portal")


async def refresh(desk: Desk, account_id: AccountId) -> None:
    """Read an account back now; nothing happens where there is no customer. Raises Outside."""
    await read_back(desk.pool, desk.stripe, desk.house, account_id)


async def set_cap(
    conn: Connection, house: House, account_id: AccountId, actor: Actor, text: str, currency: str
) -> int | None:
    """Set the spend cap from what somebody typed, or drop it. The caller commits. Raises `CapInvalid`."""
    cap = plans.minor_units(text, currency) if text else None
    if text and not cap:
        raise CapInvalid
    await billing.set_cap(conn, account_id, cap)
    await audit.insert_entry(
        conn, account_id, actor, "spend_cap.set", detail={"minor_units": cap, "currency": currency}
    )
    await settle(conn, house, account_id, actor)
    return cap


async def _note(desk: Desk, account_id: AccountId, actor: Actor, action: str, subject: str = "") -> Account:
    async with desk.pool.acquire(timeout=2) as conn, conn.transaction():
        account = await billing.find_account(conn, account_id)
        assert account is not None, "somebody is signed in to it"
        await audit.insert_entry(conn, account_id, actor, action, subject=subject, detail={"has": account.has_plan})
    return account


async def _customer(desk: Desk, account: Account, email: str) -> str:
    made = await desk.stripe.make_customer(account.account_id, account.name, email)
    async with desk.pool.acquire(timeout=2) as conn, conn.transaction():
        return await billing.set_customer(conn, account.account_id, made)


async def _read(desk: Desk, account_id: AccountId) -> None:
    async with desk.pool.acquire(timeout=2) as conn:
        await billing.ask(conn, account_id=account_id)
    await read_back(desk.pool, desk.stripe, desk.house, account_id)
