"""`stepwell backup` and `stepwell restore`: the whole truth into one file, and back into an empty database.

The programs are Postgres's own, from the embedded server's package. The file holds every table; it does not hold the secret
key, without which stored keys cannot be opened, nor anything of Redis, which holds no truth. The two database roles belong
to the server and not to the database, so `restore` makes them first. What to do when: docs/operations.md.
"""

import asyncio
import importlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import click

from app.adapters.sealing import CannotOpen, Sealer
from app.cli.database import Target, find_target, upgrade
from app.cli.house import PLACEHOLDERS
from app.config import load
from app.domain.ids import AccountId, EnvironmentId
from app.domain.scope import Scope
from app.supervise.programs import postgres_bin
from app.supervise.state import State

#: Sealed keys that are tried after a restore: one is enough to know, a few cost nothing.
_TRIED = 20
_ROLES = """
do $$ begin
  begin create role stepwell_app nologin; exception when duplicate_object or unique_violation then null; end;
  begin create role stepwell_engine nologin; exception when duplicate_object or unique_violation then null; end;
  execute format('grant stepwell_app, stepwell_engine to %I', current_user);
end $$
"""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Write everything at DATABASE_URL, or in the embedded database, into FILE; Stepwell may be running."""
    if file.exists():
        raise click.ClickException(f"{file} is there already; name a new file.")
    with _database() as target:
        size = back_up(target.database_url, file)
    click.echo(f"wrote {file} ({size} bytes). The secret key is not in it: keep STEPWELL_SECRET_KEY apart from it.")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(file: Path) -> None:
    """Read FILE into the empty database at DATABASE_URL, or into an embedded one that is new; stop Stepwell before."""
    with _database(is_new=True) as target:
        put_back(target.database_url, file)
        closed = asyncio.run(count_closed(target.database_url, target.secret_key))
    if closed:
        raise click.ClickException(
            "the database is restored, but its keys do not open: they were sealed with another STEPWELL_SECRET_KEY."
            " Set the one of the installation the backup is from."
        )
    click.echo("restored; start Stepwell, and what was waiting goes on")


def back_up(database_url: str, file: Path) -> int:
    """Dump a database in one consistent moment; returns the size of the file in bytes."""
    part = file.with_name(file.name + ".part")
    part.touch(mode=0o600)
    try:
        options = asyncio.run(_options(database_url))
        _run("pg_dump", database_url, ["--format=custom", "--no-owner", *options, "--file", os.fspath(part)])
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def put_back(database_url: str, file: Path) -> None:
    """Fill an empty database, all or nothing, and bring its schema to this version."""
    asyncio.run(_prepare(database_url))
    _run("pg_restore", database_url, ["--no-owner", "--exit-on-error", "--single-transaction", os.fspath(file.absolute())], "-d")  # fmt: skip
    upgrade(database_url)


async def count_closed(database_url: str, secret_key: str) -> int:
    """How many of a few stored keys do not open with this secret key."""
    sealer = Sealer(secret_key)
    connection = await _connect(database_url)
    try:
        rows = await connection.fetch(
            "select account_id, environment_id, secret_sealed from signing_keys union all"
            " select account_id, environment_id, secret_sealed from event_keys limit $1",
            _TRIED,
        )
    finally:
        await connection.close()
    closed = 0
    for row in rows:
        try:
            sealer.open(row["secret_sealed"], Scope(AccountId(row["account_id"]), EnvironmentId(row["environment_id"])))
        except CannotOpen:
            closed += 1
    return closed


@contextmanager
def _database(*, is_new: bool = False) -> Iterator[Target]:
    """The database meant: a given one as it is, else the embedded one."""
    given = {key: value for key, value in os.environ.items() if value.strip()}
    if "DATABASE_URL" in given:
        settings = load({**PLACEHOLDERS, **given})
        yield Target(settings.database_url, settings.secret_key, settings.base_url)
        return
    with find_target(migrates=not is_new) as target:
        yield target


async def _options(database_url: str) -> list[str]:
    """What pg_dump needs to see every row: an owner under row-level security sees them as the engine does, or not at all."""
    connection = await _connect(database_url)
    try:
        row = await connection.fetchrow(
            "select rolsuper or rolbypassrls as passes, to_regrole('stepwell_engine') is not null"
            " and pg_has_role(current_user, to_regrole('stepwell_engine'), 'usage') as is_engine,"
            " to_regclass('accounts') is null as is_empty from pg_roles where rolname = current_user"
        )
    finally:
        await connection.close()
    if row["is_empty"]:
        raise click.ClickException("there is no Stepwell in this database.")
    if row["passes"]:
        return []
    if not row["is_engine"]:
        raise click.ClickException("this database user does not see all rows; use the owner of the tables.")
    return ["--enable-row-security"]


async def _prepare(database_url: str) -> None:
    connection = await _connect(database_url)
    try:
        if await connection.fetchval("select to_regclass('accounts') is not null"):
            raise click.ClickException("there is a Stepwell in this database already; restore into an empty one.")
        await connection.execute(_ROLES)
    finally:
        await connection.close()


async def _connect(database_url: str) -> Any:
    asyncpg = importlib.import_module("asyncpg")
    try:
        return await asyncpg.connect(database_url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise click.ClickException(f"the database cannot be used: {error or type(error).__name__}") from None


def _run(program: str, database_url: str, options: list[str], option: str = "--dbname") -> None:
    """Run one of Postgres's programs; the password goes by the environment, where lists of processes do not show it."""
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    name = f"{parts.username}@{host}" if parts.username else host
    state = State(load(PLACEHOLDERS | {k: v for k, v in os.environ.items() if k == "STEPWELL_DATA_DIR"}).data_dir, "up")
    environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "PGPASSWORD": unquote(parts.password or "")}
    done = subprocess.run(
        [postgres_bin(state.programs, state.user) / program, option, urlunsplit(parts._replace(netloc=name)), *options],
        check=False,
        capture_output=True,
        text=True,
        env=environ,
    )
    if done.returncode != 0:
        raise click.ClickException(f"{program} failed: {done.stderr.strip()}")
