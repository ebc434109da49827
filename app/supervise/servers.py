"""The embedded servers together: prepared, started side by side, and awaited.

Called by the commands `up`, `dev`, `demo` and `bootstrap`, and by the test fixtures.
"""

from dataclasses import dataclass

from app.supervise.children import Supervisor
from app.supervise.postgres import Postgres, PostgresFailed
from app.supervise.programs import postgres_bin, valkey_server
from app.supervise.state import State
from app.supervise.valkey import Valkey

READY_WITHIN = 90.0
"""Seconds for the servers to become ready: a crash of a large database is followed by a long recovery."""


@dataclass(frozen=True, slots=True)
class Servers:
    """What was started here; a server that is given from outside is none."""

    postgres: Postgres | None
    valkey: Valkey | None


def prepare_postgres(state: State, extra: tuple[tuple[str, str], ...] = ()) -> Postgres:
    """Find the programs, choose the port and make the cluster unless it exists."""
    postgres = Postgres(
        programs=postgres_bin(state.programs, state.user),
        folder=state.server_folder("postgres"),
        port=state.port("postgres"),
        password=state.secrets().postgres_password,
        user=state.user,
        extra=extra,
    )
    postgres.make()
    return postgres


def prepare_valkey(state: State) -> Valkey:
    """Find the program, choose the port and write the configuration."""
    valkey = Valkey(
        program=valkey_server(state.programs, state.user),
        folder=state.server_folder("valkey"),
        port=state.port("valkey"),
        password=state.secrets().valkey_password,
        user=state.user,
    )
    valkey.make()
    return valkey


def start_servers(supervisor: Supervisor, state: State, *, postgres: bool = True, valkey: bool = True) -> Servers:
    """Start the wanted servers side by side and wait until they answer.

    Raises `PostgresFailed` or `ProgramMissing`. Valkey that does not come up is only waited for, never insisted on:
    the product works without it, more slowly.
    """
    started_valkey = prepare_valkey(state) if valkey else None
    if started_valkey is not None:
        supervisor.start(started_valkey.spec())
    started_postgres = prepare_postgres(state) if postgres else None
    if started_postgres is not None:
        await_postgres(supervisor, started_postgres)
    if started_valkey is not None:
        supervisor.wait_until(started_valkey.is_ready, 10.0)
    return Servers(started_postgres, started_valkey)


def await_postgres(supervisor: Supervisor, postgres: Postgres) -> None:
    """Start the cluster and wait until it accepts connections."""
    child = supervisor.start(postgres.spec())
    if not supervisor.wait_until(lambda: postgres.is_ready(child.pid), READY_WITHIN) and not supervisor.stop_asked:
        raise PostgresFailed(
            f"The embedded Postgres in {postgres.folder} did not become ready within {READY_WITHIN} s."
        )
