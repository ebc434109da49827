"""The end of a person, and of an account: asked for, taken back, and what of them goes. Needs the engine role."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.ids import AccountId, UserId
from app.store.db import Connection

_NOBODY = UUID(int=0)
#: Who stands in lists of deeds instead of a person who is gone.
SOMEBODY_GONE = "somebody who left"


@dataclass(frozen=True, slots=True)
class Ending:
    """How far the end of an account is. `erasing_since` is none while it can be kept."""

    erases_at: datetime
    erasing_since: datetime | None
    erased_rows: int


async def find_ending(conn: Connection, account_id: AccountId) -> Ending | None:
    """The end of an account; none while nobody has asked for it."""
    row = await conn.fetchrow(
        "select erases_at, erasing_since, erased_rows from accounts where id = $1 and erases_at is not null", account_id
    )
    return row and Ending(*row)


async def has_subscription(conn: Connection, account_id: AccountId) -> bool:
    """Whether somebody goes on paying for the account: a subscription that is not over and has no end."""
    return bool(
        await conn.fetchval(
            "select exists (select from billing_accounts where account_id = $1 and cancels_at is null and"
            " status not in ('none', 'canceled', 'incomplete_expired'))",
            account_id,
        )
    )


async def begin_ending(conn: Connection, account_id: AccountId, *, grace: timedelta) -> bool:
    """Set when an account is erased, and archive its environments; false when that is so already. Locks the account."""
    if not await conn.fetchval(
        "update accounts set erases_at = clock() + $2::interval where id = $1 and erases_at is null returning true",
        account_id,
        grace,
    ):
        return False
    # A new version of the catalogue makes every process look again, so the keys stop within seconds.
    await conn.execute(
        "update environments set archived_at = clock(), archived_with_account = true,"
        " catalogue_version = catalogue_version + 1 where account_id = $1 and archived_at is null",
        account_id,
    )
    return True


async def take_back_ending(conn: Connection, account_id: AccountId) -> bool:
    """Keep the account, with the environments that were archived with it; false when it is too late for that."""
    if not await conn.fetchval(
        "update accounts set erases_at = null where id = $1 and erases_at is not null and erasing_since is null returning true",
        account_id,
    ):
        return False
    await conn.execute(
        "update environments set archived_at = null, archived_with_account = false,"
        " catalogue_version = catalogue_version + 1 where account_id = $1 and archived_with_account",
        account_id,
    )
    return True


async def list_only_owned(conn: Connection, user_id: UserId) -> list[str]:
    """Names of the accounts that would have no owner without this person, but those that end. Locks their memberships."""
    mine = [
        row["account_id"]
        for row in await conn.fetch(
            "select m.account_id from memberships m join accounts a on a.id = m.account_id"
            " where m.user_id = $1 and m.role = 'owner' and a.erases_at is null order by m.account_id",
            user_id,
        )
    ]
    # Locked first, so that two owners cannot leave at once.
    await conn.execute(
        "select from memberships where account_id = any($1::uuid[]) order by account_id, user_id for update", mine
    )
    rows = await conn.fetch(
        "select a.name from accounts a where a.id = any($1::uuid[]) and not exists (select from memberships o"
        " where o.account_id = a.id and o.role = 'owner' and o.user_id <> $2) order by a.name",
        mine,
        user_id,
    )
    return [row["name"] for row in rows]


async def delete_person(conn: Connection, user_id: UserId, email: str) -> None:
    """Remove a person and their name from everything but the audit log; what they made for others stays."""
    await conn.execute("delete from run_columns where user_id = $1", user_id)
    await conn.execute("delete from run_views where user_id = $1 and not is_shared", user_id)
    await conn.execute("update run_views set user_id = $2 where user_id = $1", user_id, _NOBODY)
    for table in ("event_keys", "signing_keys", "api_keys"):
        await conn.execute(f"update {table} set created_by = null where created_by = $1", user_id)
    await conn.execute("update invitations set invited_by = null where invited_by = $1", user_id)
    await conn.execute(
        "update bulk_actions set actor = $2, actor_id = null where actor_id = $1", user_id, SOMEBODY_GONE
    )
    await conn.execute("update overrides set actor = $2 where actor = $1", email, SOMEBODY_GONE)
    await conn.execute("delete from mails where lower(recipient) = lower($1)", email)
    await conn.execute("delete from link_tokens where lower(email) = lower($1)", email)
    # With it go memberships, sessions, identities and journeys.
    await conn.execute("delete from users where id = $1", user_id)
