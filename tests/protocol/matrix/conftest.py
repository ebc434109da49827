"""The matrix as tests: each case in each column and mode is one, all of a mode are played at once before the first.

In small size each case is played in signed mode by one of the columns, taking turns so that every column has its share;
`STEPWELL_TEST_SIZE=full` plays everything in both modes. `STEPWELL_WRITE_COMPATIBILITY=1` with `-n 0` writes
`docs/compatibility.md` from what happened.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.matrix.compatibility import write
from tests.protocol.matrix.stage import Outcomes, perform
from tests.protocol.server import Mode, running_server
from tests.servers import TestServers, cloned_database

HERE = Path(__file__).parent
#: Numbers of Valkey databases that no other fixture empties.
_REDIS_FROM = {"signed": 44, "dev": 50}
_PLAYED: dict[Mode, Outcomes] = {}


@pytest.fixture(scope="session")
def played(
    request: pytest.FixtureRequest,
    servers: TestServers,
    servers_folder: Path,
    worker_number: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Mode], Outcomes]:
    """Give how every case of a mode went that this session was asked for; the first one to ask has them played."""
    asked: dict[Mode, list[tuple[str, str]]] = {}
    for item in request.session.items:
        # Other folders have a fixture of this name too.
        if isinstance(item, pytest.Function) and item.path.parent == HERE and "played" in item.fixturenames:
            given: Any = item.callspec.params
            asked.setdefault(given["mode"], []).append((given["column"], given["case"]))

    def play(mode: Mode) -> Outcomes:
        if mode not in _PLAYED:
            redis = _REDIS_FROM[mode] + worker_number % 6
            servers.flush(redis)
            folder = tmp_path_factory.mktemp(f"matrix-{mode}")
            with (
                cloned_database(servers, servers_folder, f"matrix{worker_number}_{mode}") as database_url,
                running_server(mode, database_url, servers.redis_url(redis), folder) as server,
            ):
                _PLAYED[mode] = perform(server, asked[mode], folder)
        return _PLAYED[mode]

    return play


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table when asked to."""
    del session
    if os.environ.get("STEPWELL_WRITE_COMPATIBILITY") == "1" and _PLAYED:
        write(_PLAYED)


def pytest_make_parametrize_id(val: Any, argname: str) -> str | None:
    """Say mode, column and case, so that a parallel run keeps those of a mode together."""
    return f"matrix-{val}" if argname == "mode" else None
