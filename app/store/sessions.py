"""Sessions and failed logins, in Postgres so that an emptied Redis neither signs anyone out nor opens a door.

These tables belong to no account, so row-level security does not cover them: they are found by hashes only.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from app.domain.ids import AccountId, UserId
from app.store.db import Connection

Kind = Literal["address", "network"]


@dataclass(frozen=True, slots=True)
class SessionRow:
    """Somebody who is signed in, with what they are in the account they look at."""

    user_id: UserId
    email: str
    name: str
    account_id: AccountId
    account_name: str
    role: str
    csrf_hash: bytes
    #: What everybody in the account is told at present, as billing's word for it; empty for nothing.
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Tries:
    """Login attempts in the present window, this one included, and when the window ends."""

    count: int
    remaining: timedelta


async def insert_session(
    conn: Connection,
    *,
    id_hash: bytes,
    csrf_hash: bytes,
    user_id: UserId,
    account_id: AccountId,
    lasts: timedelta,
    network: str,
    agent: str,
) -> None:
    """Begin a session that ends after `lasts` whatever happens."""
    await conn.execute(
        "insert into sessions (id_hash, csrf_hash, user_id, account_id, seen_at, expires_at, network, agent)"
        " values ($1, $2, $3, $4, clock(), clock() + $5, $6, $7)",
        id_hash,
        csrf_hash,
        user_id,
        account_id,
        lasts,
        network,
        agent,
    )


async def find_session(conn: Connection, id_hash: bytes, *, idle: timedelta) -> SessionRow | None:
    """Find a living session and what its person may do. Must run in a transaction: it sets the tenant for it.

    None when the session is unknown, ended, idle for longer than `idle`, or the membership was taken away.
    """
    # The first statement names user and account, which lets the second one through the policies.
    found = await conn.fetchrow(
        "select user_id, account_id, csrf_hash, seen_at < clock() - interval '1 minute' as is_stale,"
        " set_config('app.user', user_id::text, true), set_config('app.account', account_id::text, true)"
        " from sessions where id_hash = $1 and expires_at > clock() and seen_at > clock() - $2::interval",
        id_hash,
        idle,
    )
    if found is None:
        return None
    row = await conn.fetchrow(
        "select u.email, u.name, m.role, a.name as account_name, a.notice from users u"
        " join memberships m on m.user_id = u.id and m.account_id = $2 join accounts a on a.id = m.account_id"
        " where u.id = $1",
        found["user_id"],
        found["account_id"],
    )
    if row is None:
        return None
    if found["is_stale"]:
        await conn.execute(
            "update sessions set seen_at = clock() where id_hash = $1 and seen_at < clock() - interval '1 minute'",
            id_hash,
        )
    return SessionRow(
        UserId(found["user_id"]),
        row["email"],
        row["name"],
        AccountId(found["account_id"]),
        row["account_name"],
        row["role"],
        found["csrf_hash"],
        row["notice"],
    )


async def delete_session(conn: Connection, id_hash: bytes) -> tuple[UserId, AccountId] | None:
    """End a session and say whose it was; none when there is no such session."""
    row = await conn.fetchrow("delete from sessions where id_hash = $1 returning user_id, account_id", id_hash)
    return row and (UserId(row["user_id"]), AccountId(row["account_id"]))


async def delete_sessions_of(conn: Connection, user_id: UserId, *, but: bytes | None = None) -> int:
    """End all sessions of a person except, if given, the one with hash `but`; says how many ended."""
    rows = await conn.fetch(
        "delete from sessions where user_id = $1 and id_hash is distinct from $2 returning 1", user_id, but
    )
    return len(rows)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """One of a person's sessions, as their list of sessions shows it."""

    id_hash: bytes
    account_name: str
    created_at: datetime
    seen_at: datetime
    network: str
    agent: str


async def list_sessions(conn: Connection, user_id: UserId, *, idle: timedelta) -> list[OpenSession]:
    """List a person's living sessions, the last used first. Needs `app.user` set, for the names of accounts."""
    rows = await conn.fetch(
        "select s.id_hash, coalesce(a.name, ''), s.created_at, s.seen_at, s.network, s.agent from sessions s"
        " left join accounts a on a.id = s.account_id where s.user_id = $1 and s.expires_at > clock()"
        " and s.seen_at > clock() - $2::interval order by s.seen_at desc limit 100",
        user_id,
        idle,
    )
    return [OpenSession(*row) for row in rows]


async def move_session(
    conn: Connection, id_hash: bytes, *, new_id_hash: bytes, csrf_hash: bytes, account_id: AccountId
) -> bool:
    """Give a session another id and another account to look at; false when it is over."""
    return bool(
        await conn.fetchval(
            "update sessions set id_hash = $2, csrf_hash = $3, account_id = $4 where id_hash = $1 returning true",
            id_hash,
            new_id_hash,
            csrf_hash,
            account_id,
        )
    )


async def prove_session(conn: Connection, id_hash: bytes, *, new_id_hash: bytes, csrf_hash: bytes) -> bool:
    """Note that its person has proven themselves anew, under another id; false when the session is over."""
    return bool(
        await conn.fetchval(
            "update sessions set id_hash = $2, csrf_hash = $3, proven_at = clock() where id_hash = $1 returning true",
            id_hash,
            new_id_hash,
            csrf_hash,
        )
    )


async def is_proven(conn: Connection, id_hash: bytes, *, lasts: timedelta) -> bool:
    """Whether the person of this session has proven themselves anew within `lasts`."""
    return bool(
        await conn.fetchval(
            "select exists (select from sessions where id_hash = $1 and proven_at > clock() - $2::interval)",
            id_hash,
            lasts,
        )
    )


async def is_known_network(conn: Connection, user_id: UserId | None, network: str) -> bool:
    """Say whether the person is signed in from this network already. Costs the same for nobody (`user_id` none)."""
    return bool(
        await conn.fetchval(
            "select exists (select 1 from sessions where user_id = $1 and network = $2 and expires_at > clock())",
            user_id,
            network,
        )
    )


async def count_try(conn: Connection, kind: Kind, key_hash: bytes, *, window: timedelta) -> Tries:
    """Count an attempt before it is made, so that parallel guesses cannot slip through. Locks the counter's row."""
    row = await conn.fetchrow(
        "insert into login_attempts as l (kind, key_hash, window_start, failures) values ($1, $2, clock(), 1)"
        " on conflict (kind, key_hash) do update set"
        " failures = case when l.window_start <= clock() - $3::interval then 1 else l.failures + 1 end,"
        " window_start = case when l.window_start <= clock() - $3::interval then clock() else l.window_start end"
        " returning failures, window_start + $3::interval - clock() as remaining",
        kind,
        key_hash,
        window,
    )
    return Tries(row["failures"], row["remaining"])


async def forget_tries(conn: Connection, *, address: bytes, network: bytes) -> None:
    """Undo the counting after a success: all of the address's tries, one of the network's."""
    await conn.execute("delete from login_attempts where kind = 'address' and key_hash = $1", address)
    await conn.execute(
        "update login_attempts set failures = greatest(failures - 1, 0) where kind = 'network' and key_hash = $1",
        network,
    )


async def delete_expired(conn: Connection, *, idle: timedelta, window: timedelta, limit: int = 1000) -> int:
    """Remove ended sessions and old counters, at most `limit` of each; says how many went. For a keeper."""
    sessions = await conn.fetch(
        "delete from sessions where id_hash in (select id_hash from sessions where expires_at <= clock()"
        " or seen_at <= clock() - $1::interval limit $2) returning 1",
        idle,
        limit,
    )
    counters = await conn.fetch(
        "delete from login_attempts where (kind, key_hash) in (select kind, key_hash from login_attempts"
        " where window_start <= clock() - $1::interval limit $2 for update skip locked) returning 1",
        window,
        limit,
    )
    return len(sessions) + len(counters)
