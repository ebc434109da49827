"""Whatever an app answers, the engine goes on: no error it did not expect, no run without a future, no growing memory.

`STEPWELL_TEST_SIZE=full` draws 100,000 answers, the small size a few hundred. A failure names the seed of its dice.
"""

import gc
import json
import logging
import os
from collections.abc import Mapping
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

ANSWERS = 100_000 if os.environ.get("STEPWELL_TEST_SIZE") == "full" else 500
SEED = int(os.environ.get("STEPWELL_TEST_SEED", "20261123"))
#: Odd answers a run gets before its app comes to its senses and returns.
_PER_RUN = 12
_AT_ONCE = 60
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

    dice: Random = field(default_factory=lambda: Random(SEED))
    answered: int = 0
    of_run: dict[str, int] = field(default_factory=dict)

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
        if "app.test" in url:
            run_id = json.loads(body)["ctx"]["run_id"]
            self.of_run[run_id] = count = self.of_run.get(run_id, 0) + 1
            if count > _PER_RUN:
                return result("enough")
        return odd_answer(self.dice)


def _resident() -> int | None:
    """Bytes this process has in memory; None where nobody says."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _settled(app: Broken) -> None:
    """Nothing is left that could go on by itself."""
    await app.until(f"select 1 where ({_UNSETTLED}) = 0", app.scope.environment_id)


async def _cancel_the_rest(app: Broken) -> None:
    clock = DatabaseClock()
    for row in await app.rows(
        "select id from runs where environment_id = $1 and ended_at is null", app.scope.environment_id
    ):
        try:
            await change_run(app.pool, RunId(row["id"]), CancelRequested("api"), clock=clock)
        except RunEnded:
            continue


@pytest.mark.timeout(120 + ANSWERS * 0.05)
async def test_no_answer_of_an_app_breaks_the_engine(database: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    start: int | None = None
    async with playing(database, Broken) as app:
        assert isinstance(app, Broken)
        step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": "http://app.test/api/inngest"}}
        await app.function(
            "fuzz", lambda _s, _t: result("never asked"), steps={"step": {**step, "retries": {"attempts": 1}}}
        )
        while app.answered < ANSWERS:
            events = [NewEvent("fuzz/sent", b'{"n":%d}' % n, 1_700_000_000_000) for n in range(_AT_ONCE)]
            await app.ingest.add(app.scope, events)
            app.bell.ring()
            await _settled(app)
            if start is None or app.answered < ANSWERS // 10:
                async with app.pool.acquire() as connection:
                    assert await violations(connection) == [], f"seed {SEED}"
                gc.collect()
                start = _resident()
            await _cancel_the_rest(app)
            app.of_run.clear()
        await _settled(app)
        gc.collect()
        grown = (_resident() or 0) - (start or 0)
        async with app.pool.acquire() as connection:
            assert await violations(connection) == [], f"seed {SEED}"
        ends: dict[str, Any] = {
            row["status"]: row["count"]
            for row in await app.rows(
                "select status, count(*) from runs where environment_id = $1 group by 1", app.scope.environment_id
            )
        }
    unexpected = [
        r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR and r.getMessage() != "entry refused"
    ]
    assert unexpected == [], f"seed {SEED}"
    assert set(ends) <= {"completed", "failed", "cancelled"}
    assert min(ends.values()) > 0
    assert grown < _GROWTH_BYTES, f"grew by {grown} bytes over {app.answered} answers"
