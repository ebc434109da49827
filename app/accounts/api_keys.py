"""Keys of programs that ask the API for one environment: made, shown once, revoked. 192 random bits each."""

import hashlib
import secrets
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

from app.accounts.environments import checked_name
from app.accounts.keys import KeyUnknown, Made
from app.domain.errors import Refused
from app.domain.ids import AccountId
from app.domain.scope import Scope
from app.store import api_keys, audit
from app.store.audit import Actor
from app.store.db import Connection

API_KEY_PREFIX: Final = "api-"
#: Keys of an account that are in use at the same time.
MOST_KEYS = 100


class TooManyKeys(Refused):
    """There are as many API keys as allowed. Revoke one that is not needed any more."""

    def __init__(self) -> None:
        super().__init__("too_many_keys", details={"limit": MOST_KEYS})


async def create_api_key(conn: Connection, scope: Scope, actor: Actor, *, name: str, lasts: timedelta | None) -> Made:
    """Make a key; its secret is in the answer and nowhere else. Raises `NameInvalid` and `TooManyKeys`."""
    name = checked_name(name)
    if await api_keys.count_live(conn, scope.account_id) >= MOST_KEYS:
        raise TooManyKeys
    made = Made(uuid4(), f"{API_KEY_PREFIX}{secrets.token_hex(24)}")
    await api_keys.insert_api_key(
        conn,
        scope,
        made.id,
        name=name,
        secret_hash=hash_of_api_key(made.secret),
        prefix=API_KEY_PREFIX,
        last_four=made.secret[-4:],
        created_by=actor.user_id,
        lasts=lasts,
    )
    await audit.insert_entry(
        conn,
        scope.account_id,
        actor,
        "api_key.created",
        environment_id=scope.environment_id,
        subject=str(made.id),
        detail={"name": name},
    )
    return made


async def revoke_api_key(conn: Connection, account_id: AccountId, actor: Actor, key_id: UUID) -> None:
    """End a key; every process refuses it within five seconds. Raises `KeyUnknown`."""
    environment_id = await api_keys.mark_revoked(conn, account_id, key_id)
    if environment_id is None:
        raise KeyUnknown
    await audit.insert_entry(
        conn, account_id, actor, "api_key.revoked", environment_id=environment_id, subject=str(key_id)
    )


def hash_of_api_key(secret: str) -> bytes:
    """What a key is found by."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()
