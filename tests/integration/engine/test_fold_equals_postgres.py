"""Law 6: the fold of the effects is the run read back from Postgres, over random functions and histories.

The histories are those of the unit tests' pretended engine, with lost and doubled answers; every commit of them is made
again in the real store, and what is read back is compared. `STEPWELL_TEST_SIZE=full` makes it many more.
"""

import os
import uuid
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.domain.ids import RunId, ulid_of
from app.domain.run.effects import ClosePause, Effect, EnqueueItem, FinishRun, OpenPause, ResetAttempt, RetryItem
from app.domain.run.fold import fold_all
from app.domain.run.state import Run
from app.domain.scope import Scope
from app.engine.apply import Entry, write
from app.engine.hot import HotRun, hot_run
from app.store.commit import Batch, commit
from app.store.named import fetch, named
from tests.integration.engine.world import World, in_turn
from tests.invariants import violations
from tests.unit.domain.run.programs import STYLES, Node, Style, programs
from tests.unit.domain.run.world import NOW
from tests.unit.domain.run.world import World as Pretended

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
HISTORIES = 400 if IS_FULL else 3
#: Commits of a history that are made again.
_LONGEST = 1500 if IS_FULL else 50


@dataclass
class Recorded(Pretended):
    """A pretended engine that remembers its commits: the run before, and the effects."""

    commits: list[tuple[Run, list[Effect]]] = field(default_factory=list)

    def _commit(self, effects: list[Effect]) -> None:
        if not self.run.is_ended:
            # All signals of these programs have one name; the store lets one step wait for it.
            named = [replace(e, signal=e.step_key) if isinstance(e, OpenPause) and e.signal else e for e in effects]
            self.commits.append((self.run, named))
        super()._commit(effects)


@settings(
    max_examples=HISTORIES, deadline=None, phases=(Phase.explicit, Phase.generate), database=None, print_blob=True, report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(program=programs(), style=STYLES, seed=st.integers(0, 2**32))
async def test_the_fold_of_the_effects_is_the_run_read_back(
    world: World, program: tuple[Node, ...], style: Style, seed: int
) -> None:
    history = Recorded(program, style, seed)
    history.live()
    for table in ("runs", "steps", "items", "pauses", "history"):
        await world.owner.execute(f"delete from {table}")
    await _Replay(world, Random(seed)).play(history.commits)


@dataclass
class _Replay:
    world: World
    rng: Random
    run_id: RunId = field(default_factory=lambda: RunId(ulid_of(1_790_000_000_000, os.urandom(10))))

    async def play(self, commits: list[tuple[Run, list[Effect]]]) -> None:
        """Make the commits, now and then two in one entry, and look after each."""
        stored = await self._insert(commits[0][0])
        rest = commits[:_LONGEST]
        while rest:
            before, effects = rest.pop(0)
            if rest and self.rng.random() < 0.3 and _may_go_together(effects, rest[0][1]):
                effects = effects + rest.pop(0)[1]
            run = replace(before, id=self.run_id, version=stored.run.version)
            async with self.world.pool.acquire() as connection:
                batch = Batch()
                write(batch, 0, Entry(run, stored.facts, effects, seal=_seal), NOW)
                won = await commit(connection, batch, uuid.uuid4())
                assert set(won) == {0}
                stored = await self._load(connection)
            assert _picture(stored.run) == _picture(replace(fold_all(run, effects), version=run.version + 1))
        assert await violations(self.world.owner) == []

    async def _insert(self, run: Run) -> HotRun:
        """The row of a run that has not begun, of the one function of the world."""
        world = self.world
        if await world.run(self.run_id) is None and not await world.value("select exists (select from functions)"):
            await world.function("order", in_turn("a"))
            await world.send("order/sent")
        await world.owner.execute(
            "insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status,"
            " commit_id, max_attempts, event_id, event_received_at, event_name, queued_at, original_run_id)"
            " select $1, f.account_id, f.environment_id, f.app_id, f.id, f.version, l.id, 'queued', gen_random_uuid(), $2,"
            " e.id, e.received_at, e.name, clock(), gen_random_uuid()"
            " from functions f join lanes l on l.function_id = f.id"
            " join events e on e.environment_id = f.environment_id and e.name = 'order/sent'",
            self.run_id, run.retry.max_attempts,
        )  # fmt: skip
        async with world.pool.acquire() as connection:
            return await self._load(connection)

    async def _load(self, connection: Any) -> HotRun:
        rows = await fetch(connection, named("lease", "load"), run_ids=[self.run_id], with_memos=True)
        return hot_run(rows[0], None)


def _may_go_together(first: list[Effect], second: list[Effect]) -> bool:
    """Whether a worker could have both ready at once: the run goes on, and nothing is tried again or ended that only the
    first one makes. An item may well be tried again by the one and settled by the other, which knows its step's result.
    """
    if any(isinstance(e, FinishRun) for e in first):
        return False
    made = {e.key for e in first if isinstance(e, EnqueueItem)}
    opened = {e.step_key for e in first if isinstance(e, OpenPause)}
    return not any(
        (isinstance(e, RetryItem | ResetAttempt) and e.key in made)
        or (isinstance(e, ClosePause) and e.step_key in opened)
        for e in second
    )


def _picture(run: Run) -> dict[str, object]:
    """What both sides know of a run."""
    return {
        "status": run.status, "version": run.version, "request_version": run.request_version, "is_planned": run.is_planned,
        "completed": run.completed, "pending": run.pending, "group": run.group, "discoveries": run.discoveries,
        "state_bytes": run.state_bytes, "steps": dict(sorted(run.steps.items())), "items": dict(sorted(run.items.items())),
    }  # fmt: skip


def _seal(text: str, _scope: Scope) -> bytes:
    return text.encode()
