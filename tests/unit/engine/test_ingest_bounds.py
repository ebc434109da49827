"""What waits for the database in the web process has a bound; beyond it the answer is 503 at once, and nothing is kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from app.domain.errors import Outside
from app.domain.event import NewEvent
from app.domain.ids import AccountId, EnvironmentId
from app.domain.scope import Scope
from app.engine.ingest import STALLED_S, Bounds, Ingest

pytestmark = pytest.mark.asyncio
SCOPE = Scope(AccountId(UUID(int=1)), EnvironmentId(UUID(int=2)))
EVENT = NewEvent("a/b", b'{"n":1}', 1_700_000_000_000)


class Storage:
    """A database that answers when the test says so, or is away."""

    def __init__(self) -> None:
        self.goes = asyncio.Event()
        self.is_away = False
        self.statements = 0
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    @asynccontextmanager
    async def acquire(self, timeout: float | None = None) -> AsyncIterator["Storage"]:
        await self.goes.wait()
        if self.is_away:
            raise ConnectionRefusedError
        yield self

    async def fetch(self, _sql: str, *arguments: Any) -> list[Any]:
        self.statements += 1
        longest = next(a for a in arguments if isinstance(a, list) and a and isinstance(a[0], int))
        return [{"n": n} for n in range(max(len(longest), 5000))]


@asynccontextmanager
async def ingesting(storage: Storage, **bounds: int) -> AsyncIterator[Ingest]:
    ingest = Ingest(storage, bounds=Bounds(**bounds), now=storage.now)
    ingest.start()
    try:
        yield ingest
    finally:
        storage.goes.set()
        await ingest.stop()


async def sent(ingest: Ingest, count: int, event: NewEvent = EVENT, each: int = 1) -> list["asyncio.Task[Any]"]:
    """Requests that wait for their commit."""
    tasks = [asyncio.create_task(ingest.add(SCOPE, [event] * each)) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


def codes(tasks: list["asyncio.Task[Any]"]) -> list[str]:
    """What became of requests: stored, waits, or the code of the refusal."""
    found = []
    for task in tasks:
        error = task.exception() if task.done() else None
        found.append(error.code if isinstance(error, Outside) else "stored" if task.done() else "waits")
    return found


@pytest.mark.parametrize(
    ("bounds", "each", "event"),
    [
        ({"requests": 10}, 1, EVENT),
        ({"events": 100}, 10, EVENT),
        ({"octets": 10_000}, 1, NewEvent("a/b", b'"' + b"x" * 995 + b'"', 0)),
    ],
    ids=["requests", "events", "octets"],
)
async def test_while_the_database_is_slow_only_so_much_waits_and_the_rest_hears_it_at_once(
    bounds: dict[str, int], each: int, event: NewEvent
) -> None:
    storage = Storage()
    async with ingesting(storage, **bounds) as ingest:
        tasks = await sent(ingest, 30, event, each)
        assert codes(tasks) == ["waits"] * 10 + ["storage_unavailable"] * 20
        with pytest.raises(Outside):
            await ingest.add(SCOPE, [event] * each)
        storage.goes.set()
        await asyncio.gather(*tasks[:10])
        assert codes(tasks[:10]) == ["stored"] * 10
        assert ingest.waiting == (0, 0, 0)
        await ingest.add(SCOPE, [event] * each)


async def test_one_request_that_is_larger_than_all_bounds_is_stored_when_nothing_waits() -> None:
    storage = Storage()
    storage.goes.set()
    async with ingesting(storage, requests=1, events=1, octets=1) as ingest:
        assert len(await ingest.add(SCOPE, [EVENT] * 5)) == 5


async def test_while_the_oldest_waits_too_long_nothing_is_taken() -> None:
    storage = Storage()
    async with ingesting(storage) as ingest:
        tasks = await sent(ingest, 2)
        storage.seconds += STALLED_S
        tasks += await sent(ingest, 1)
        storage.seconds += 0.1
        refused = await sent(ingest, 3)
        assert codes(refused) == ["storage_unavailable"] * 3
        storage.goes.set()
        await asyncio.gather(*tasks)
        assert codes(tasks) == ["stored"] * 3
        assert codes(await sent(ingest, 1)) == ["stored"]


async def test_a_database_that_is_away_is_told_to_everybody_who_waits_and_the_next_request_asks_again() -> None:
    storage = Storage()
    storage.is_away = True
    async with ingesting(storage) as ingest:
        # More than one statement takes: the others stand in line behind it.
        tasks = await sent(ingest, 6, each=1500)
        storage.goes.set()
        await asyncio.wait(tasks)
        assert codes(tasks) == ["storage_unavailable"] * 6
        assert (storage.statements, ingest.waiting) == (0, (0, 0, 0))
        storage.is_away = False
        assert codes(await sent(ingest, 1)) == ["stored"]


async def test_a_request_whose_sender_is_gone_is_not_written_and_takes_no_room() -> None:
    storage = Storage()
    async with ingesting(storage, requests=4) as ingest:
        tasks = await sent(ingest, 4, each=1500)
        for task in tasks[2:]:
            task.cancel()
        await asyncio.gather(*tasks[2:], return_exceptions=True)
        assert ingest.waiting == (2, 3000, 2 * 1500 * 10)
        storage.goes.set()
        await asyncio.gather(*tasks[:2])
        assert storage.statements == 2
