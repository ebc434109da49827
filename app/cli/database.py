"""`stepwell migrate` and `stepwell bootstrap`: what is done to a database from the command line."""

import asyncio
import importlib
import inspect
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from app.cli.house import PLACEHOLDERS
from app.config import load
from app.supervise.children import Supervisor
from app.supervise.lines import Lines
from app.supervise.servers import start_servers
from app.supervise.state import State, StateLocked

STARTING_WITHIN = 90.0
"""Seconds that `bootstrap` waits for an `up` that is just starting."""


@dataclass(frozen=True, slots=True)
class Target:
    """The installation that a command works on."""

    database_url: str
    secret_key: str
    base_url: str


@click.command()
def migrate() -> None:
    """Bring the database at DATABASE_URL to the newest schema; safe to repeat and to run on many machines."""
    settings = load({**PLACEHOLDERS, "DATABASE_URL": "", **{k: v for k, v in os.environ.items() if v.strip()}})
    applied = upgrade(settings.database_url)
    click.echo(f"applied {', '.join(applied)}" if applied else "the schema is current")


@click.command()
@click.option("--email", required=True, help="E-mail address of the first user.")
@click.option("--password", prompt=True, hide_input=True, help="Password of the first user; asked for if not given.")
@click.option("--organization", required=True, help="Name of the organization.")
@click.option("--environment", default="production", show_default=True, help="Name of the environment.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def bootstrap(email: str, password: str, organization: str, environment: str, as_json: bool) -> None:
    """Create an organization, its user, an environment and its keys; repeated, print the same keys.

    Works on DATABASE_URL if it is set, else on the embedded database, with `stepwell up` running or not.
    """
    with find_target() as target:
        created = bootstrap_on(target, email, password, organization, environment)
    if as_json:
        click.echo(json.dumps(created))
        return
    for name, value in created.items():
        click.echo(f"{name + ':':<14} {value}")


def bootstrap_on(target: Target, email: str, password: str, organization: str, environment: str) -> dict[str, Any]:
    """Create what `bootstrap` creates and give the object it prints; `demo` calls this too."""
    try:
        answer = importlib.import_module("app.accounts.bootstrap").bootstrap(
            database_url=target.database_url,
            secret_key=target.secret_key,
            email=email,
            password=password,
            organization=organization,
            environment=environment,
            base_url=target.base_url,
        )
        created: dict[str, Any] = asyncio.run(answer) if inspect.iscoroutine(answer) else answer
    except importlib.import_module("app.domain.errors").Refused as refused:
        raise click.ClickException(str(refused)) from None
    return created


def upgrade(database_url: str) -> list[str]:
    """Apply missing migrations and name them; a database that cannot be used is refused in one sentence."""
    asyncpg = importlib.import_module("asyncpg")
    try:
        applied: list[str] = importlib.import_module("app.store.migrate").upgrade(database_url)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise click.ClickException(f"the database cannot be used: {error or type(error).__name__}") from None
    return applied


@contextmanager
def find_target(*, migrates: bool = True) -> Iterator[Target]:
    """Find the installation: a given database, a running `up`, or the embedded database started for a moment.

    With `migrates` false an embedded database stays as it is, which may be empty.
    """
    given = {key: value for key, value in os.environ.items() if value.strip()}
    if "DATABASE_URL" in given:
        settings = load({"REDIS_URL": PLACEHOLDERS["REDIS_URL"], **given})
        upgrade(settings.database_url)
        yield Target(settings.database_url, settings.secret_key, settings.base_url)
        return
    settings = load({**PLACEHOLDERS, **given})
    state = State(settings.data_dir, "up")
    if not _take(state):
        running = state.running()
        if running is None:
            raise click.ClickException(f"a Stepwell is starting on {state.folder} and not ready; try again shortly.")
        yield Target(running.database_url, running.secret_key, running.base_url)
        return
    supervisor = Supervisor(Lines(state.folder / "logs", quiet=_Everything(), prefixed=True))
    try:
        servers = start_servers(supervisor, state, valkey=False)
        assert servers.postgres is not None
        if migrates:
            upgrade(servers.postgres.url)
        secret_key = given.get("STEPWELL_SECRET_KEY") or state.secrets().secret_key
        yield Target(servers.postgres.url, secret_key, settings.base_url)
    finally:
        supervisor.stop()
        state.release()


def _take(state: State) -> bool:
    """Take the folder, or wait until whoever holds it tells what it runs; false means that it is held."""
    deadline = time.monotonic() + STARTING_WITHIN
    while time.monotonic() < deadline:
        try:
            state.lock()
        except StateLocked:
            if state.running() is not None:
                return False
            time.sleep(0.1)  # Polling another process's note, bounded by the deadline.
        else:
            return True
    return False


class _Everything:
    """A container of all names: every line goes to a file, so that standard output is ours alone."""

    def __contains__(self, _name: object) -> bool:
        return True
