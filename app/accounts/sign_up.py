"""From a stranger to somebody with an organization: one person, one account, its production environment and keys.

Who may is a setting of the installation, `policy`: on one's own server the first visitor founds the organization and
the door closes behind them. There is no mail yet, so an address is believed; what that costs, and why known addresses
are told apart from new ones in `open` only, is in the decision record about signing up.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from app.accounts.bootstrap import LOCK, EmailInvalid, checked_email
from app.accounts.environments import NameInvalid, NewEnvironment, create_account, slug_of
from app.accounts.passwords import PasswordRefused, Passwords, check_password
from app.adapters.sealing import Sealer
from app.domain.ids import DEV_ACCOUNT_ID, UserId
from app.store import accounts, sessions
from app.store.audit import Actor
from app.store.db import Connection, Pool

OPEN, FIRST = "open", "first"
"""Policies: anybody may sign up; only while there is no account. Any other text closes the door."""
#: Sign-ups looked at from one network within the window; hashing passwords is dear, and so are lists of addresses.
MOST_PER_NETWORK = 10
WINDOW = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Founded:
    """The account is there; the person can sign in."""

    environment: NewEnvironment


@dataclass(frozen=True, slots=True)
class Faulty:
    """Fields that cannot be used: name of the field → sentence."""

    errors: dict[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody has the address. Whether it is the one who asks shows when they sign in with the password given."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Nobody may sign up here (any more)."""


@dataclass(frozen=True, slots=True)
class TooManySignUps:
    """Too many sign-ups from this network; the next one is looked at after `retry_after`."""

    retry_after: timedelta


async def is_open(pool: Pool, policy: str) -> bool:
    """Whether a stranger may sign up now. Needs the engine role: it counts the accounts of everybody."""
    if policy != FIRST:
        return policy == OPEN
    async with pool.acquire(timeout=2) as conn:
        return not await _has_accounts(conn)


async def sign_up(
    pool: Pool,
    sealer: Sealer,
    passwords: Passwords,
    policy: str,
    *,
    email: str,
    password: str,
    organization: str,
    network: str,
) -> Founded | Faulty | Known | Closed | TooManySignUps:
    """Make person, account, production environment and keys, all or nothing. Needs the engine role.

    No connection is held while the password is hashed, and it is hashed for known addresses too.
    """
    if not await is_open(pool, policy):
        return Closed()
    errors = faults(email=email, password=password, organization=organization)
    if errors:
        return Faulty(errors)
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        key = hashlib.sha256(f"sign up\n{network}".encode()).digest()
        tries = await sessions.count_try(conn, "network", key, window=WINDOW)
    if tries.count > MOST_PER_NETWORK:
        return TooManySignUps(tries.remaining)
    email, hashed = checked_email(email), await passwords.hash(password)
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        # Two who are the first at the same moment must not both be.
        await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
        if policy == FIRST and await _has_accounts(conn):
            return Closed()
        user_id = UserId(uuid4())
        if not await accounts.insert_user(conn, user_id, email=email, name="", password_hash=hashed, verified=True):
            return Known()
        account, environment = await create_account(conn, sealer, Actor(email, user_id, network), organization)
        await accounts.insert_membership(conn, account.id, user_id, role="owner")
    return Founded(environment)


def faults(*, email: str, password: str, organization: str) -> dict[str, str]:
    """What is wrong with the fields of the form, in the order they stand in it; {} when nothing is."""
    errors: dict[str, str] = {}
    try:
        checked_email(email)
    except EmailInvalid as refused:
        errors["email"] = refused.message if email.strip() else "Enter your e-mail address."
    try:
        check_password(password, email=email)
    except PasswordRefused as refused:
        errors["password"] = refused.message if password else "Enter a password of at least 12 characters."
    try:
        slug_of(organization)
    except NameInvalid as refused:
        errors["organization"] = refused.message if organization.strip() else "Enter the name of your organization."
    return errors


async def _has_accounts(conn: Connection) -> bool:
    return bool(await conn.fetchval("select exists (select from accounts where id <> $1)", DEV_ACCOUNT_ID))
