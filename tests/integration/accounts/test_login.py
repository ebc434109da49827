"""Sign in, stay signed in, sign out, and be held back when guessing."""

import asyncio
import hashlib
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from pwdlib.hashers.argon2 import Argon2Hasher

from app.accounts.login import (
    ABSOLUTE,
    IDLE,
    LoginLimits,
    Session,
    SignedIn,
    TooManyTries,
    WrongLogin,
    csrf_token_of,
    find_session,
    sign_in,
    sign_out,
)
from app.domain.ids import UserId
from app.store import accounts, sessions
from app.store.db import Pool
from tests.integration.accounts.world import PASSWORD, CountingPasswords, new_tenant

HOME, CAFE = "192.0.2.0/24", "198.51.100.0/24"


def a_network() -> str:
    """A network nobody has used before."""
    return f"network {uuid4().hex}"


async def a_login(
    pool: Pool,
    passwords: CountingPasswords,
    email: str,
    password: str = PASSWORD,
    *,
    network: str | None = None,
    limits: LoginLimits | None = None,
    ended_session: str | None = None,
) -> SignedIn | WrongLogin | TooManyTries:
    """Try to sign in, from a new network unless told otherwise."""
    return await sign_in(
        pool,
        passwords,
        email=email,
        password=password,
        network=network or a_network(),
        agent="a browser",
        limits=limits,
        ended_session=ended_session,
    )


async def signed_in(pool: Pool, passwords: CountingPasswords, email: str, network: str | None = None) -> str:
    """Sign in and give the session id."""
    outcome = await a_login(pool, passwords, email, network=network)
    assert isinstance(outcome, SignedIn)
    return outcome.session_id


async def age(pool: Pool, session_id: str, column: str, by: timedelta) -> None:
    """Move a time of a session into the past."""
    await pool.execute(
        f"update sessions set {column} = {column} - $2::interval where id_hash = $1",
        hashlib.sha256(session_id.encode()).digest(),
        by,
    )


async def test_a_session_tells_who_is_signed_in(database: str, page_pool: Pool, passwords: CountingPasswords) -> None:
    made = await new_tenant(database)
    await new_tenant(database)
    session_id = await signed_in(page_pool, passwords, made["user"].upper())
    session = await find_session(page_pool, session_id)
    assert isinstance(session, Session)
    assert (session.email, session.account_name, session.role) == (made["user"], made["organization"], "owner")
    assert str(session.account_id) == made["organization_id"]
    assert session.csrf_token == csrf_token_of(session_id)


async def test_session_ids_are_256_bits_and_stored_hashed(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    session_id = await signed_in(page_pool, passwords, made["user"])
    assert len(session_id) == 43
    stored = await page_pool.fetchval(
        "select id_hash from sessions where id_hash = $1", hashlib.sha256(session_id.encode()).digest()
    )
    assert stored is not None


async def test_signing_in_again_gives_a_new_id_and_ends_the_old_one(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    old = await signed_in(page_pool, passwords, made["user"])
    outcome = await a_login(page_pool, passwords, made["user"], ended_session=old)
    assert isinstance(outcome, SignedIn)
    assert outcome.session_id != old
    assert await find_session(page_pool, old) is None


async def test_a_planted_session_id_is_never_taken_over(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    outcome = await a_login(page_pool, passwords, made["user"], ended_session="planted by somebody else")
    assert isinstance(outcome, SignedIn)
    assert outcome.session_id != "planted by somebody else"
    assert await find_session(page_pool, "planted by somebody else") is None


async def test_signing_out_ends_the_session_once(database: str, page_pool: Pool, passwords: CountingPasswords) -> None:
    made = await new_tenant(database)
    session_id = await signed_in(page_pool, passwords, made["user"])
    assert await sign_out(page_pool, session_id)
    assert await find_session(page_pool, session_id) is None
    assert not await sign_out(page_pool, session_id)


@pytest.mark.parametrize(("column", "life"), [("seen_at", IDLE), ("expires_at", ABSOLUTE)])
async def test_a_session_ends_when_idle_or_old(
    database: str, page_pool: Pool, passwords: CountingPasswords, column: str, life: timedelta
) -> None:
    made = await new_tenant(database)
    session_id = await signed_in(page_pool, passwords, made["user"])
    await age(page_pool, session_id, column, life - timedelta(minutes=2))
    assert await find_session(page_pool, session_id) is not None
    await age(page_pool, session_id, column, life + timedelta(minutes=1))
    assert await find_session(page_pool, session_id) is None


async def test_use_is_noted_at_most_once_a_minute(database: str, page_pool: Pool, passwords: CountingPasswords) -> None:
    made = await new_tenant(database)
    session_id = await signed_in(page_pool, passwords, made["user"])
    seen = "select seen_at, xmin::text from sessions where id_hash = $1"
    id_hash = hashlib.sha256(session_id.encode()).digest()
    first = await page_pool.fetchrow(seen, id_hash)
    await find_session(page_pool, session_id)
    assert await page_pool.fetchrow(seen, id_hash) == first
    await age(page_pool, session_id, "seen_at", timedelta(seconds=61))
    await find_session(page_pool, session_id)
    assert (await page_pool.fetchrow(seen, id_hash))["seen_at"] > first["seen_at"]


async def test_a_session_ends_with_the_membership(
    database: str, page_pool: Pool, engine_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    session_id = await signed_in(page_pool, passwords, made["user"])
    await engine_pool.execute("delete from memberships where user_id::text = $1", made["user_id"])
    assert await find_session(page_pool, session_id) is None


async def test_unknown_wrong_and_unverified_cost_the_same_work(
    database: str, page_pool: Pool, engine_pool: Pool, passwords: CountingPasswords
) -> None:
    made, unverified = await new_tenant(database), await new_tenant(database)
    await engine_pool.execute("update users set verified_at = null where id::text = $1", unverified["user_id"])
    tries = [
        ("nobody@example.com", PASSWORD),
        (made["user"], "not the password"),
        (unverified["user"], PASSWORD),
        (made["user"], "x" * 5000),
    ]
    for number, (email, password) in enumerate(tries, start=1):
        assert await a_login(page_pool, passwords, email, password) == WrongLogin()
        assert passwords.verifications == number


async def test_the_sixth_try_for_an_address_is_held_back_whether_it_exists_or_not(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    for email in (made["user"], "nobody-at-all@example.com"):
        passwords.verifications = 0
        for _ in range(5):
            assert await a_login(page_pool, passwords, email, "wrong") == WrongLogin()
        held_back = await a_login(page_pool, passwords, email, PASSWORD)
        assert isinstance(held_back, TooManyTries)
        assert timedelta(minutes=14) < held_back.retry_after <= timedelta(minutes=15)
        assert passwords.verifications == 5


async def test_tries_at_the_same_moment_cannot_slip_through(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    outcomes = await asyncio.gather(*(a_login(page_pool, passwords, made["user"], "wrong") for _ in range(12)))
    assert passwords.verifications == 5
    assert sum(isinstance(outcome, TooManyTries) for outcome in outcomes) == 7


async def test_a_network_is_held_back_whatever_addresses_it_tries(
    page_pool: Pool, passwords: CountingPasswords
) -> None:
    network, limits = a_network(), LoginLimits(per_network=3)
    for number in range(3):
        tried = await a_login(page_pool, passwords, f"{number}@example.org", network=network, limits=limits)
        assert tried == WrongLogin()
    held_back = await a_login(page_pool, passwords, "another@example.org", network=network, limits=limits)
    assert isinstance(held_back, TooManyTries)
    assert await a_login(page_pool, passwords, "another@example.org", limits=limits) == WrongLogin()


async def test_the_window_passes(database: str, page_pool: Pool, passwords: CountingPasswords) -> None:
    made = await new_tenant(database)
    for _ in range(6):
        await a_login(page_pool, passwords, made["user"], "wrong")
    await page_pool.execute("update login_attempts set window_start = window_start - interval '15 minutes 1 second'")
    assert isinstance(await a_login(page_pool, passwords, made["user"]), SignedIn)


async def test_success_clears_the_address(database: str, page_pool: Pool, passwords: CountingPasswords) -> None:
    made = await new_tenant(database)
    for _ in range(2):
        for _ in range(4):
            assert await a_login(page_pool, passwords, made["user"], "wrong") == WrongLogin()
        assert isinstance(await a_login(page_pool, passwords, made["user"]), SignedIn)


async def test_strangers_cannot_lock_a_person_out_of_where_they_are_signed_in(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made, home = await new_tenant(database), a_network()
    await signed_in(page_pool, passwords, made["user"], network=home)
    for _ in range(6):
        await a_login(page_pool, passwords, made["user"], "wrong")
    assert isinstance(await a_login(page_pool, passwords, made["user"]), TooManyTries)
    assert isinstance(await a_login(page_pool, passwords, made["user"], network=home), SignedIn)


async def test_logins_and_failures_are_audited(
    database: str, page_pool: Pool, engine_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    await a_login(page_pool, passwords, made["user"], "wrong", network=CAFE)
    session_id = await signed_in(page_pool, passwords, made["user"], network=HOME)
    await sign_out(page_pool, session_id, network=HOME)
    rows = await engine_pool.fetch(
        "select action, network from audit_log where account_id::text = $1 and action like 'session.%' order by at",
        made["organization_id"],
    )
    assert [tuple(row) for row in rows] == [
        ("session.refused", CAFE),
        ("session.started", HOME),
        ("session.ended", HOME),
    ]


async def test_ended_sessions_and_old_counters_are_swept(
    database: str, page_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    ended, alive = [await signed_in(page_pool, passwords, made["user"]) for _ in range(2)]
    await age(page_pool, ended, "expires_at", ABSOLUTE + timedelta(minutes=1))
    await page_pool.execute("update login_attempts set window_start = window_start - interval '1 hour'")
    async with page_pool.acquire() as conn:
        assert await sessions.delete_expired(conn, idle=IDLE, window=timedelta(minutes=15)) > 1
    assert await page_pool.fetchval("select count(*) from login_attempts") == 0
    assert await find_session(page_pool, alive) is not None


async def test_a_hash_with_weaker_parameters_is_renewed_at_login(
    database: str, page_pool: Pool, engine_pool: Pool, passwords: CountingPasswords
) -> None:
    made = await new_tenant(database)
    weaker = "$argon2id$v=19$m=8,t=1,p=1$"
    async with engine_pool.acquire() as conn:
        hashed = Argon2Hasher(memory_cost=8, time_cost=1, parallelism=1).hash(PASSWORD)
        assert hashed.startswith(weaker)
        await accounts.set_password_hash(conn, UserId(UUID(made["user_id"])), hashed, is_new_password=False)
    await a_login(page_pool, passwords, made["user"])
    stored = await engine_pool.fetchval("select password_hash from users where id::text = $1", made["user_id"])
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert isinstance(await a_login(page_pool, passwords, made["user"]), SignedIn)
