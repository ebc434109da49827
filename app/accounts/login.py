"""Sign in, stay signed in, sign out.

A session id is 256 random bits, known to the browser and stored hashed. The CSRF token is derived from it, so pages
can show the token without storing it, and it dies with the session.

Guessing is held back per address and per network. Attempts are counted before the password is looked at, whoever the
address belongs to. Somebody who fails on purpose for another person's address must not lock that person out:
attempts from a network where the person is signed in are counted apart.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address, ip_network

from app.accounts.passwords import Passwords
from app.domain.errors import Bug
from app.domain.ids import AccountId, UserId
from app.store import accounts, audit, sessions
from app.store.db import Connection, Pool

IDLE = timedelta(days=14)
"""A session that nobody used for this long is over."""
ABSOLUTE = timedelta(days=30)
"""No session lives longer."""
PROOF = timedelta(minutes=10)
"""How long a fresh login at a provider counts for deeds that ask others for their password."""
_AGENT_BYTES = 500


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """Login attempts allowed in a window (L12 of the limits)."""

    per_address: int = 5
    per_network: int = 30
    window: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. `csrf_token` is what their forms must bring."""

    user_id: UserId
    email: str
    name: str
    account_id: AccountId
    account_name: str
    role: str
    csrf_token: str
    notice: str = ""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The login worked: `session_id` is for the browser's cookie and is known nowhere else."""

    session_id: str
    user_id: UserId


@dataclass(frozen=True, slots=True)
class WrongLogin:
    """Address or password is wrong, or the address is not verified; nobody is told which."""


@dataclass(frozen=True, slots=True)
class TooManyTries:
    """Too many attempts for this address or from this network; the next one is looked at after `retry_after`."""

    retry_after: timedelta


async def sign_in(
    pool: Pool,
    passwords: Passwords,
    *,
    email: str,
    password: str,
    network: str,
    agent: str,
    limits: LoginLimits | None = None,
    ended_session: str | None = None,
) -> SignedIn | WrongLogin | TooManyTries:
    """Check a password and begin a new session; `ended_session` (the browser's former id) ends with it.

    `network` comes from `network_of`. No connection is held while the password is hashed.
    """
    limits = limits or LoginLimits()
    email = email.strip()
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        user = await accounts.find_user_by_email(conn, email)
        keys = await _counters(conn, user, email, network)
        by_address = await sessions.count_try(conn, "address", keys.address, window=limits.window)
        by_network = await sessions.count_try(conn, "network", keys.network, window=limits.window)
    waits = [
        tries.remaining
        for tries, most in ((by_address, limits.per_address), (by_network, limits.per_network))
        if tries.count > most
    ]
    if waits:
        return TooManyTries(max(waits))

    verdict = await passwords.verify(password, user.password_hash if user and user.is_verified else None)

    async with pool.acquire(timeout=2) as conn, conn.transaction():
        if user is None or not verdict.right:
            await _note_failure(conn, user, network)
            return WrongLogin()
        await sessions.forget_tries(conn, address=keys.address, network=keys.network)
        if verdict.new_hash is not None:
            await accounts.set_password_hash(conn, user.id, verdict.new_hash, is_new_password=False)
        membership = await home_of(conn, user.id)
        if membership is None:
            return WrongLogin()
        actor = audit.Actor(user.email, user.id, network)
        session_id = await begin_session(conn, actor, membership.account_id, agent=agent, ended_session=ended_session)
        return SignedIn(session_id, user.id)


async def begin_session(
    conn: Connection,
    actor: audit.Actor,
    account_id: AccountId,
    *,
    agent: str,
    ended_session: str | None = None,
    provider: str = "",
) -> str:
    """Sign in somebody whose right to it was just proven; gives the id for the browser's cookie. The caller commits.

    `provider` is the name of who proved it, for the log.
    """
    if actor.user_id is None:
        raise Bug("A session belongs to a person.", account_id=account_id)
    if ended_session is not None:
        await sessions.delete_session(conn, _hash(ended_session))
    session_id = secrets.token_urlsafe(32)
    await sessions.insert_session(
        conn,
        id_hash=_hash(session_id),
        csrf_hash=_hash(csrf_token_of(session_id)),
        user_id=actor.user_id,
        account_id=account_id,
        lasts=ABSOLUTE,
        network=actor.network,
        agent=_clipped(agent),
    )
    detail = {"provider": provider} if provider else None
    await audit.insert_entry(conn, account_id, actor, "session.started", detail=detail)
    return session_id


async def switch_account(conn: Connection, session_id: str, account_id: AccountId) -> str | None:
    """Look at another account from now on, under a new id; none when the session is over. The caller checks membership."""
    new_id = secrets.token_urlsafe(32)
    moved = await sessions.move_session(
        conn,
        _hash(session_id),
        new_id_hash=_hash(new_id),
        csrf_hash=_hash(csrf_token_of(new_id)),
        account_id=account_id,
    )
    return new_id if moved else None


async def prove(
    pool: Pool, passwords: Passwords, user_id: UserId, password: str, *, limits: LoginLimits | None = None
) -> bool | TooManyTries:
    """Check the password of somebody who is signed in, before a deed that a borrowed browser must not do."""
    limits = limits or LoginLimits()
    key = _hash(f"prove\n{user_id}")
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        tries = await sessions.count_try(conn, "address", key, window=limits.window)
        person = await accounts.find_person(conn, user_id)
    if tries.count > limits.per_address:
        return TooManyTries(tries.remaining)
    if not (await passwords.verify(password, person.password_hash)).right:
        return False
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        await sessions.forget_tries(conn, address=key, network=b"")
    return True


async def note_proof(conn: Connection, session_id: str) -> str | None:
    """Remember that the person of this session has proven themselves anew, under a new id; none when it is over."""
    new_id = secrets.token_urlsafe(32)
    new_hash, csrf_hash = _hash(new_id), _hash(csrf_token_of(new_id))
    return (
        new_id
        if await sessions.prove_session(conn, _hash(session_id), new_id_hash=new_hash, csrf_hash=csrf_hash)
        else None
    )


async def is_proven(pool: Pool, session_id: str) -> bool:
    """Whether the person of this session has proven themselves anew a moment ago."""
    async with pool.acquire(timeout=2) as conn:
        return await sessions.is_proven(conn, _hash(session_id), lasts=PROOF)


def handle_of(id_hash: bytes) -> str:
    """What a session is called in lists: says nothing about its id, not even to who reads the database."""
    return hashlib.sha256(b"handle" + id_hash).hexdigest()[:24]


def is_session(id_hash: bytes, session_id: str | None) -> bool:
    """Whether a listed session is the one with this id."""
    return session_id is not None and hmac.compare_digest(id_hash, _hash(session_id))


async def find_session(pool: Pool, session_id: str) -> Session | None:
    """Find who holds this session id; none when it is unknown, ended or idle for too long. Two queries."""
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        row = await sessions.find_session(conn, _hash(session_id), idle=IDLE)
    token = csrf_token_of(session_id)
    if row is None or not hmac.compare_digest(row.csrf_hash, _hash(token)):
        return None
    return Session(row.user_id, row.email, row.name, row.account_id, row.account_name, row.role, token, row.notice)


async def sign_out(pool: Pool, session_id: str, *, network: str = "") -> bool:
    """End a session; false when it was over already."""
    async with pool.acquire(timeout=2) as conn, conn.transaction():
        ended = await sessions.delete_session(conn, _hash(session_id))
        if ended is None:
            return False
        user_id, account_id = ended
        await _set_tenant(conn, user_id, account_id)
        await audit.insert_entry(conn, account_id, audit.Actor(str(user_id), user_id, network), "session.ended")
        return True


async def sign_out_everywhere(conn: Connection, user_id: UserId, *, but: str | None = None) -> int:
    """End all sessions of a person except the one with id `but`; says how many ended. The caller commits."""
    return await sessions.delete_sessions_of(conn, user_id, but=None if but is None else _hash(but))


def csrf_token_of(session_id: str) -> str:
    """The token that unsafe requests of this session must bring."""
    return hmac.new(session_id.encode(), b"stepwell csrf", hashlib.sha256).hexdigest()


def is_same_token(given: str, wanted: str) -> bool:
    """Compare in constant time, whatever was given; an empty token never matches."""
    return hmac.compare_digest(_hash(given), _hash(wanted)) and bool(wanted)


def network_of(address: str) -> str:
    """The network a client address counts for: one provider customer's worth (/24 of IPv4, /56 of IPv6)."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    return str(ip_network(f"{ip}/{24 if ip.version == 4 else 56}", strict=False))


@dataclass(frozen=True, slots=True)
class _Counters:
    address: bytes
    network: bytes


async def _counters(conn: Connection, user: accounts.User | None, email: str, network: str) -> _Counters:
    # Asked for unknown addresses too, so that they cost the same.
    known = await sessions.is_known_network(conn, user.id if user else None, network)
    subject = f"{email.lower()}\n{network}" if known else email.lower()
    return _Counters(_hash(subject), _hash(network))


async def home_of(conn: Connection, user_id: UserId) -> accounts.Membership | None:
    """The account a person lands in: their oldest. Leaves the transaction set to it."""
    await conn.execute("select set_config('app.user', $1, true)", str(user_id))
    memberships = await accounts.list_memberships(conn, user_id)
    if not memberships:
        return None
    await _set_tenant(conn, user_id, memberships[0].account_id)
    return memberships[0]


async def _set_tenant(conn: Connection, user_id: UserId, account_id: AccountId) -> None:
    await conn.execute(
        "select set_config('app.user', $1, true), set_config('app.account', $2, true)", str(user_id), str(account_id)
    )


async def _note_failure(conn: Connection, user: accounts.User | None, network: str) -> None:
    """Write the failed login of a real person to their account's log."""
    if user is None:
        return
    membership = await home_of(conn, user.id)
    if membership is not None:
        actor = audit.Actor("somebody", None, network)
        await audit.insert_entry(conn, membership.account_id, actor, "session.refused", subject=str(user.id))


def _clipped(agent: str) -> str:
    return agent.replace("\x00", "").encode()[:_AGENT_BYTES].decode(errors="ignore")


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
