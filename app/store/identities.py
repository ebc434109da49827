"""Who somebody is at a login provider, and journeys to one. Of people, not of accounts: needs the engine role."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from app.domain.ids import UserId
from app.store.db import Connection

Purpose = Literal["sign_in", "link", "prove", "sign_up"]


@dataclass(frozen=True, slots=True)
class Identity:
    """One of a person's identities. `email` is what the provider called their address last, for telling it apart."""

    issuer: str
    email: str
    created_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Journey:
    """What was kept when a browser left for a provider. `user_id` is who was signed in, where that matters."""

    provider: str
    purpose: Purpose
    user_id: UserId | None
    sealed: bytes


async def insert_journey(
    conn: Connection, journey: Journey, *, state_hash: bytes, browser_hash: bytes, lasts: timedelta
) -> None:
    """Remember that a browser leaves."""
    await conn.execute(
        "insert into journeys (state_hash, browser_hash, provider, purpose, user_id, sealed, expires_at)"
        " values ($1, $2, $3, $4, $5, $6, clock() + $7)",
        state_hash,
        browser_hash,
        journey.provider,
        journey.purpose,
        journey.user_id,
        journey.sealed,
        lasts,
    )


async def find_journey(conn: Connection, state_hash: bytes, browser_hash: bytes) -> Journey | None:
    """Look at a journey of this browser; none when it is over or another's."""
    row = await conn.fetchrow(
        "select provider, purpose, user_id, sealed from journeys"
        " where state_hash = $1 and browser_hash = $2 and expires_at > clock()",
        state_hash,
        browser_hash,
    )
    return row and Journey(*row)


async def use_journey(conn: Connection, state_hash: bytes, browser_hash: bytes) -> Journey | None:
    """End a journey: of two returns, one gets it. None when it is over, or another browser's."""
    row = await conn.fetchrow(
        "delete from journeys where state_hash = $1 and browser_hash = $2 and expires_at > clock()"
        " returning provider, purpose, user_id, sealed",
        state_hash,
        browser_hash,
    )
    return row and Journey(*row)


async def find_identity(conn: Connection, issuer: str, subject: str) -> tuple[UserId, str] | None:
    """Whose identity this is, with their address here; none when it is nobody's."""
    row = await conn.fetchrow(
        "select u.id, u.email from identities i join users u on u.id = i.user_id where i.issuer = $1 and i.subject = $2",
        issuer,
        subject,
    )
    return row and (UserId(row["id"]), row["email"])


async def note_use(conn: Connection, issuer: str, subject: str, email: str) -> None:
    """Remember that somebody signed in with it, and by which address the provider knows them now."""
    await conn.execute(
        "update identities set used_at = clock(), email = case when $3 = '' then email else $3 end"
        " where issuer = $1 and subject = $2",
        issuer,
        subject,
        email,
    )


async def insert_identity(conn: Connection, user_id: UserId, *, issuer: str, subject: str, email: str) -> bool:
    """Give a person an identity; false when it is somebody's, or they have one of this issuer already."""
    return bool(
        await conn.fetchval(
            "insert into identities (issuer, subject, user_id, email, used_at) values ($1, $2, $3, $4, clock())"
            " on conflict do nothing returning true",
            issuer,
            subject,
            user_id,
            email,
        )
    )


async def lock_identities(conn: Connection, user_id: UserId) -> list[Identity]:
    """A person's identities, the oldest first. Locks the person, so that two deeds cannot each leave the other's."""
    await conn.execute("select from users where id = $1 for update", user_id)
    return await list_identities(conn, user_id)


async def list_identities(conn: Connection, user_id: UserId) -> list[Identity]:
    """A person's identities, the oldest first."""
    rows = await conn.fetch(
        "select issuer, email, created_at, used_at from identities where user_id = $1 order by created_at, issuer",
        user_id,
    )
    return [Identity(*row) for row in rows]


async def delete_identity(conn: Connection, user_id: UserId, issuer: str) -> bool:
    """Take an identity from a person; false when they have none of this issuer."""
    return bool(
        await conn.fetchval("delete from identities where user_id = $1 and issuer = $2 returning true", user_id, issuer)
    )


async def delete_expired(conn: Connection, *, limit: int = 1000) -> int:
    """Remove journeys nobody returned from, at most `limit`; says how many went. For a keeper."""
    rows = await conn.fetch(
        "delete from journeys where state_hash in (select state_hash from journeys where expires_at <= clock() limit $1"
        " for update skip locked) returning 1",
        limit,
    )
    return len(rows)
