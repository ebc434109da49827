"""Keys of programs that ask the API, as rows: hashed, because nobody needs to read one again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.ids import AccountId, EnvironmentId, UserId
from app.domain.scope import Scope
from app.store.db import Connection
from app.store.keys import Found


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as lists show it: `prefix`…`last_four`. `creator` is an address, empty when the person is gone."""

    id: UUID
    name: str
    environment: str
    prefix: str
    last_four: str
    creator: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None
    is_expired: bool


async def insert_api_key(
    conn: Connection,
    scope: Scope,
    key_id: UUID,
    *,
    name: str,
    secret_hash: bytes,
    prefix: str,
    last_four: str,
    created_by: UserId | None,
    lasts: timedelta | None,
) -> None:
    """Add a key that ends after `lasts`, or never."""
    await conn.execute(
        "insert into api_keys (id, account_id, environment_id, name, secret_hash, prefix, last_four, created_by, expires_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, clock() + $9::interval)",
        key_id,
        scope.account_id,
        scope.environment_id,
        name,
        secret_hash,
        prefix,
        last_four,
        created_by,
        lasts,
    )


async def list_api_keys(conn: Connection, account_id: AccountId) -> list[ApiKey]:
    """List an account's keys: usable ones first, the newest first; revoked ones for 30 days."""
    rows = await conn.fetch(
        "select k.id, k.name, e.name, k.prefix, k.last_four, coalesce(u.email, ''), k.created_at, k.expires_at,"
        " k.revoked_at, k.used_at, coalesce(k.expires_at <= clock(), false)"
        " from api_keys k join environments e on e.id = k.environment_id left join users u on u.id = k.created_by"
        " where k.account_id = $1 and (k.revoked_at is null or k.revoked_at > clock() - interval '30 days')"
        " order by k.revoked_at is not null, k.created_at desc limit 200",
        account_id,
    )
    return [ApiKey(*row) for row in rows]


async def count_live(conn: Connection, account_id: AccountId) -> int:
    """How many keys of an account are in use."""
    count: int = await conn.fetchval(
        "select count(*) from api_keys where account_id = $1 and revoked_at is null", account_id
    )
    return count


async def mark_revoked(conn: Connection, account_id: AccountId, key_id: UUID) -> EnvironmentId | None:
    """End a key at once; gives its environment, or none when there is no such key in use."""
    found: EnvironmentId | None = await conn.fetchval(
        "update api_keys set revoked_at = clock() where account_id = $1 and id = $2 and revoked_at is null"
        " returning environment_id",
        account_id,
        key_id,
    )
    return found


async def find_by_api_key(conn: Connection, secret_hash: bytes) -> Found | None:
    """Whose key it is, unless it is revoked, expired or of an archived environment. Notes its use once a
    minute. Needs the engine role.
    """
    row = await conn.fetchrow(
        "with found as (select k.id, k.account_id, k.environment_id, k.secret_hash from api_keys k"
        " join environments e on e.account_id = k.account_id and e.id = k.environment_id"
        " where k.secret_hash = $1 and k.revoked_at is null and e.archived_at is null"
        " and (k.expires_at is null or k.expires_at > clock())),"
        " stale as (select id from api_keys where id = (select id from found)"
        " and (used_at is null or used_at < clock() - interval '1 minute') for no key update skip locked),"
        " touched as (update api_keys set used_at = clock() where id = (select id from stale))"
        " select account_id, environment_id, secret_hash as matched from found",
        secret_hash,
    )
    if row is None:
        return None
    return Found(Scope(AccountId(row["account_id"]), EnvironmentId(row["environment_id"])), row["matched"])
