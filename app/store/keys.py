"""Event keys and signing keys as rows. What they are and when they may be used is decided in `app.accounts`.

Every secret is here twice, never in the clear: hashed with SHA-256, to be found by what a request brings, and sealed,
to be shown again or signed with. `bearer_hash` is the SHA-256 of the token that SDKs send (itself a hash, protocol
4.5), because that token is as good as the key.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.ids import AccountId, EnvironmentId, UserId
from app.domain.scope import Scope
from app.store.db import Connection


@dataclass(frozen=True, slots=True)
class EventKey:
    """A key that can only send events, as lists show it: `prefix`…`last_four`."""

    id: UUID
    scope: Scope
    name: str
    sealed: bytes
    prefix: str
    last_four: str
    created_by: UserId | None
    created_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that signs calls and lets SDKs in. `state` is current (signs), next (is accepted) or revoked."""

    id: UUID
    scope: Scope
    state: str
    sealed: bytes
    prefix: str
    last_four: str
    created_by: UserId | None
    created_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a key opens: whose it is, and the hash it was found by, for a comparison in constant time."""

    scope: Scope
    matched: bytes


_EVENT_KEYS = (
    "select id, account_id, environment_id, secret_sealed, prefix, last_four, created_by, created_at, revoked_at,"
    " used_at, name from event_keys where "
)
_SIGNING_KEYS = (
    "select id, account_id, environment_id, secret_sealed, prefix, last_four, created_by, created_at, revoked_at,"
    " used_at, state from signing_keys where "
)


async def insert_event_key(
    conn: Connection,
    scope: Scope,
    key_id: UUID,
    *,
    name: str,
    secret_hash: bytes,
    sealed: bytes,
    prefix: str,
    last_four: str,
    created_by: UserId | None,
) -> None:
    """Add an event key."""
    await conn.execute(
        "insert into event_keys (id, account_id, environment_id, name, secret_hash, secret_sealed, prefix, last_four,"
        " created_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key_id,
        scope.account_id,
        scope.environment_id,
        name,
        secret_hash,
        sealed,
        prefix,
        last_four,
        created_by,
    )


async def insert_signing_key(
    conn: Connection,
    scope: Scope,
    key_id: UUID,
    *,
    state: str,
    bearer_hash: bytes,
    plain_hash: bytes,
    sealed: bytes,
    prefix: str,
    last_four: str,
    created_by: UserId | None,
) -> None:
    """Add a signing key. A second one with state `current` breaks the unique index, on purpose."""
    await conn.execute(
        "insert into signing_keys (id, account_id, environment_id, state, bearer_hash, plain_hash, secret_sealed,"
        " prefix, last_four, created_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        key_id,
        scope.account_id,
        scope.environment_id,
        state,
        bearer_hash,
        plain_hash,
        sealed,
        prefix,
        last_four,
        created_by,
    )


async def parent_of(conn: Connection, scope: Scope) -> tuple[str, str] | None:
    """Name and slug of the environment whose keys open this branch; None for what is no branch of another."""
    row = await conn.fetchrow(
        "select p.name, p.slug from environments e join environments p on p.id = e.parent_id and p.account_id = $1"
        " where e.account_id = $1 and e.id = $2",
        scope.account_id,
        scope.environment_id,
    )
    return None if row is None else (row["name"], row["slug"])


async def list_event_keys(conn: Connection, scope: Scope) -> list[EventKey]:
    """List an environment's event keys: usable ones first, the oldest first."""
    rows = await conn.fetch(
        _EVENT_KEYS + "account_id = $1 and environment_id = $2"
        " order by revoked_at is not null, created_at, id limit 200",
        scope.account_id,
        scope.environment_id,
    )
    return [_event_key(row) for row in rows]


async def find_event_key(conn: Connection, scope: Scope, key_id: UUID) -> EventKey | None:
    """Find one event key of an environment."""
    row = await conn.fetchrow(
        _EVENT_KEYS + "account_id = $1 and environment_id = $2 and id = $3",
        scope.account_id,
        scope.environment_id,
        key_id,
    )
    return row and _event_key(row)


async def list_signing_keys(conn: Connection, scope: Scope) -> list[SigningKey]:
    """List an environment's signing keys: the current one, then next ones, then revoked ones."""
    rows = await conn.fetch(
        _SIGNING_KEYS + "account_id = $1 and environment_id = $2"
        " order by array_position(array['current', 'next', 'revoked'], state), created_at, id limit 200",
        scope.account_id,
        scope.environment_id,
    )
    return [_signing_key(row) for row in rows]


async def find_signing_key(conn: Connection, scope: Scope, key_id: UUID) -> SigningKey | None:
    """Find one signing key of an environment."""
    row = await conn.fetchrow(
        _SIGNING_KEYS + "account_id = $1 and environment_id = $2 and id = $3",
        scope.account_id,
        scope.environment_id,
        key_id,
    )
    return row and _signing_key(row)


async def list_live_signing_keys(conn: Connection, environment_id: EnvironmentId) -> list[SigningKey]:
    """List the keys to sign with, the current one first; a branch has its parent's.

    For the engine, which knows only the environment.
    """
    rows = await conn.fetch(
        _SIGNING_KEYS + "environment_id = (select coalesce(e.parent_id, e.id) from environments e where e.id = $1)"
        " and state in ('current', 'next') order by state, created_at, id limit 10",
        environment_id,
    )
    return [_signing_key(row) for row in rows]


async def mark_event_key_revoked(conn: Connection, scope: Scope, key_id: UUID) -> bool:
    """End an event key; false when there is no such usable key."""
    return bool(
        await conn.fetchval(
            "update event_keys set revoked_at = clock() where account_id = $1 and environment_id = $2 and id = $3"
            " and revoked_at is null returning true",
            scope.account_id,
            scope.environment_id,
            key_id,
        )
    )


async def mark_signing_key_revoked(conn: Connection, scope: Scope, key_id: UUID) -> bool:
    """End a signing key that is not the current one; false when there is no such key."""
    return bool(
        await conn.fetchval(
            "update signing_keys set state = 'revoked', revoked_at = clock() where account_id = $1"
            " and environment_id = $2 and id = $3 and state = 'next' returning true",
            scope.account_id,
            scope.environment_id,
            key_id,
        )
    )


async def mark_signing_key_current(conn: Connection, scope: Scope, key_id: UUID) -> bool:
    """Sign with this key from now on; the former one stays accepted as `next`. False when it is not a next key."""
    # The statements stand apart because a unique index is checked row by row: the old key has to step down first.
    await conn.execute(
        "update signing_keys set state = 'next' where account_id = $1 and environment_id = $2 and state = 'current'"
        " and exists (select 1 from signing_keys k where k.account_id = $1 and k.environment_id = $2 and k.id = $3"
        " and k.state = 'next')",
        scope.account_id,
        scope.environment_id,
        key_id,
    )
    return bool(
        await conn.fetchval(
            "update signing_keys set state = 'current' where account_id = $1 and environment_id = $2 and id = $3"
            " and state = 'next' and not exists (select 1 from signing_keys k where k.account_id = $1"
            " and k.environment_id = $2 and k.state = 'current') returning true",
            scope.account_id,
            scope.environment_id,
            key_id,
        )
    )


async def find_by_event_key(conn: Connection, secret_hash: bytes) -> Found | None:
    """Find whose event key this is, and note its use (at most once a minute). Needs the engine role."""
    row = await conn.fetchrow(
        "with found as (select k.id, k.account_id, k.environment_id, k.secret_hash from event_keys k"
        " join environments e on e.account_id = k.account_id and e.id = k.environment_id"
        " where k.secret_hash = $1 and k.revoked_at is null and e.archived_at is null),"
        " stale as (select id from event_keys where id = (select id from found)"
        " and (used_at is null or used_at < clock() - interval '1 minute') for no key update skip locked),"
        " touched as (update event_keys set used_at = clock() where id = (select id from stale))"
        " select account_id, environment_id, secret_hash as matched from found",
        secret_hash,
    )
    return row and Found(_scope(row), row["matched"])


async def find_by_bearer(conn: Connection, token_hash: bytes) -> Found | None:
    """Find whose signing key a token proves (its hash or its plain text) and note its use. Needs the engine role."""
    row = await conn.fetchrow(
        "with found as (select k.id, k.account_id, k.environment_id,"
        " case when k.bearer_hash = $1 then k.bearer_hash else k.plain_hash end as matched from signing_keys k"
        " join environments e on e.account_id = k.account_id and e.id = k.environment_id"
        " where (k.bearer_hash = $1 or k.plain_hash = $1) and k.state <> 'revoked' and e.archived_at is null),"
        " stale as (select id from signing_keys where id = (select id from found)"
        " and (used_at is null or used_at < clock() - interval '1 minute') for no key update skip locked),"
        " touched as (update signing_keys set used_at = clock() where id = (select id from stale))"
        " select account_id, environment_id, matched from found",
        token_hash,
    )
    return row and Found(_scope(row), row["matched"])


def _scope(row: Any) -> Scope:
    return Scope(AccountId(row["account_id"]), EnvironmentId(row["environment_id"]))


def _event_key(row: Any) -> EventKey:
    return EventKey(
        row["id"],
        _scope(row),
        row["name"],
        row["secret_sealed"],
        row["prefix"],
        row["last_four"],
        row["created_by"],
        row["created_at"],
        row["revoked_at"],
        row["used_at"],
    )


def _signing_key(row: Any) -> SigningKey:
    return SigningKey(
        row["id"],
        _scope(row),
        row["state"],
        row["secret_sealed"],
        row["prefix"],
        row["last_four"],
        row["created_by"],
        row["created_at"],
        row["revoked_at"],
        row["used_at"],
    )
