"""The embedded servers under a supervisor: real Postgres, real Valkey, real kills."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import redis

from app.supervise.children import Supervisor
from app.supervise.identity import ServerUser, server_user
from app.supervise.postgres import SETTINGS, Postgres
from app.supervise.programs import postgres_bin
from app.supervise.servers import Servers, start_servers
from app.supervise.state import State


class Machine:
    """One state folder with its supervisor, as `up` has it."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.state = State(folder, "up")
        self.state.lock()
        self.supervisor = Supervisor(lambda name, line: self.lines.append(f"{name}: {line}"))
        self.servers: Servers = start_servers(self.supervisor, self.state)

    @property
    def postgres(self) -> Postgres:
        assert self.servers.postgres is not None
        return self.servers.postgres

    def sql(self, statement: str) -> list[Any]:
        return asyncio.run(_fetch(self.postgres.url, statement))

    def valkey(self) -> "redis.Redis":
        assert self.servers.valkey is not None
        return redis.Redis.from_url(self.servers.valkey.url)

    def stop(self) -> None:
        self.supervisor.stop()
        self.state.release()


async def _fetch(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@pytest.fixture
def machine(open_folder: Path) -> Iterator[Machine]:
    machine = Machine(open_folder / "state")
    yield machine
    machine.stop()


def processes_on(folder: Path) -> list[str]:
    """List processes that were started on a folder or work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(folder)):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def test_postgres_and_valkey_answer_and_only_with_their_passwords(machine: Machine) -> None:
    assert machine.sql("select 1 as one")[0]["one"] == 1
    assert machine.valkey().ping()

    wrong = machine.postgres.url.replace(machine.postgres.password, "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(_fetch(wrong, "select 1"))
    assert machine.servers.valkey is not None
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=machine.servers.valkey.port).ping()


def test_an_accepted_commit_is_on_disk_and_texts_sort_alike_everywhere(machine: Machine) -> None:
    shown = {row["name"]: row["setting"] for row in machine.sql("select name, setting from pg_settings")}

    assert (shown["fsync"], shown["synchronous_commit"], shown["full_page_writes"]) == ("on", "on", "on")
    assert shown["max_connections"] == SETTINGS["max_connections"] == "200"
    assert shown["listen_addresses"] == "127.0.0.1"
    locale = machine.sql("select datlocprovider, datlocale from pg_database where datname = 'stepwell'")[0]
    assert (locale["datlocprovider"], locale["datlocale"]) == (b"b", "C.UTF-8")


def test_a_killed_postgres_comes_back_with_every_committed_row(machine: Machine) -> None:
    machine.sql("create table orders as select generate_series(1, 1000) as number")
    child = machine.supervisor.child("postgres")
    first = child.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    back = machine.supervisor.wait_until(lambda: child.pid != first and machine.postgres.is_ready(child.pid), 60)

    assert back, machine.lines
    assert machine.sql("select count(*) as rows from orders")[0]["rows"] == 1000
    assert any("postgres ended with signal 9; starting it again at once" in line for line in machine.lines)


def test_a_killed_valkey_comes_back(machine: Machine) -> None:
    valkey = machine.servers.valkey
    child = machine.supervisor.child("valkey")
    first = child.pid
    assert valkey is not None
    assert first is not None
    os.kill(first, signal.SIGKILL)

    assert machine.supervisor.wait_until(lambda: child.pid not in (first, None) and valkey.is_ready(), 30), (
        machine.lines
    )


def test_a_stop_leaves_no_process_and_a_second_start_keeps_the_rows(open_folder: Path) -> None:
    machine = Machine(open_folder / "state")
    machine.sql("create table kept as select 42 as answer")
    ports = (machine.postgres.port, machine.postgres.password)
    machine.stop()
    assert processes_on(open_folder) == []

    again = Machine(open_folder / "state")
    try:
        assert again.sql("select answer from kept")[0]["answer"] == 42
        assert (again.postgres.port, again.postgres.password) == ports
    finally:
        again.stop()


def test_servers_end_when_their_supervisor_is_killed_and_the_next_start_takes_over(open_folder: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.supervise.holder", str(open_folder / "state")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "ready\n"
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()

    machine = Machine(open_folder / "state")
    try:
        assert machine.sql("select count(*) as rows from left_behind")[0]["rows"] == 1
    finally:
        machine.stop()
    assert processes_on(open_folder) == []


def test_a_pid_file_with_the_number_of_a_stranger_does_not_prevent_a_start(open_folder: Path) -> None:
    machine = Machine(open_folder / "state")
    machine.stop()
    stale = machine.postgres.folder / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{machine.postgres.folder}\n")
    machine.state.user.own(stale)

    again = Machine(open_folder / "state")
    again.stop()

    assert again.supervisor.child("postgres").starts == 1


def test_a_half_made_cluster_is_made_again(open_folder: Path) -> None:
    machine = Machine(open_folder / "state")
    machine.stop()
    (machine.postgres.folder / "stepwell.made").unlink()
    (machine.postgres.folder / "PG_VERSION").unlink()

    again = Machine(open_folder / "state")
    try:
        assert again.sql("select 1 as one")[0]["one"] == 1
    finally:
        again.stop()


def test_programs_in_a_closed_folder_are_copied_to_where_the_server_user_can_run_them(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.supervise.programs._runs", _only_below(open_folder))

    found = postgres_bin(open_folder / "programs", server_user())

    assert found.is_relative_to(open_folder / "programs")
    version = subprocess.run([found / "initdb", "--version"], check=True, capture_output=True, text=True, cwd="/")
    assert "PostgreSQL" in version.stdout
    linked = subprocess.run([found / "psql", "--version"], check=True, capture_output=True, text=True, cwd="/")
    assert "psql" in linked.stdout, "libpq was copied along"


def _only_below(folder: Path) -> Callable[[Path, ServerUser], bool]:
    return lambda program, user: program.is_relative_to(folder) and program.exists()
