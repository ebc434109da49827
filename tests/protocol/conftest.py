"""The worlds the cases run in: every SDK in every mode. A world lives while its cases run, then the next one starts.

All cases of a world run in the same process of a parallel test run, so that it is started once.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.sdks import SDKS
from tests.protocol.server import running_server
from tests.protocol.world import ONLY, WORLDS, World
from tests.servers import TestServers, cloned_database

#: Seconds for one test, installing the npm package and starting everything included.
_TIMEOUT = 300
#: Numbers of Valkey databases that no other fixture empties.
_REDIS_FROM = 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder the time that real processes need, and let the other cases run while an order does.

    Of each world, the test that places the order comes first, those that wait for its end come last.
    """
    ours = {item for item in items if item.path.is_relative_to(Path(__file__).parent)}
    for item in ours:
        item.add_marker(pytest.mark.timeout(_TIMEOUT))
    in_worlds = {item for item in ours if "world" in getattr(item, "fixturenames", ())}
    cases = sorted((item for item in items if item in in_worlds and _is_meant(item)), key=_place)
    items[:] = [item for item in items if item not in in_worlds] + cases


def _is_meant(item: pytest.Item) -> bool:
    """Whether a case has a meaning in the mode of its world."""
    assert isinstance(item, pytest.Function)
    mode = getattr(item.function, ONLY, None)
    return mode is None or _world(item)[1] == mode


def _world(item: pytest.Item) -> tuple[str, str]:
    assert isinstance(item, pytest.Function)
    world: Any = item.callspec.params["world"]
    return world[0], world[1]


def _place(item: pytest.Item) -> tuple[tuple[str, str], int]:
    """Where a case comes: by world, then by what it needs of the order."""
    asked = getattr(item, "fixturenames", ())
    turn = 2 if "fulfilled" in asked else 0 if "placed" in asked else 1
    return _world(item), turn


@pytest.fixture(scope="session", params=WORLDS)
def world(
    request: pytest.FixtureRequest,
    servers: TestServers,
    servers_folder: Path,
    worker_number: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """Give one SDK in one mode against a running server."""
    sdk, mode = request.param
    folder = tmp_path_factory.mktemp(f"{sdk}-{mode}")
    redis = _REDIS_FROM + worker_number
    servers.flush(redis)
    with ExitStack() as stack:
        name = f"protocol{worker_number}_{sdk}_{mode}"
        database_url = stack.enter_context(cloned_database(servers, servers_folder, name))
        server = stack.enter_context(running_server(mode, database_url, servers.redis_url(redis), folder))
        yield World(SDKS[sdk], server, folder, stack)
