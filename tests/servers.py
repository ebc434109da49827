"""A Postgres and a Valkey for the tests: real ones, started once, shared by all processes of one test run.

    pytest process ──┐  each holds `users` shared as long as it lives
    pytest process ──┼──────────────► holder process: starts both servers, writes `servers.json`,
    pytest process ──┘                stops them and removes the folder when nobody holds `users` any more

So nothing stays behind, even if the test run is killed, and a run that needs no server starts none.
"""

import fcntl
import importlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from app.supervise.children import Supervisor
from app.supervise.servers import await_postgres, prepare_postgres, prepare_valkey
from app.supervise.state import State

TEMPLATE = "template_stepwell"
"""The migrated database that every test database is a copy of."""
START_WITHIN = 120.0
"""Seconds for the holder to have both servers ready on a loaded machine."""
_FAST = (("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off"), ("shared_buffers", "128MB"))
"""Only tests may do this: their data need not survive a power cut."""


@dataclass(frozen=True, slots=True)
class TestServers:
    """Where the shared servers are."""

    __test__ = False

    psql: str
    owner_url: str
    """Address of the maintenance database, for the owner of the cluster."""
    valkey_url: str
    """Address of database 0; others by number."""

    def database_url(self, name: str) -> str:
        """Give the address of one database."""
        return urlsplit(self.owner_url)._replace(path=f"/{name}").geturl()

    def redis_url(self, number: int) -> str:
        """Give the address of one numbered Valkey database, 0 to 63."""
        return urlsplit(self.valkey_url)._replace(path=f"/{number}").geturl()

    def execute(self, statement: str) -> None:
        """Run one statement in the maintenance database, as its owner."""
        done = subprocess.run(
            [self.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.owner_url, "-c", statement],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")

    def flush(self, number: int) -> None:
        """Empty one numbered Valkey database."""
        parts = urlsplit(self.valkey_url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
            connection.sendall(f"AUTH {parts.password}\r\nSELECT {number}\r\nFLUSHDB\r\n".encode())
            answer = b""
            while answer.count(b"\n") < 3:
                answer += connection.recv(1024) or b"-closed\n\n\n"
        if answer != b"+OK\r\n" * 3:
            raise RuntimeError(f"Valkey answered {answer!r}")


def run_folder() -> Path:
    """Give the folder of this test run: the same for all its xdist processes, of our own otherwise."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}-{time.time_ns()}"
    folder = Path(tempfile.gettempdir()) / f"stepwell-tests-{os.geteuid()}-{run}"
    # The user of the servers must be able to walk through it when we are root.
    folder.mkdir(mode=0o755, exist_ok=True)
    return folder


@contextmanager
def shared_servers(folder: Path) -> Iterator[TestServers]:
    """Use the servers of this run, starting them if we are the first; they end when the last user has gone."""
    with (folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with exclusively(folder, "start"):
            found = folder / "servers.json"
            if not found.exists():
                _start_holder(folder)
        yield TestServers(**json.loads(found.read_text(encoding="utf-8")))


@contextmanager
def exclusively(folder: Path, name: str) -> Iterator[None]:
    """Let one process of the run at a time do something."""
    with (folder / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_template(servers: TestServers, folder: Path) -> None:
    """Make the migrated template database, once a run."""
    with exclusively(folder, "template"):
        made = folder / "template.made"
        if made.exists():
            return
        servers.execute(f'create database "{TEMPLATE}"')
        if importlib.util.find_spec("app.store.migrate") is not None:
            importlib.import_module("app.store.migrate").upgrade(servers.database_url(TEMPLATE))
        made.touch()


@contextmanager
def cloned_database(servers: TestServers, folder: Path, name: str) -> Iterator[str]:
    """Give the address of a fresh copy of the template, and drop it afterwards."""
    make_template(servers, folder)
    with exclusively(folder, "template"):  # Postgres copies a template for one at a time.
        servers.execute(f'create database "{name}" template "{TEMPLATE}"')
    try:
        yield servers.database_url(name)
    finally:
        servers.execute(f'drop database if exists "{name}" with (force)')


def _start_holder(folder: Path) -> None:
    log = folder / "holder.log"
    with log.open("wb") as output:
        holder = subprocess.Popen(
            [sys.executable, "-m", "tests.servers", os.fspath(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=Path(__file__).parent.parent,
        )
    deadline = time.monotonic() + START_WITHIN
    while not (folder / "servers.json").exists():
        if holder.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The servers for the tests did not start:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.02)  # Polling another process's file, bounded by the deadline.


def hold(folder: Path) -> None:
    """Be the holder process: start both servers, tell where they are, stay until nobody needs them."""
    state = State(folder, "servers")
    state.lock()
    supervisor = Supervisor(lambda name, line: print(f"{name} | {line}", flush=True))
    supervisor.listen_to_signals()
    postgres, valkey = prepare_postgres(state, _FAST), prepare_valkey(state)
    supervisor.start(valkey.spec())
    await_postgres(supervisor, postgres)
    supervisor.wait_until(valkey.is_ready, START_WITHIN)
    unfinished = folder / "servers.json.new"
    unfinished.touch(mode=0o600)
    servers = TestServers(os.fspath(postgres.programs / "psql"), postgres.url_of("postgres"), valkey.url)
    unfinished.write_text(json.dumps(asdict(servers)), encoding="utf-8")
    unfinished.rename(folder / "servers.json")
    with (folder / "users").open("a") as users:
        while not supervisor.stop_asked and _somebody_uses(users):
            supervisor.turn(0.5)
    supervisor.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _somebody_uses(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
