"""Going for good: a person deletes their account, an owner their organization.

A person goes at once, unless an organization would be left without an owner: hand it over, or delete it first.
An organization stands still at once (its environments are archived, so keys are refused and nothing new starts) and is
erased `GRACE` later, slice by slice, by `engine/keepers/erasure.py`; until then any owner can keep it.

What stays of both is the audit log, where addresses of actors stand as they were.
"""

from datetime import timedelta

from app.accounts import letters, outbox
from app.accounts.recovery import note_everywhere
from app.adapters.sealing import Sealer
from app.domain.errors import Refused
from app.domain.ids import AccountId
from app.store import accounts, audit, endings, members
from app.store.audit import Actor
from app.store.db import Connection

GRACE = timedelta(days=3)
"""How long an organization whose end was asked for can be kept."""


class OwnerNeeded(Refused):
    """You are the only owner of an organization. Make somebody else an owner, or delete it first."""

    def __init__(self, names: list[str]) -> None:
        listed = ", ".join(names)
        super().__init__(
            "owner_needed",
            f"You are the only owner of {listed}. Make somebody else an owner there, or delete it first.",
            {"organizations": names},
        )


class NameMismatch(Refused):
    """Type the name of the organization as it stands above, letter by letter."""

    def __init__(self) -> None:
        super().__init__("name_mismatch")


class PlanActive(Refused):
    """The organization has a paid plan. Cancel it under Billing first, so that nobody goes on paying."""

    def __init__(self) -> None:
        super().__init__("plan_active")


class TooLate(Refused):
    """The organization is being erased; it cannot be kept any more."""

    def __init__(self) -> None:
        super().__init__("erasing")


async def delete_person(conn: Connection, sealer: Sealer, actor: Actor, *, base_url: str, sends_mail: bool) -> None:
    """Delete the account of the actor. The caller has seen that it is them, and commits. Needs the engine role.

    Raises `OwnerNeeded`.
    """
    assert actor.user_id is not None
    if names := await endings.list_only_owned(conn, actor.user_id):
        raise OwnerNeeded(names)
    person = await accounts.find_person(conn, actor.user_id)
    await note_everywhere(conn, actor.user_id, actor, "person.deleted")
    await endings.delete_person(conn, actor.user_id, person.email)
    # After that, so that it is the one mail to them there is; it goes with the other old mails.
    await outbox.put(
        conn, sealer, letters.account_deleted(person.email, base_url), "account_deleted", is_wanted=sends_mail
    )


async def delete_account(
    conn: Connection,
    sealer: Sealer,
    account_id: AccountId,
    actor: Actor,
    *,
    name: str,
    typed: str,
    base_url: str,
    sends_mail: bool,
) -> None:
    """Ask for the end of an organization; asked again, it changes nothing. The caller commits. Needs the engine role.

    `name` is what it is called, `typed` what the owner wrote to confirm it. All owners are told by mail.
    Raises `NameMismatch`, `PlanActive`.
    """
    if " ".join(typed.split()) != name:
        raise NameMismatch
    if await endings.has_subscription(conn, account_id):
        raise PlanActive
    if not await endings.begin_ending(conn, account_id, grace=GRACE):
        return
    days = GRACE.days
    await audit.insert_entry(conn, account_id, actor, "account.ending", subject=name, detail={"days": days})
    for member in await members.list_members(conn, account_id):
        if member.role == "owner":
            letter = letters.organization_ending(
                member.email, base_url, organization=name, actor=actor.label, days=days
            )
            await outbox.put(conn, sealer, letter, "organization_ending", is_wanted=sends_mail)


async def keep_account(conn: Connection, account_id: AccountId, actor: Actor) -> None:
    """Keep an organization whose end was asked for. The caller commits. Needs the engine role. Raises `TooLate`."""
    if await endings.take_back_ending(conn, account_id):
        await audit.insert_entry(conn, account_id, actor, "account.kept")
    elif await endings.find_ending(conn, account_id) is not None:
        raise TooLate
