"""A plan given by hand, by whoever runs the installation: it goes before anything that is paid for."""

from app.billing.standing import House, settle
from app.domain.errors import Refused
from app.domain.limits import PLANS
from app.store import accounts, audit, billing
from app.store.audit import Actor
from app.store.db import Connection


class OrganizationUnknown(Refused):
    """There is no organization of this name in addresses (slug)."""

    def __init__(self) -> None:
        super().__init__("not_found")


class PlanInvalid(Refused):
    """There is no such plan."""

    def __init__(self) -> None:
        super().__init__("plan_unknown", f"There is no such plan. Choose one of: {', '.join(PLANS)}.")


async def give_plan(conn: Connection, house: House, slug: str, plan: str | None, actor: Actor) -> str:
    """Give an organization a plan, or (None) take back what was given; gives the plan it has now. The caller commits.

    Every process goes by the new limits within seconds. Raises `OrganizationUnknown`, `PlanInvalid`.
    """
    if plan is not None and plan not in PLANS:
        raise PlanInvalid
    account = await accounts.find_account_by_slug(conn, slug)
    if account is None:
        raise OrganizationUnknown
    await billing.set_plan_by_hand(conn, account.id, plan)
    # Nobody is charged for what was used, or will be, under a plan that was given.
    await billing.forgive(conn, account.id)
    await audit.insert_entry(conn, account.id, actor, "plan.given", subject=plan or "")
    if house.is_hosted:
        await settle(conn, house, account.id, actor)
    else:
        await billing.set_standing(
            conn, account.id, plan=plan or "self_hosted", stops_for=None, notice="", is_loud=True
        )
    return await accounts.find_plan(conn, account.id) or ""
