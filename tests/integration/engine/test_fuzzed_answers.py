"""Whatever an app answers, the engine goes on: no error it did not expect, no run without a future, no growing memory.

`STEPWELL_TEST_SIZE=full` draws 100,000 answers in four parts of one seed each, which processes may share; the small size
draws a few hundred. A failure names the seed of its dice, and what a run is answered depends on nothing but the seed, the
number of the run and how often it was called.

How long a part takes is mostly waiting for what is due in a second, so many runs are under way at once.
"""

import asyncio
import gc
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.adapters.http import MAX_BODY, Answer
from app.domain.event import NewEvent
from app.domain.ids import RunId
from app.domain.run.happenings import CancelRequested
from app.engine.clock import DatabaseClock
from app.engine.transition import RunEnded, change_run
from tests.integration.engine.odd_answers import odd_answer
from tests.integration.engine.played import Played, playing, result
from tests.invariants import violations

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
#: Answers of one part.
ANSWERS = 25_000 if IS_FULL else 500
_FIRST_SEED = int(os.environ.get("STEPWELL_TEST_SEED", "20261123"))
SEEDS = range(_FIRST_SEED, _FIRST_SEED + (4 if IS_FULL else 1))
#: Odd answers a run gets before its app comes to its senses and returns.
_PER_RUN = 12
_AT_ONCE = 1500 if IS_FULL else 150
#: Seconds in which a machine of many must have got something done: an answer, an item, an event.
_STILL_S = 60.0
#: What the process may have grown between the first tenth and the end: the caches of a process, and no answers.
_GROWTH_BYTES = 48 * 1024 * 1024
#: What is due later than this waits for its time, and not for the engine.
_SOON = "2 seconds"
_UNSETTLED = f"""
select (select count(*) from inbox where environment_id = $1)
     + (select count(*) from items where environment_id = $1 and (lease_id is not null or due_at < clock() + interval '{_SOON}'))
"""


@dataclass
class Broken(Played):
    """An app, and a place for requests of its steps, that answer from the dice."""

    seed: int = 0
    #: For requests of steps, which do not say whose they are.
    dice: Random = field(default_factory=Random)
    answered: int = 0
    of_run: dict[int, int] = field(default_factory=dict)
    """How often each run was answered, by the number of its event."""

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        max_body: int = MAX_BODY,
    ) -> Answer:
        """As the app, or as whoever a step asks."""
        self.answered += 1
        if "app.test" not in url:
            return odd_answer(self.dice)
        number = json.loads(body)["event"]["data"]["n"]
        self.of_run[number] = count = self.of_run.get(number, 0) + 1
        if count > _PER_RUN:
            return result("enough")
        return odd_answer(Random(f"{self.seed} {number} {count}"))


def _resident() -> int | None:
    """Bytes this process has in memory; None where nobody says."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _settled(app: Broken) -> None:
    """Nothing is left that could go on by itself; fails when something is left and nothing moves."""
    seen: tuple[int, int] | None = None
    loop = asyncio.get_running_loop()
    moved = loop.time()
    while True:
        left = (await app.rows(_UNSETTLED, app.scope.environment_id))[0][0]
        if left == 0:
            return
        if (app.answered, left) != seen:
            seen, moved = (app.answered, left), loop.time()
        assert loop.time() - moved < _STILL_S, f"seed {app.seed}: {left} items or events stand still"
        await asyncio.sleep(0.05)  # Polling the database, bounded by the line above.


async def _cancel_the_rest(app: Broken) -> None:
    clock = DatabaseClock()
    for row in await app.rows(
        "select id from runs where environment_id = $1 and ended_at is null", app.scope.environment_id
    ):
        try:
            await change_run(app.pool, RunId(row["id"]), CancelRequested("api"), clock=clock)
        except RunEnded:
            continue


@pytest.fixture
def own_database(new_database: Callable[[], str]) -> str:
    """Give each part a database of its own: none is slower, or wrong, for what another left."""
    return new_database()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(120 + ANSWERS * 0.05)
async def test_no_answer_of_an_app_breaks_the_engine(
    own_database: str, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.ERROR)
    start: int | None = None
    async with playing(own_database, Broken) as app:
        assert isinstance(app, Broken)
        app.seed, app.dice = seed, Random(seed)
        step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": "http://app.test/api/inngest"}}
        await app.function(
            "fuzz", lambda _s, _t: result("never asked"), steps={"step": {**step, "retries": {"attempts": 1}}}
        )
        sent = 0
        while app.answered < ANSWERS:
            events = [NewEvent("fuzz/sent", b'{"n":%d}' % (sent + n), 1_700_000_000_000) for n in range(_AT_ONCE)]
            sent += _AT_ONCE
            await app.ingest.add(app.scope, events)
            app.bell.ring()
            await _settled(app)
            if start is None or app.answered < ANSWERS // 10:
                await _hold(app)
                start = _resident()
            await _cancel_the_rest(app)
            app.of_run.clear()
        await _settled(app)
        await _hold(app)
        grown = (_resident() or 0) - (start or 0)
        ends: dict[str, Any] = {
            row["status"]: row["count"]
            for row in await app.rows(
                "select status, count(*) from runs where environment_id = $1 group by 1", app.scope.environment_id
            )
        }
        # Asked before the engine is stopped in the middle of whatever it does.
        unexpected = [
            r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR and r.getMessage() != "entry refused"
        ]
    assert unexpected == [], f"seed {seed}"
    assert set(ends) <= {"completed", "failed", "cancelled"}
    assert min(ends.values()) > 0
    assert sum(ends.values()) == sent
    assert grown < _GROWTH_BYTES, f"grew by {grown} bytes over {app.answered} answers"


async def _hold(app: Broken) -> None:
    """Every invariant holds; leaves no garbage behind, so that memory can be measured."""
    async with app.pool.acquire() as connection:
        assert await violations(connection) == [], f"seed {app.seed}"
    gc.collect()
