"""Pools, roles and transactions. Four kinds of pool, so that one kind of work cannot starve another (F9, F10)."""

import asyncio
import functools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from app.domain.ids import AccountId, UserId

#: asyncpg's classes are generic only in its stubs.
Pool = Any
Connection = Any

#: The two roles of migrations/sql/0001_first.sql.
ENGINE_ROLE = "stepwell_engine"
APP_ROLE = "stepwell_app"

#: Plans of hot statements are made once: every one of them is driven by arrays of ids and must use indexes, whatever
#: the statistics of a young table say. A custom plan per call would cost more than the statement.
_ENGINE_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


async def open_engine_pool(database_url: str, *, size: int = 4, statement_timeout_ms: int = 5000) -> Pool:
    """A pool that sees every tenant; its statements must carry account and environment themselves (rule 8)."""
    return await _open(database_url, ENGINE_ROLE, size, statement_timeout_ms, _ENGINE_PLANS)


async def open_page_pool(database_url: str, *, size: int = 6, statement_timeout_ms: int = 5000) -> Pool:
    """A pool under row-level security: without `tenant()` around it, it sees nothing (I24)."""
    return await _open(database_url, APP_ROLE, size, statement_timeout_ms, {"jit": "off"})


async def _open(url: str, role: str, size: int, statement_timeout_ms: int, more: dict[str, str]) -> Pool:
    return await asyncpg.create_pool(
        url,
        min_size=min(2, size),
        max_size=size,
        timeout=10,
        command_timeout=max(10.0, statement_timeout_ms / 1000 * 2),
        max_inactive_connection_lifetime=300,
        server_settings={
            "application_name": f"stepwell {role.removeprefix('stepwell_')}",
            "role": role,
            "timezone": "UTC",
            "statement_timeout": str(statement_timeout_ms),
            "lock_timeout": "2000",
            "idle_in_transaction_session_timeout": "10000",
            **more,
        },
        reset=_keep,
    )


async def _keep(_connection: object) -> None:
    """No RESET ALL between uses: nothing sets session state (tenants are set per transaction), and it costs a trip."""


@asynccontextmanager
async def tenant(pool: Pool, account_id: AccountId, user_id: UserId | None = None) -> AsyncIterator[Connection]:
    """A transaction of one account under row-level security; commits at the end, rolls back on an exception."""
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        await connection.execute(
            "select set_config('app.account', $1, true), set_config('app.user', $2, true)",
            str(account_id),
            str(user_id or ""),
        )
        yield connection


@functools.cache
def statements(name: str) -> dict[str, str]:
    """The statements of `sql/{name}.sql`: each begins with `-- name: <word>` and a sentence of purpose."""
    text = (Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {parts[i]: parts[i + 1].strip().rstrip(";") for i in range(1, len(parts), 2)}


#: What asyncpg raises when the database is not well: the outcome of a commit is unknown (G11), and it is worth asking again.
CONNECTION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # The driver was told of the end and asked for more before the connection was gone.
    asyncpg.InternalClientError,
    ConnectionError,
    OSError,
    asyncio.TimeoutError,
    # The server stops, crashed, starts, has no room, may not write, or threw out a session that slept too long: not the
    # statement's fault, and the same statement works once the server is well.
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
