"""From a stranger to somebody with an organization: one person, one account, its production environment and keys.

Who may is a setting of the installation, `policy`: on one's own server the first visitor founds the organization and
the door closes behind them. Where the door is open and there is mail, nothing is made before the address is proven:

    sign_up()   → Sent       known and new addresses get the same answer, and a letter each
    finish()    → Founded    the link in the letter was followed

Without mail an address is believed; what that costs is in the decision record about signing up.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from app.accounts import letters, outbox
from app.accounts.bootstrap import LOCK, EmailInvalid, checked_email
from app.accounts.environments import NameInvalid, NewEnvironment, create_account, slug_of
from app.accounts.passwords import PasswordRefused, Passwords, check_password
from app.accounts.recovery import LASTS, LinkOver, hash_of_token, new_token
from app.adapters.sealing import Sealer
from app.domain.ids import DEV_ACCOUNT_ID, UserId
from app.store import accounts, mails, sessions
from app.store.audit import Actor
from app.store.db import Connection, Pool

OPEN, FIRST = "open", "first"
"""Policies: anybody may sign up; only while there is no account. Any other text closes the door."""
#: Sign-ups looked at from one network within the window; hashing passwords is dear, and so are lists of addresses.
MOST_PER_NETWORK = 10
#: Letters to one address within the window.
MOST_PER_ADDRESS = 3
PURPOSE = "sign_up"
WINDOW = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Founded:
    """The account is there; the person can sign in."""

    environment: NewEnvironment
    user_id: UserId
    email: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A letter is on its way, to known and to new addresses alike."""


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
        return await is_open_now(conn, policy)


async def is_open_now(conn: Connection, policy: str) -> bool:
    """As `is_open`, inside a transaction that holds `bootstrap.LOCK`."""
    return policy == OPEN or (policy == FIRST and not await _has_accounts(conn))


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
    base_url: str = "",
    sends_mail: bool = False,
) -> Founded | Sent | Faulty | Known | Closed | TooManySignUps:
    """Make person, account, production environment and keys, all or nothing. Needs the engine role.

    With mail and an open door, write a letter instead. No connection is held while the password is hashed, and it is
    hashed for known addresses too.
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
    if policy == OPEN and sends_mail:
        detail = {"password_hash": hashed, "organization": organization}
        return await _write_letter(pool, sealer, base_url, email, detail)
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        # Two who are the first at the same moment must not both be.
        await conn.execute("select pg_advisory_xact_lock($1)", LOCK)
        if policy == FIRST and await _has_accounts(conn):
            return Closed()
        return await _found(conn, sealer, email, hashed, organization, network) or Known()


async def find_sign_up(pool: Pool, token: str) -> str | None:
    """Whose address a link proves; none when it is over. Uses nothing up. Needs the engine role."""
    async with pool.acquire(timeout=2) as conn:
        link = await mails.find_link(conn, hash_of_token(token), PURPOSE)
    return link.email if link else None


async def finish(pool: Pool, sealer: Sealer, *, token: str, network: str) -> Founded | LinkOver:
    """Make what the sign-up asked for, now that the address is proven. Needs the engine role."""
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        link = await mails.use_link(conn, hash_of_token(token), PURPOSE)
        if link is None or link.detail is None:
            return LinkOver()
        detail = outbox.open_detail(sealer, link.detail)
        made = await _found(conn, sealer, link.email, detail["password_hash"], detail["organization"], network)
        return made or LinkOver()


async def _write_letter(pool: Pool, sealer: Sealer, base_url: str, email: str, detail: dict[str, str]) -> Sent:
    """A link for a new address, a notice for a known one: the same rows for both."""
    token = new_token()
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        key = hashlib.sha256(f"sign up address\n{email.lower()}".encode()).digest()
        tries = await sessions.count_try(conn, "address", key, window=WINDOW)
        user = await accounts.find_user_by_email(conn, email)
        await mails.insert_link(
            conn,
            token_hash=hash_of_token(token),
            purpose=PURPOSE,
            email=email,
            user_id=None,
            lasts=LASTS,
            detail=None if user else outbox.seal_detail(sealer, detail),
        )
        letter = (
            letters.known_already(user.email, base_url) if user else letters.confirm_sign_up(email, base_url, token)
        )
        await outbox.put(conn, sealer, letter, PURPOSE, is_wanted=tries.count <= MOST_PER_ADDRESS)
    return Sent()


async def _found(
    conn: Connection, sealer: Sealer, email: str, password_hash: str, organization: str, network: str
) -> Founded | None:
    """Person, account, environment and keys; none when somebody has the address. The caller commits."""
    user_id = UserId(uuid4())
    if not await accounts.insert_user(conn, user_id, email=email, name="", password_hash=password_hash, verified=True):
        return None
    account, environment = await create_account(conn, sealer, Actor(email, user_id, network), organization)
    await accounts.insert_membership(conn, account.id, user_id, role="owner")
    return Founded(environment, user_id, email)


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
