"""A forgotten password: a link goes to the address, works once within an hour, and ends every session.

Whoever asks learns nothing: known and unknown addresses get the same answer for the same work.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from app.accounts import letters, outbox
from app.accounts.bootstrap import EmailInvalid, checked_email
from app.accounts.passwords import PasswordRefused, Passwords, check_password
from app.adapters.sealing import Sealer
from app.domain.ids import UserId
from app.store import accounts, audit, mails, sessions
from app.store.audit import Actor
from app.store.db import Connection, Pool

LASTS = timedelta(hours=1)
"""Life of a link that resets a password or ends a sign-up."""
WINDOW = timedelta(minutes=15)
#: Links mailed to one address, and asked for from one network, within the window.
MOST_PER_ADDRESS, MOST_PER_NETWORK = 3, 10
PURPOSE = "reset"


@dataclass(frozen=True, slots=True)
class Asked:
    """If there is such an account, a mail is on its way."""


@dataclass(frozen=True, slots=True)
class BadAddress:
    """That is not an address at all: `sentence` says so."""

    sentence: str


@dataclass(frozen=True, slots=True)
class AskedTooOften:
    """Too many requests from this network; the next one is looked at after `retry_after`."""

    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class Changed:
    """The password is new and all sessions are over."""


@dataclass(frozen=True, slots=True)
class LinkOver:
    """The link was used, has expired, or never was."""


@dataclass(frozen=True, slots=True)
class BadPassword:
    """The new password cannot be used: `sentence` says why. The link stays good."""

    sentence: str


def new_token() -> str:
    """The secret part of a link: 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_of_token(token: str) -> bytes:
    """What a link is stored as and found by."""
    return hashlib.sha256(b"link\n" + token.encode(errors="surrogatepass")).digest()


async def ask_for_reset(
    pool: Pool, sealer: Sealer, base_url: str, *, email: str, network: str
) -> Asked | BadAddress | AskedTooOften:
    """Mail a link to whoever has this address. Needs the engine role."""
    try:
        email = checked_email(email)
    except EmailInvalid as refused:
        return BadAddress(refused.message if email.strip() else "Enter your e-mail address.")
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        tries = await sessions.count_try(conn, "network", _key("network", network), window=WINDOW)
        if tries.count > MOST_PER_NETWORK:
            return AskedTooOften(tries.remaining)
        to_address = await sessions.count_try(conn, "address", _key("address", email.lower()), window=WINDOW)
        user = await accounts.find_user_by_email(conn, email)
        is_wanted = user is not None and to_address.count <= MOST_PER_ADDRESS
        token, to = new_token(), user.email if user is not None else email
        # The same rows are written for an address nobody has: its link opens nothing, its letter goes nowhere.
        await mails.insert_link(
            conn,
            token_hash=hash_of_token(token),
            purpose=PURPOSE,
            email=to,
            user_id=user.id if user is not None and is_wanted else None,
            lasts=LASTS,
        )
        await outbox.put(conn, sealer, letters.reset_password(to, base_url, token), PURPOSE, is_wanted=is_wanted)
        if user is not None and is_wanted:
            await note_everywhere(conn, user.id, Actor("somebody", None, network), "password.reset_asked")
    return Asked()


async def find_reset(pool: Pool, token: str) -> str | None:
    """Whose password a link resets (an address); none when it is over. Uses nothing up. Needs the engine role."""
    async with pool.acquire(timeout=2) as conn:
        link = await mails.find_link(conn, hash_of_token(token), PURPOSE)
    return link.email if link else None


async def reset(
    pool: Pool, sealer: Sealer, passwords: Passwords, base_url: str, *, token: str, password: str, network: str
) -> Changed | LinkOver | BadPassword:
    """Set the password, end all sessions and links, and tell the person. Needs the engine role."""
    email = await find_reset(pool, token)
    if email is None:
        return LinkOver()
    try:
        check_password(password, email=email)
    except PasswordRefused as refused:
        return BadPassword(refused.message if password else "Enter a password of at least 12 characters.")
    hashed = await passwords.hash(password)
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        link = await mails.use_link(conn, hash_of_token(token), PURPOSE)
        if link is None or link.user_id is None:
            return LinkOver()
        await accounts.set_password_hash(conn, link.user_id, hashed, is_new_password=True)
        await sessions.delete_sessions_of(conn, link.user_id)
        await mails.delete_links_of(conn, link.user_id)
        await outbox.put(conn, sealer, letters.password_changed(link.email, base_url), "password_changed")
        await note_everywhere(conn, link.user_id, Actor(link.email, link.user_id, network), "password.reset")
    return Changed()


async def note_everywhere(
    conn: Connection, user_id: UserId, actor: Actor, action: str, *, detail: dict[str, str] | None = None
) -> None:
    """Note what happened to a person in the log of every account they are in. Needs the engine role."""
    for membership in await accounts.list_memberships(conn, user_id):
        await audit.insert_entry(conn, membership.account_id, actor, action, subject=str(user_id), detail=detail)


def _key(kind: str, text: str) -> bytes:
    return hashlib.sha256(f"reset {kind}\n{text}".encode(errors="surrogatepass")).digest()
