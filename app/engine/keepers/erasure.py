"""Erases organizations whose time has come, in slices: nobody else may notice it (F22, I29).

    runs      a hundred at a time, locked, with everything that hangs on a run
    the rest  every table that names an account, found in the catalogue, so that a new table cannot be forgotten
    the end   when a whole pass has found nothing, and another a minute later: people, environments, the account itself

Kept: the audit log, and invoices, as bookkeeping demands. What is paid for is not erased before the subscription is over.
Whatever a worker still had in its hands finds its run gone, as if somebody else had been first; what
it wrote a moment too late is found by the next pass.
"""

import logging
import time
from datetime import timedelta
from uuid import UUID

import asyncpg

from app.domain.ids import AccountId
from app.store import audit
from app.store.db import Connection, Pool

log = logging.getLogger(__name__)

#: Runs, and rows of other kinds, that go in one transaction.
_RUNS, _ROWS = 100, 1000
#: Seconds one call may go on; the next one carries on where this one left off.
SPEND_S = 60.0
#: Seconds a statement may take: where no index leads to an account, a table is read once.
_LONG_S = 60
#: How long nothing must have been found before the last rows go.
QUIET = timedelta(seconds=60)
_LOCK = 0x4552_4153
#: With a run go its rows in these, all found by its id.
_OF_RUNS = ("items", "pauses", "slots", "steps", "history", "run_events", "defers", "gateway_calls")
#: Of these no index leads to an account, and they are the largest: their rows are written under a lock on their run, so none
#: is left without it.
_BY_RUN_ONLY = ("steps", "history")
#: Kept for good, and what goes last, together.
_KEPT, _LAST = ("audit_log", "billing_invoices"), ("memberships", "sessions", "invitations", "environments")

_DUE = """a.erases_at <= clock() and not exists (select from billing_accounts b where b.account_id = a.id
  and b.status not in ('none', 'canceled', 'incomplete_expired'))"""
_TABLES = """
select c.oid::regclass::text as name,
  exists (select from pg_attribute e where e.attrelid = c.oid and e.attname = 'environment_id' and e.attnotnull and not e.attisdropped) as in_environment
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'account_id' and not a.attisdropped
where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and not c.relname = any($1::text[])
  and not exists (select from pg_inherits i join pg_class p on p.oid = i.inhparent where i.inhrelid = c.oid and p.relname = any($2::text[]))
order by c.relname
"""


async def run_once(pool: Pool, *, quiet: timedelta = QUIET, spend_s: float = SPEND_S) -> int:
    """Erase for a while; returns how many rows went. One keeper at a time; while another is at it, nothing happens."""
    async with pool.acquire(timeout=10) as connection:
        if not await connection.fetchval(f"select exists (select from accounts a where {_DUE})"):
            return 0
        if not await connection.fetchval("select pg_try_advisory_lock($1)", _LOCK):
            return 0
        try:
            await connection.execute(f"set statement_timeout = '{_LONG_S}s'")
            return await _all(connection, quiet, time.monotonic() + spend_s)
        finally:
            await connection.execute("reset statement_timeout")
            await connection.fetchval("select pg_advisory_unlock($1)", _LOCK)


async def _all(connection: Connection, quiet: timedelta, until: float) -> int:
    gone = 0
    ending = await connection.fetch(f"select a.id from accounts a where {_DUE} order by a.erases_at, a.id limit 100")
    for row in ending:
        if time.monotonic() > until:
            break
        try:
            gone += await _erase(connection, row["id"], quiet, until)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            # A worker was at the same rows. It goes first.
            log.warning("rows to erase are in use; they go later", extra={"account_id": str(row["id"])})
    return gone


async def _erase(connection: Connection, account: UUID, quiet: timedelta, until: float) -> int:
    # From here on it cannot be kept any more; whoever kept it a moment ago was first.
    begun = await connection.fetchrow(
        "update accounts a set erasing_since = coalesce(a.erasing_since, clock())"
        f" where a.id = $1 and (a.erasing_since is not null or {_DUE}) returning a.erasing_since",
        account,
    )
    if begun is None:
        return 0
    environments = [
        row["id"] for row in await connection.fetch("select id from environments where account_id = $1", account)
    ]
    gone = await _runs(connection, account, environments, until)
    names = [*_KEPT, *_LAST, "runs"]
    for table in await connection.fetch(_TABLES, names, list(_BY_RUN_ONLY)):
        gone += await _rows(connection, table, account, environments, until)
    is_through = time.monotonic() <= until
    if gone or not is_through:
        await connection.execute("update accounts set empty_since = null where id = $1", account)
    elif await connection.fetchval(
        "update accounts set empty_since = coalesce(empty_since, clock()) where id = $1"
        " returning empty_since <= clock() - $2::interval",
        account,
        quiet,
    ):
        await _end(connection, account)
    return gone


async def _runs(connection: Connection, account: UUID, environments: list[UUID], until: float) -> int:
    """Runs with what hangs on them. Locked first: a commit that is under way is waited for, one that comes finds nothing."""
    gone = 0
    for environment in environments:
        while time.monotonic() <= until:
            async with connection.transaction():
                rows = await connection.fetch(
                    "select id from runs where environment_id = $1 and account_id = $2 order by id limit $3 for update",
                    environment,
                    account,
                    _RUNS,
                )
                ids = [row["id"] for row in rows]
                size = 0
                for table in _OF_RUNS:
                    size += await _delete(connection, f"delete from {table} where run_id = any($1::uuid[])", ids)
                size += await _delete(connection, "delete from runs where id = any($1::uuid[])", ids)
                await _note(connection, account, size)
            gone += size
            if len(rows) < _RUNS:
                break
    return gone


async def _rows(
    connection: Connection, table: dict[str, object], account: UUID, environments: list[UUID], until: float
) -> int:
    """Everything of an account in one table. Names come from the catalogue, quoted by it."""
    # Most indexes begin with the environment, none of the large ones with the account.
    where = "account_id = $1 and environment_id = any($2::uuid[])" if table["in_environment"] else "account_id = $1"
    arguments = [account, environments] if table["in_environment"] else [account]
    statement = f"delete from {table['name']} where ctid = any(array(select ctid from {table['name']} where {where} limit {_ROWS}))"
    gone = 0
    while time.monotonic() <= until:
        async with connection.transaction():
            size = await _delete(connection, statement, *arguments)
            if size:
                await _note(connection, account, size)
        gone += size
        if size < _ROWS:
            break
    return gone


async def _note(connection: Connection, account: UUID, rows: int) -> None:
    await connection.execute("update accounts set erased_rows = erased_rows + $2 where id = $1", account, rows)


async def _end(connection: Connection, account: UUID) -> None:
    """The last rows, together with a line in the log that they are gone."""
    async with connection.transaction():
        rows = await connection.fetchval("select erased_rows from accounts where id = $1 for update", account)
        for table in _LAST:
            await connection.execute(f"delete from {table} where account_id = $1", account)
        await connection.execute("delete from accounts where id = $1", account)
        await audit.insert_entry(
            connection, AccountId(account), audit.Actor("stepwell"), "account.erased", detail={"rows": rows}
        )
    log.info("an organization is erased", extra={"account_id": str(account), "rows": rows})


async def _delete(connection: Connection, statement: str, *arguments: object) -> int:
    """How many rows went: the number in what Postgres answers, such as `DELETE 7`."""
    tag: str = await connection.execute(statement, *arguments, timeout=_LONG_S)
    return int(tag.rpartition(" ")[2])
