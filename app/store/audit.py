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
    rows = await conn.fetch(
        "select id, environment_id, actor, action, object, detail, network, at from audit_log"
        " where account_id = $1 order by at desc, id limit $2",
        account_id,
        limit,
    )
    return [Entry(*row) for row in rows]
