"""From nothing to a working account without a browser: `stepwell bootstrap`, and the tenant of `stepwell dev`."""

from uuid import UUID, uuid4

from app.accounts import environments, keys
from app.accounts.environments import checked_name, slug_of
from app.accounts.passwords import Passwords, check_password
from app.adapters.sealing import Sealer
from app.domain.errors import Bug, Refused
from app.domain.ids import DEV_ACCOUNT_ID, DEV_ENVIRONMENT_ID, AccountId, UserId
from app.domain.scope import Scope
from app.store import accounts, audit, sessions
from app.store import keys as key_rows
from app.store.audit import Actor
from app.store.db import Connection, open_engine_pool

DEV_USER_ID = UserId(UUID("00000000-0000-4000-a000-000000000001"))
"""Who everybody is in `stepwell dev`."""
DEV_SCOPE = Scope(DEV_ACCOUNT_ID, DEV_ENVIRONMENT_ID)
DEV_EMAIL = "dev@localhost"

#: Two who make accounts at once must not both find nothing. The number only has to be ours.
LOCK = 7_031_222
_ACTOR = Actor("stepwell bootstrap")


class EmailInvalid(Refused):
    """That is not an e-mail address: write it like name@example.com."""

    def __init__(self) -> None:
        super().__init__("email_invalid")


async def bootstrap(
    database_url: str,
    secret_key: str,
    *,
    email: str,
    password: str,
    organization: str,
    environment: str = "production",
    base_url: str,
    passwords: Passwords | None = None,
) -> dict[str, str]:
    """Make sure that person, organization, environment and keys exist, and give what an app and a person need.

    Repeated, it gives the same keys; a password that differs from the stored one replaces it and ends the sessions.
    The schema must be there. Raises `Refused` for a bad address, name or password.

    Gives texts: organization (name), environment (slug), event_key, signing_key, base_url, user (address), role,
    organization_id, organization_slug, environment_id, user_id.
    """
    email = checked_email(email)
    check_password(password, email=email)
    slug_of(organization), slug_of(environment)  # Refuses bad names before anything is written.
    sealer, hashing = Sealer(secret_key), passwords or Passwords()
    pool = await open_engine_pool(database_url, size=1, statement_timeout_ms=30_000)
    try:
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
            user_id, email = await _ensure_user(conn, hashing, email, password)
            account = await _ensure_account(conn, sealer, user_id, organization)
            role = await _ensure_membership(conn, account.id, user_id)
            row = await _ensure_environment(conn, sealer, account.id, environment)
            event_key, signing_key = await _ensure_keys(conn, sealer, row)
    finally:
        if hashing is not passwords:
            hashing.close()
        await pool.close()
    return {
        "organization": account.name,
        "environment": row.slug,
        "event_key": event_key,
        "signing_key": signing_key,
        "base_url": base_url,
        "user": email,
        "role": role,
        "organization_id": str(account.id),
        "organization_slug": account.slug,
        "environment_id": str(row.id),
        "user_id": str(user_id),
    }


async def ensure_dev_tenant(conn: Connection, sealer: Sealer) -> Scope:
    """Make sure that the fixed tenant of `stepwell dev` exists (protocol 1): account, environment, person.

    The caller commits. It has an event key, because pages show one, and no signing key: in dev mode nothing is signed.
    """
    await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
    actor = Actor("stepwell dev")
    await accounts.insert_account(conn, DEV_ACCOUNT_ID, name="Development", slug="dev")
    await accounts.insert_user(conn, DEV_USER_ID, email=DEV_EMAIL, name="Developer", password_hash=None, verified=True)
    await accounts.insert_membership(conn, DEV_ACCOUNT_ID, DEV_USER_ID, role="owner")
    if await accounts.insert_environment(conn, DEV_SCOPE, name="Development", slug="dev", kind="dev"):
        await keys.create_event_key(conn, sealer, DEV_SCOPE, actor, kind="dev")
    return DEV_SCOPE


def checked_email(email: str) -> str:
    """The address in the form it is stored. Raises `EmailInvalid`."""
    text = email.strip()
    local, _, domain = text.rpartition("@")
    if not local or not domain or not text.isprintable() or " " in text or len(text.encode()) > 320:
        raise EmailInvalid
    return text


async def _ensure_user(conn: Connection, passwords: Passwords, email: str, password: str) -> tuple[UserId, str]:
    """The person and their address as it was first written."""
    user = await accounts.find_user_by_email(conn, email)
    if user is None:
        user_id = UserId(uuid4())
        hashed = await passwords.hash(password)
        await accounts.insert_user(conn, user_id, email=email, name="", password_hash=hashed, verified=True)
        return user_id, email
    if not (await passwords.verify(password, user.password_hash)).right:
        await accounts.set_password_hash(conn, user.id, await passwords.hash(password), is_new_password=True)
        await sessions.delete_sessions_of(conn, user.id)
        for membership in await accounts.list_memberships(conn, user.id):
            await audit.insert_entry(conn, membership.account_id, _ACTOR, "password.changed", subject=str(user.id))
    return user.id, user.email


async def _ensure_account(conn: Connection, sealer: Sealer, user_id: UserId, name: str) -> accounts.Account:
    """The organization of that name: the person's own first, then any, else a new one."""
    for membership in await accounts.list_memberships(conn, user_id):
        if membership.account_name == checked_name(name):
            return accounts.Account(membership.account_id, membership.account_name, membership.account_slug)
    found = await accounts.find_account_by_slug(conn, slug_of(name))
    if found is not None:
        return found
    account, _ = await environments.create_account(conn, sealer, _ACTOR, name)
    return account


async def _ensure_membership(conn: Connection, account_id: AccountId, user_id: UserId) -> str:
    if await accounts.insert_membership(conn, account_id, user_id, role="owner"):
        await audit.insert_entry(conn, account_id, _ACTOR, "member.added", subject=str(user_id))
    return next(m.role for m in await accounts.list_memberships(conn, user_id) if m.account_id == account_id)


async def _ensure_environment(
    conn: Connection, sealer: Sealer, account_id: AccountId, name: str
) -> accounts.Environment:
    slug = slug_of(name)
    row = await accounts.find_environment(conn, account_id, slug)
    if row is None:
        await environments.create_environment(conn, sealer, account_id, _ACTOR, name=name)
        row = await accounts.find_environment(conn, account_id, slug)
    if row is None:
        raise Bug("An environment that was just made is not there.", account_id=account_id, slug=slug)
    return row


async def _ensure_keys(conn: Connection, sealer: Sealer, row: accounts.Environment) -> tuple[str, str]:
    """The oldest usable event key and the current signing key; made anew where none is left."""
    usable = [key for key in await key_rows.list_event_keys(conn, row.scope) if key.revoked_at is None]
    live = await key_rows.list_live_signing_keys(conn, row.id)
    event_key = (
        sealer.open(usable[0].sealed, row.scope)
        if usable
        else (await keys.create_event_key(conn, sealer, row.scope, _ACTOR, kind=row.kind)).secret
    )
    signing_key = (
        sealer.open(live[0].sealed, row.scope)
        if live
        else (await keys.create_signing_key(conn, sealer, row.scope, _ACTOR, kind=row.kind)).secret
    )
    return event_key, signing_key
