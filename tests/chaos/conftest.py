"""Houses to be maltreated, and how much of it there is."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.chaos.house import House, running_house
from tests.servers import TestServers

#: Numbers of Valkey databases that no other fixture empties.
_REDIS_FROM = 40
IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"

OpenHouse = Callable[..., AbstractContextManager[House]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder the time that restarts need."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(1800 if IS_FULL else 300))


@pytest.fixture
def house_of(servers: TestServers, new_database: Callable[[], str], worker_number: int, open_folder: Path) -> OpenHouse:
    """Give `running_house` on the shared servers and a database of its own; settings add to and replace these."""
    redis = _REDIS_FROM + worker_number
    servers.flush(redis)
    given = {"DATABASE_URL": new_database(), "REDIS_URL": servers.redis_url(redis)}

    def open_house(*, grace_s: float = 0.5, **settings: str) -> AbstractContextManager[House]:
        return running_house(open_folder, grace_s=grace_s, **{**given, **settings})

    return open_house
