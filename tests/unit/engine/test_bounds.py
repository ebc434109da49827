"""What a process remembers for its work has a bound, however much comes (docs/overload.md)."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.errors import Outside
from app.domain.ids import AccountId, EnvironmentId, RunId
from app.domain.scope import Scope
from app.engine import catalogue, changes, pause_points, react, schedule
from app.engine.catalogue import Catalogue
from app.engine.changes import MOST_WAITING, STALLED_S, Changes
from app.engine.clock import DatabaseClock
from app.engine.engine import _MOST_HINTS, Engine, EngineSettings
from app.engine.react import BATCH, React
from app.engine.schedule import Schedule

pytestmark = pytest.mark.asyncio


def scope_number(n: int) -> Scope:
    return Scope(AccountId(UUID(int=n)), EnvironmentId(UUID(int=n)))


class Stuck:
    """A pool none of whose connections comes free."""

    def __init__(self) -> None:
        self.ends = asyncio.Event()

    @asynccontextmanager
    async def acquire(self, timeout: float | None = None) -> Any:
        await self.ends.wait()
        if self.ends.is_set():
            raise ConnectionRefusedError
        yield


async def asked(changes_: Changes, count: int) -> list["asyncio.Task[Any]"]:
    """Checkpoints that arrive together."""
    tasks = [
        asyncio.create_task(changes_.change(RunId(uuid4()), lambda _hot: None, scope=scope_number(1)))
        for _ in range(count)
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def refused(tasks: list["asyncio.Task[Any]"]) -> int:
    """How many were told at once that it is too much."""
    return sum(task.done() and isinstance(task.exception(), Outside) for task in tasks)


async def test_checkpoints_that_find_too_many_before_them_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "MOST_WAITING", 50)
    assert MOST_WAITING > 50
    pool = Stuck()
    waiting = Changes(pool, DatabaseClock())
    waiting.start()
    tasks = await asked(waiting, 80)
    assert await refused(tasks) == 30
    pool.ends.set()
    await asyncio.wait(tasks)
    assert waiting._waiting == {}
    await waiting.stop()


async def test_checkpoints_are_refused_while_the_oldest_waits_too_long() -> None:
    seconds = [0.0]
    waiting = Changes(Stuck(), DatabaseClock(), now=lambda: seconds[0])
    waiting.start()
    first = await asked(waiting, 1)
    seconds[0] = STALLED_S
    assert await refused(await asked(waiting, 1)) == 0
    seconds[0] += 0.1
    assert await refused(await asked(waiting, 2)) == 2
    assert not first[0].done()
    await waiting.stop()


async def test_hints_are_dropped_when_there_are_too_many_of_them() -> None:
    nothing: Any = SimpleNamespace(is_limited=None)
    engine = Engine(nothing, nothing, nothing, nothing, nothing, EngineSettings())
    for _ in range(100):
        engine.wake([uuid4() for _ in range(100)])
    assert _MOST_HINTS <= len(engine._hints) < _MOST_HINTS + 100


async def test_views_of_environments_and_their_locks_go_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def load(_self: Catalogue, scope: Scope) -> Any:
        return SimpleNamespace(scope=scope, version=1, loaded_at=0.0)

    async def no_keys(_environment: EnvironmentId) -> list[str]:
        return []

    monkeypatch.setattr(Catalogue, "_load", load)
    monkeypatch.setattr(catalogue, "_KEPT", 10)
    known = Catalogue(None, no_keys)
    for n in range(50):
        await known.view(scope_number(n))
    assert (len(known._views), len(known._loading)) == (10, 10)


async def test_counts_of_backlogs_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(*_: object, **__: object) -> list[dict[str, int]]:
        return [{"count": 0}]

    monkeypatch.setattr(schedule, "fetch", fetch)
    monkeypatch.setattr(schedule, "_BACKLOGS_KEPT", 10)
    clock = DatabaseClock()
    made = Schedule(clock)
    for n in range(25):
        assert not await made._is_full(None, scope_number(n), 1, clock.now())
    assert len(made._backlogs) == 5


@pytest.mark.parametrize(("octets", "next_claim"), [(1_000, BATCH), (3 * 1024 * 1024, 10)])
async def test_after_a_claim_of_large_events_the_next_one_is_smaller(
    monkeypatch: pytest.MonkeyPatch, octets: int, next_claim: int
) -> None:
    rooms: list[int] = []
    now = DatabaseClock().now()

    async def fetch(_connection: Any, _statement: Any, **values: Any) -> list[Any]:
        rooms.append(values["room"])
        row = {"environment_id": UUID(int=1), "name": "a/b", "turn": 1, "now": now, "payload": "x" * octets}
        return [{**row, "event_id": uuid4()} for _ in range(40)]

    async def claimed(_name: str, _ids: Any) -> None:
        raise ConnectionRefusedError

    class Connection:
        @asynccontextmanager
        async def transaction(self) -> Any:
            yield

    class Pool:
        @asynccontextmanager
        async def acquire(self, timeout: float | None = None) -> Any:
            yield Connection()

    monkeypatch.setattr(react, "fetch", fetch)
    nothing: Any = None
    station = React(Pool(), nothing, DatabaseClock(), nothing, nothing)
    monkeypatch.setattr(pause_points, "reached", claimed)
    with pytest.raises(ConnectionRefusedError):
        await station.round(0)
    assert rooms == [BATCH]
    assert station._fits == next_claim
