"""Event keys and signing keys: make, show, replace, revoke. Every deed leaves a line in the audit log.

    event key    event-prod-<48 hex>     192 random bits; can only send events; part of the address `/e/{key}`
    signing key  signkey-prod-<64 hex>   256 random bits (protocol 4.1); signs calls, proves SDKs

The callers commit; processes that hold a copy of a key notice within five seconds (`resolve.py`).
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from uuid import UUID, uuid4

from app.adapters.sealing import Sealer
from app.domain.errors import Refused
from app.domain.scope import Scope
from app.store import accounts, audit, keys
from app.store.audit import Actor
from app.store.db import Connection

_LABELS = {"production": "prod", "custom": "test", "branch": "branch", "dev": "dev"}
_SIGNING_PREFIX = re.compile(r"^signkey-\w+-")


@dataclass(frozen=True, slots=True)
class Made:
    """A new key with its secret, for the one who made it."""

    id: UUID
    secret: str


class KeyInUse(Refused):
    """The key signs calls at present. Make another key current first, then revoke this one."""

    def __init__(self) -> None:
        super().__init__("key_in_use")


class KeyUnknown(Refused):
    """There is no such key in this environment."""

    def __init__(self) -> None:
        super().__init__("not_found")


async def create_event_key(
    conn: Connection, sealer: Sealer, scope: Scope, actor: Actor, *, kind: str, name: str = "Default"
) -> Made:
    """Make an event key for an environment of this `kind` (production, custom, branch, dev)."""
    made = Made(uuid4(), f"event-{_LABELS[kind]}-{secrets.token_hex(24)}")
    await keys.insert_event_key(
        conn,
        scope,
        made.id,
        name=name,
        secret_hash=hash_of_event_key(made.secret),
        sealed=sealer.seal(made.secret, scope),
        prefix=f"event-{_LABELS[kind]}-",
        last_four=made.secret[-4:],
        created_by=actor.user_id,
    )
    await _note(conn, scope, actor, "event_key.created", made.id)
    return made


async def create_signing_key(conn: Connection, sealer: Sealer, scope: Scope, actor: Actor, *, kind: str) -> Made:
    """Make a signing key: current when the environment has none, else next (accepted, not yet signing)."""
    live = await keys.list_live_signing_keys(conn, scope.environment_id)
    prefix = f"signkey-{_LABELS[kind]}-"
    bare = secrets.token_hex(32)
    made = Made(uuid4(), prefix + bare)
    await keys.insert_signing_key(
        conn,
        scope,
        made.id,
        state="next" if live else "current",
        bearer_hash=hash_of_token(bearer_of(made.secret)),
        plain_hash=hash_of_token(bare),
        sealed=sealer.seal(made.secret, scope),
        prefix=prefix,
        last_four=made.secret[-4:],
        created_by=actor.user_id,
    )
    await _note(conn, scope, actor, "signing_key.created", made.id)
    return made


async def reveal_event_key(conn: Connection, sealer: Sealer, scope: Scope, actor: Actor, key_id: UUID) -> str:
    """Read an event key again. Raises `KeyUnknown`, also for revoked keys."""
    key = await keys.find_event_key(conn, scope, key_id)
    if key is None or key.revoked_at is not None:
        raise KeyUnknown
    await _note(conn, scope, actor, "event_key.revealed", key_id, changes=False)
    return sealer.open(key.sealed, scope)


async def reveal_signing_key(conn: Connection, sealer: Sealer, scope: Scope, actor: Actor, key_id: UUID) -> str:
    """Read a signing key again. Raises `KeyUnknown`, also for revoked keys."""
    key = await keys.find_signing_key(conn, scope, key_id)
    if key is None or key.state == "revoked":
        raise KeyUnknown
    await _note(conn, scope, actor, "signing_key.revealed", key_id, changes=False)
    return sealer.open(key.sealed, scope)


async def revoke_event_key(conn: Connection, scope: Scope, actor: Actor, key_id: UUID) -> None:
    """End an event key. Raises `KeyUnknown`."""
    if not await keys.mark_event_key_revoked(conn, scope, key_id):
        raise KeyUnknown
    await _note(conn, scope, actor, "event_key.revoked", key_id)


async def revoke_signing_key(conn: Connection, scope: Scope, actor: Actor, key_id: UUID) -> None:
    """End a signing key that is not current. Raises `KeyInUse` or `KeyUnknown`."""
    if not await keys.mark_signing_key_revoked(conn, scope, key_id):
        key = await keys.find_signing_key(conn, scope, key_id)
        raise KeyInUse if key is not None and key.state == "current" else KeyUnknown
    await _note(conn, scope, actor, "signing_key.revoked", key_id)


async def promote_signing_key(conn: Connection, scope: Scope, actor: Actor, key_id: UUID) -> None:
    """Sign with a next key from now on; the former stays accepted until revoked (protocol 4.5). Raises `KeyUnknown`."""
    if not await keys.mark_signing_key_current(conn, scope, key_id):
        raise KeyUnknown
    await _note(conn, scope, actor, "signing_key.promoted", key_id)


def without_prefix(signing_key: str) -> str:
    """The text after `signkey-<label>-`; a key or token without prefix is returned as it is."""
    return _SIGNING_PREFIX.sub("", signing_key, count=1)


def bearer_of(signing_key: str) -> str:
    """What SDKs send as bearer token for a signing key (protocol 4.5), without prefix."""
    return hashlib.sha256(bytes.fromhex(without_prefix(signing_key))).hexdigest()


def hash_of_event_key(event_key: str) -> bytes:
    """What an event key is found by."""
    return hashlib.sha256(event_key.encode(errors="surrogatepass")).digest()


def hash_of_token(token: str) -> bytes:
    """What a bearer token or a plain signing key is found by; prefix and letter case do not matter."""
    return hashlib.sha256(without_prefix(token).lower().encode(errors="surrogatepass")).digest()


async def _note(
    conn: Connection, scope: Scope, actor: Actor, action: str, key_id: UUID, *, changes: bool = True
) -> None:
    if changes:
        await accounts.bump_catalogue(conn, scope)
    await audit.insert_entry(
        conn, scope.account_id, actor, action, environment_id=scope.environment_id, subject=str(key_id)
    )
