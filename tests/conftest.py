"""Fixtures that every tier may use: real servers, a database of one's own, a folder the servers can reach."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

from tests.servers import TestServers, cloned_database, run_folder, shared_servers

_DATABASES = count(1)
_WORLD = re.compile(r"tests/protocol/[^\[]*\[(\w+-\w+)")
"""The name of a protocol case, up to its SDK and mode; one of the matrix, up to its mode."""


class _Scheduling(LoadGroupScheduling):  # type: ignore[misc]
    """Sends all protocol cases of one SDK and mode to one process, which starts their server and apps once.

    Modules of the browser stay together too: their tests share one server, and some are a walk in several parts.

    The plugin's own groups do not work: it writes them into a private name of the test that pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        world = _WORLD.match(nodeid)
        if world:
            return f"protocol {world[1]}"
        if nodeid.startswith("tests/browser/"):
            return nodeid.partition("::")[0]
        return str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Tell the parallel test run who decides where a test goes."""
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Give the folder shared by all processes of this test run."""
    folder = run_folder()
    yield folder
    if not (folder / "users").exists():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(servers_folder: Path) -> Iterator[TestServers]:
    """Give the shared Postgres and Valkey, started at the first use."""
    with shared_servers(servers_folder) as shared:
        yield shared


@pytest.fixture(scope="session")
def worker_number() -> int:
    """Give the number of this xdist process, 0 without xdist."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture(scope="module")
def database(servers: TestServers, servers_folder: Path, worker_number: int) -> Iterator[str]:
    """Give the address of a migrated database shared by the tests of one module."""
    with cloned_database(servers, servers_folder, _database_name(worker_number)) as url:
        yield url


@pytest.fixture
def new_database(servers: TestServers, servers_folder: Path, worker_number: int) -> Iterator[Callable[[], str]]:
    """Give a maker of migrated databases that are dropped after the test."""
    with ExitStack() as databases:

        def make() -> str:
            name = _database_name(worker_number)
            return databases.enter_context(cloned_database(servers, servers_folder, name))

        yield make


@pytest.fixture
def redis_url(servers: TestServers, worker_number: int) -> str:
    """Give the address of an empty Valkey database that no other process of this run uses."""
    servers.flush(worker_number)
    return servers.redis_url(worker_number)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give an empty folder that the user of the embedded servers can walk to; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _database_name(worker_number: int) -> str:
    return f"t{worker_number}_{next(_DATABASES)}"
