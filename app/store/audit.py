"""The audit log: who did what, when, from where. Written in the transaction of the deed (I27), never changed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from app.domain.ids import AccountId, EnvironmentId, UserId
from app.store.db import Connection


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it: a person, or a command such as `bootstrap`. `label` is what the log shows."""

    label: str
    user_id: UserId | None = None
    network: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. `detail` is a JSON object as text."""

    id: UUID
    environment_id: EnvironmentId | None
    actor: str
    action: str
    object: str
    detail: str
    network: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are looked for; empty fields want all. `noun` is the first word of an action, `before` a line's place."""

    actor: str = ""
    noun: str = ""
    environment_id: EnvironmentId | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: tuple[datetime, UUID] | None = None


async def insert_entry(
    conn: Connection,
    account_id: AccountId,
    actor: Actor,
    action: str,
    *,
    environment_id: EnvironmentId | None = None,
    subject: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Note a deed. `action` is noun.verb, such as `event_key.revealed`; `subject` names what it was done to."""
    await conn.execute(
        "insert into audit_log (id, account_id, environment_id, actor_id, actor, action, object, detail, network)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        uuid4(),
        account_id,
        environment_id,
        actor.user_id,
        actor.label,
        action,
        subject,
        json.dumps(dict(detail or {}), sort_keys=True),
        actor.network,
    )


async def list_entries(conn: Connection, account_id: AccountId, *, limit: int = 50) -> list[Entry]:
    """List the newest lines of an account, newest first."""
    return await search_entries(conn, account_id, Wanted(), limit=limit)


async def search_entries(conn: Connection, account_id: AccountId, wanted: Wanted, *, limit: int) -> list[Entry]:
    """List the newest lines that match, newest first. Worst case: an account's whole log is read for a rare actor."""
    rows = await conn.fetch(
        "select id, environment_id, actor, action, object, detail, network, at from audit_log"
        " where account_id = $1 and ($2 = '' or strpos(lower(actor), lower($2)) > 0)"
        " and ($3 = '' or split_part(action, '.', 1) = $3) and ($4::uuid is null or environment_id = $4)"
        " and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)"
        " and ($7::timestamptz is null or (at, id) < ($7, $8::uuid))"
        " order by at desc, id desc limit $9",
        account_id,
        wanted.actor,
        wanted.noun,
        wanted.environment_id,
        wanted.since,
        wanted.until,
        *(wanted.before or (None, None)),
        limit,
    )
    return [Entry(*row) for row in rows]


async def list_nouns(conn: Connection, account_id: AccountId) -> list[str]:
    """What the log's newest 10,000 lines speak of: the first words of their actions."""
    rows = await conn.fetch(
        "select distinct split_part(action, '.', 1) as noun from (select action from audit_log where account_id = $1"
        " order by at desc limit 10000) newest order by noun limit 100",
        account_id,
    )
    return [row["noun"] for row in rows]
