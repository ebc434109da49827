"""Members of an account and invitations into it. Every statement names the account."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.ids import AccountId, UserId
from app.store.db import Connection


@dataclass(frozen=True, slots=True)
class Member:
    """A person in an account. `seen_at` is the last use of a living session."""

    user_id: UserId
    email: str
    name: str
    role: str
    joined_at: datetime
    seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody who was asked to join."""

    id: UUID
    account_id: AccountId
    account_name: str
    email: str
    role: str
    created_at: datetime
    expires_at: datetime
    is_expired: bool


_INVITATIONS = (
    "select i.id, i.account_id, a.name, i.email, i.role, i.created_at, i.expires_at, i.expires_at <= clock()"
    " from invitations i join accounts a on a.id = i.account_id where "
)


async def list_members(conn: Connection, account_id: AccountId) -> list[Member]:
    """List who is in an account: owners first, then by address."""
    rows = await conn.fetch(
        "select u.id, u.email, u.name, m.role, m.created_at,"
        " (select max(s.seen_at) from sessions s where s.user_id = u.id and s.account_id = m.account_id)"
        " from memberships m join users u on u.id = m.user_id where m.account_id = $1"
        " order by array_position(array['owner', 'admin', 'member', 'viewer'], m.role), lower(u.email) limit 1000",
        account_id,
    )
    return [Member(*row) for row in rows]


async def lock_roles(conn: Connection, account_id: AccountId) -> dict[UserId, str]:
    """Who has which role; held until the end, so that two owners cannot remove each other. Locks the memberships."""
    rows = await conn.fetch(
        "select user_id, role from memberships where account_id = $1 order by user_id for update", account_id
    )
    return {UserId(row["user_id"]): row["role"] for row in rows}


async def set_role(conn: Connection, account_id: AccountId, user_id: UserId, role: str) -> None:
    """Change what a member may do."""
    await conn.execute(
        "update memberships set role = $3 where account_id = $1 and user_id = $2", account_id, user_id, role
    )


async def delete_membership(conn: Connection, account_id: AccountId, user_id: UserId) -> None:
    """Take a member out, with the sessions that look at this account."""
    await conn.execute("delete from memberships where account_id = $1 and user_id = $2", account_id, user_id)
    await conn.execute("delete from sessions where account_id = $1 and user_id = $2", account_id, user_id)


async def put_invitation(
    conn: Connection,
    account_id: AccountId,
    invitation_id: UUID,
    *,
    email: str,
    role: str,
    token_hash: bytes,
    invited_by: UserId | None,
    lasts: timedelta,
) -> None:
    """Invite an address; a former invitation of the same address ends with it."""
    await conn.execute("delete from invitations where account_id = $1 and lower(email) = lower($2)", account_id, email)
    await conn.execute(
        "insert into invitations (id, account_id, email, role, token_hash, invited_by, expires_at)"
        " values ($1, $2, $3, $4, $5, $6, clock() + $7)",
        invitation_id,
        account_id,
        email,
        role,
        token_hash,
        invited_by,
        lasts,
    )


async def list_invitations(conn: Connection, account_id: AccountId) -> list[Invitation]:
    """List open and expired invitations of an account, the newest first."""
    rows = await conn.fetch(_INVITATIONS + "i.account_id = $1 order by i.created_at desc limit 200", account_id)
    return [_invitation(row) for row in rows]


async def delete_invitation(conn: Connection, account_id: AccountId, invitation_id: UUID) -> str | None:
    """Take an invitation back; gives its address, or none when there is none."""
    email: str | None = await conn.fetchval(
        "delete from invitations where account_id = $1 and id = $2 returning email", account_id, invitation_id
    )
    return email


async def count_invitations(conn: Connection, account_id: AccountId) -> int:
    """How many addresses are invited and have not come."""
    count: int = await conn.fetchval("select count(*) from invitations where account_id = $1", account_id)
    return count


async def find_invitation(conn: Connection, token_hash: bytes) -> Invitation | None:
    """Look at a living invitation by its link. Needs the engine role: nobody is signed in yet."""
    row = await conn.fetchrow(_INVITATIONS + "i.token_hash = $1 and i.expires_at > clock()", token_hash)
    return row and _invitation(row)


async def use_invitation(conn: Connection, token_hash: bytes) -> Invitation | None:
    """Use an invitation up: of two who accept it at once, one gets it. Needs the engine role."""
    found = await conn.fetchrow(
        _INVITATIONS + "i.token_hash = $1 and i.expires_at > clock() for update of i", token_hash
    )
    if found is None:
        return None
    invitation = _invitation(found)
    await conn.execute(
        "delete from invitations where account_id = $1 and id = $2", invitation.account_id, invitation.id
    )
    return invitation


def _invitation(row: tuple[object, ...]) -> Invitation:
    return Invitation(*row)  # type: ignore[arg-type]
