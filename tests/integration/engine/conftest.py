"""Fixtures of the engine's races: a world for each test, in a database for each module."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.engine.world import World, new_world


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    """Give a world whose invariants are checked at the end."""
    async with new_world(database) as made:
        yield made
