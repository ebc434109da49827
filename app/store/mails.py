"""The outbox of mails and the links in them. Belongs to no account: letters go to people, who may have none yet."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from app.domain.ids import UserId
from app.store.db import Connection


@dataclass(frozen=True, slots=True)
class Mail:
    """A letter to be sent. `attempts` counts this one; `sealed` holds subject and text."""

    id: UUID
    recipient: str
    sealed: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class Link:
    """What a link that was followed stands for. `detail` is sealed or none."""

    email: str
    user_id: UserId | None
    detail: bytes | None


async def insert_mail(conn: Connection, *, recipient: str, kind: str, sealed: bytes, is_wanted: bool = True) -> None:
    """Put a letter out with the transaction that causes it; an unwanted one costs the same and goes nowhere."""
    await conn.execute(
        "insert into mails (id, recipient, kind, sealed, state, ended_at) values"
        " ($1, case when $5 then $2 else '' end, $3, case when $5 then $4::bytea end,"
        " case when $5 then 'waiting' else 'dropped' end, case when $5 then null else clock() end)",
        uuid4(),
        recipient,
        kind,
        sealed,
        is_wanted,
    )


async def claim_mail(conn: Connection, *, waits: list[timedelta]) -> Mail | None:
    """Take the next due letter; it comes back after `waits[attempts]` unless it is marked. Locks its row."""
    row = await conn.fetchrow(
        "update mails set attempts = attempts + 1,"
        " due_at = clock() + ($1::interval[])[least(attempts + 1, array_length($1::interval[], 1))]"
        " where id = (select id from mails where state = 'waiting' and due_at <= clock() order by due_at"
        " limit 1 for update skip locked) returning id, recipient, sealed, attempts",
        waits,
    )
    return row and Mail(row["id"], row["recipient"], row["sealed"], row["attempts"])


async def mark_mail(conn: Connection, mail_id: UUID, *, state: str, error: str = "") -> None:
    """A letter is sent or given up; what it said is forgotten."""
    await conn.execute(
        "update mails set state = $2, error = $3, sealed = null, ended_at = clock() where id = $1 and state = 'waiting'",
        mail_id,
        state,
        error,
    )


async def drop_old(conn: Connection, *, older: timedelta, limit: int = 1000) -> int:
    """Forget letters that ended long ago, and links that have expired; says how many went."""
    mails = await conn.fetch(
        "delete from mails where id in (select id from mails where state <> 'waiting' and ended_at < clock() - $1::interval"
        " limit $2) returning 1",
        older,
        limit,
    )
    links = await conn.fetch(
        "delete from link_tokens where token_hash in (select token_hash from link_tokens where expires_at < clock()"
        " limit $1) returning 1",
        limit,
    )
    return len(mails) + len(links)


async def insert_link(
    conn: Connection,
    *,
    token_hash: bytes,
    purpose: str,
    email: str,
    user_id: UserId | None,
    lasts: timedelta,
    detail: bytes | None = None,
) -> None:
    """Remember a link that was mailed."""
    await conn.execute(
        "insert into link_tokens (token_hash, purpose, email, user_id, detail, expires_at)"
        " values ($1, $2, $3, $4, $5, clock() + $6)",
        token_hash,
        purpose,
        email,
        user_id,
        detail,
        lasts,
    )


async def find_link(conn: Connection, token_hash: bytes, purpose: str) -> Link | None:
    """Look at a link without using it up; none when it is unknown, used, expired, or led to nobody."""
    row = await conn.fetchrow(
        "select email, user_id, detail from link_tokens where token_hash = $1 and purpose = $2"
        " and expires_at > clock() and (user_id is not null or detail is not null)",
        token_hash,
        purpose,
    )
    return row and Link(row["email"], row["user_id"], row["detail"])


async def use_link(conn: Connection, token_hash: bytes, purpose: str) -> Link | None:
    """Use a link up: of two who follow it at once, one gets it."""
    row = await conn.fetchrow(
        "delete from link_tokens where token_hash = $1 and purpose = $2 and expires_at > clock()"
        " and (user_id is not null or detail is not null) returning email, user_id, detail",
        token_hash,
        purpose,
    )
    return row and Link(row["email"], row["user_id"], row["detail"])


async def delete_links_of(conn: Connection, user_id: UserId) -> None:
    """End every link of a person: their password was changed."""
    await conn.execute("delete from link_tokens where user_id = $1", user_id)
