"""The worlds the cases run in: every SDK in every mode. A world lives while its cases run, then the next one starts.

All cases of a world run in the same process of a parallel test run, so that it is started once.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.protocol.sdks import SDKS
from tests.protocol.server import running_server
from tests.protocol.world import WORLDS, World
from tests.servers import TestServers, cloned_database

#: Seconds for one test, installing the npm package and starting everything included.
_TIMEOUT = 300
#: Numbers of Valkey databases that no other fixture empties.
_REDIS_FROM = 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder the time that real processes need, and let the other cases run while an order does.

    Of each world, the test that places the order comes first, those that wait for its end come last.
    """
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in ours:
        item.add_marker(pytest.mark.timeout(_TIMEOUT))
    items[:] = [item for item in items if item not in set(ours)] + sorted(ours, key=_turn)


def _turn(item: pytest.Item) -> int:
    asked = getattr(item, "fixturenames", ())
    if "fulfilled" in asked:
        return 2
    return 0 if "placed" in asked else 1


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
