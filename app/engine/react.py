"""Station 2, a spine: what does an event set off?

    claim inbox rows ─► match functions ─► schedule: runs and first items ─► inbox row gone     one transaction (tx B)
                     └► waits and parents it ends: handed to `transition`, one each, before the row goes
    timers of gates ──► schedule: runs of debounces and batches                                 one transaction

A crash before the commit leaves the rows in the inbox: everything here may be done twice, because ids are derived and
waits are closed under the lock of their run. First items are committed as leased to this worker while it has room, so
an idle engine needs two commits between an event and the first call of its run (architecture 6).
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from app import telemetry
from app.domain.errors import Outside
from app.domain.event import INVOKED
from app.domain.ids import EnvironmentId, FunctionId, RunId, WorkerId
from app.domain.limits import MIB
from app.domain.run.happenings import Happening, Resumed
from app.domain.scope import Scope
from app.engine import pause_points
from app.engine.arm import Fresh, arm, must_arm
from app.engine.catalogue import Catalogue, EnvironmentView, KnownFunction
from app.engine.clock import DatabaseClock
from app.engine.crons import fire
from app.engine.hot import HotRun, LeasedItem
from app.engine.schedule import Plan, Schedule, Wish
from app.engine.stored import parent_of, stored_event
from app.engine.waits import child_refused, waits_ended_by
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Events claimed in one transaction.
BATCH = 200
#: Octets of their payloads that are meant to be in memory at once: after a claim with more, the next is smaller.
_MOST_OCTETS = 32 * MIB
#: Pairs of environment and name that share the room of one claim.
TURNS = 64
#: Seconds an event stays aside that could not be reacted to: because a run it resumes was busy, or for reasons unknown.
_BUSY_S, _BROKEN_S = 1.0, 30.0


_NOBODY = (UUID(int=0), "")


@dataclass(slots=True)
class Reacted:
    """What a round did: hot runs whose first item is ours, and whether items were left for others."""

    events: int = 0
    started: list[tuple[HotRun, LeasedItem]] = field(default_factory=list)
    left_ready: bool = False
    #: Rules were set up that owe a look at events that came in meanwhile.
    owes_look: bool = False


@dataclass(slots=True)
class React:
    """The station of one worker."""

    pool: Pool
    catalogue: Catalogue
    clock: DatabaseClock
    worker_id: WorkerId
    #: Moves a waiting run: (run, happening); returns when it is committed or was not needed.
    resume: Callable[[RunId, Happening], Awaitable[None]]
    retry_delay: timedelta | None = None
    _most: int = BATCH
    #: Events of the size of the last claim's that fit into memory.
    _fits: int = BATCH
    #: Events that are left in the inbox for now, and until when (monotonic).
    _aside: dict[UUID, float] = field(default_factory=dict)
    #: The pair of environment and name that was served last, where the next claim goes on.
    _served: tuple[UUID, str] = _NOBODY
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        """Give the station of runs what it needs of this one."""
        self.schedule = Schedule(self.clock, self.retry_delay)

    async def round(self, room: int, present: Collection[EnvironmentId] | None = None) -> Reacted:
        """Claim up to `BATCH` events and commit what they set off; `room` first items are leased to this worker.

        With `present`, others wait for room: only those are leased whose environment is not among these, one for each, and
        only where nothing waits in their lane.

        When something goes wrong with claimed events, fewer are claimed next time, until the one that cannot be reacted
        to is alone and is left aside for a while. It stays in the inbox, and the others go on.
        """
        claimed: list[UUID] = []
        try:
            out = await self._round(room, present, claimed)
        except (*CONNECTION_LOST, Outside):
            raise
        except Exception as error:
            if not claimed:
                raise
            log.exception("could not react to events", extra={"events": len(claimed)})
            if len(claimed) == 1:
                is_busy = isinstance(error, asyncpg.LockNotAvailableError)
                self._leave_aside(claimed[0], _BUSY_S if is_busy else _BROKEN_S)
            self._most = max(1, len(claimed) // 2)
            return Reacted(len(claimed))
        self._most = min(BATCH, self._most * 2, self._fits)
        return out

    def _leave_aside(self, event_id: UUID, seconds: float) -> None:
        self._aside[event_id] = time.monotonic() + seconds

    def _set_aside(self) -> list[UUID]:
        if self._aside:
            now = time.monotonic()
            self._aside = {event_id: until for event_id, until in self._aside.items() if until > now}
        return list(self._aside)

    async def _round(self, room: int, present: Collection[EnvironmentId] | None, claimed: list[UUID]) -> Reacted:
        out = Reacted()
        async with self.pool.acquire(timeout=10) as connection, connection.transaction():
            rows = await fetch(
                connection,
                named("inbox", "claim"),
                room=self._most,
                turns=TURNS,
                set_aside=self._set_aside(),
                after_environment=self._served[0],
                after_name=self._served[1],
            )
            if not rows:
                return out
            last = max(rows, key=lambda row: row["turn"])
            self._served = (last["environment_id"], last["name"])
            claimed += [row["event_id"] for row in rows]
            out.events = len(rows)
            octets = sum(len(row["payload"]) for row in rows)
            self._fits = BATCH if octets <= _MOST_OCTETS else max(1, len(rows) * _MOST_OCTETS // octets)
            now = rows[0]["now"]
            self.clock.saw(now)
            await pause_points.reached("react.claimed", [r["event_id"] for r in rows])
            plan = Plan()
            wishes: list[Wish] = []
            done: list[Any] = []
            busy = await self._wake_waits(connection, rows)
            for n, row in enumerate(rows):
                if n in busy:
                    continue
                done.append(row)
                scope = Scope(row["account_id"], row["environment_id"])
                view = await self.catalogue.view(scope, row["catalogue_version"])
                self._functions(row, view, wishes, plan)
            await self.schedule.decide(connection, wishes, plan, now)
            made = await self._write(connection, plan, done, room, present) if done else {}
        await pause_points.reached("react.committed", list(made))
        telemetry.count("stepwell_events_reacted_total", len(done))
        self._tell(out, plan, made)
        return out

    async def _wake_waits(self, connection: Any, rows: list[Any]) -> set[int]:
        """Move the runs that wait for claimed events; the places of events for which one of them is busy.

        Before the inbox rows go for good: a crash here repeats the wake-ups, and a closed wait ignores them.
        """
        busy: set[int] = set()
        moved: set[tuple[RunId, str]] = set()
        async for n, run_id, happening in waits_ended_by(connection, rows):
            # The first event ends a wait; those behind it in this claim were asked for before that was committed.
            wait = (run_id, happening.step_key if isinstance(happening, Resumed) else "")
            if wait in moved:
                continue
            try:
                await self.resume(run_id, happening)
                moved.add(wait)
            except asyncpg.LockNotAvailableError:
                # Somebody sits on the run; the event waits, and the others do not (F9).
                busy.add(n)
                self._leave_aside(rows[n]["event_id"], _BUSY_S)
        return busy

    async def fire_due(self) -> Reacted:
        """Start the runs of debounces and batches whose time has come."""
        return await self._fire(self.schedule.fire_due)

    async def fire_crons(self) -> Reacted:
        """Start the runs of crons that are due."""
        return await self._fire(lambda connection, view_of, plan: fire(connection, self.schedule, view_of, plan))

    async def _fire(self, station: Callable[[Any, Any, Plan], Awaitable[datetime | None]]) -> Reacted:
        out = Reacted()
        async with self.pool.acquire(timeout=10) as connection, connection.transaction():
            plan = Plan()
            now = await station(connection, self._view_of, plan)
            if now is None:
                return out
            out.events = 1
            self.clock.saw(now)
            made = await self._write(connection, plan, [])
        await pause_points.reached("react.fired", list(made))
        self._tell(out, plan, made)
        return out

    async def _view_of(self, row: Any) -> EnvironmentView:
        return await self.catalogue.view(Scope(row["account_id"], row["environment_id"]), row["catalogue_version"])

    async def _write(
        self,
        connection: Any,
        plan: Plan,
        rows: list[Any],
        room: int = 0,
        present: Collection[EnvironmentId] | None = None,
    ) -> dict[UUID, bool]:
        """Write what was planned; the runs made, and whether their first item is ours."""
        self.schedule.lease_first(plan.runs, room, present)
        # Before the inbox rows go for good, as above. And before anything is written here: who is woken may need the lanes.
        for run_id, happening in plan.wakes:
            await self.resume(run_id, happening)
        made = await self.schedule.create(connection, self.worker_id, plan, rows, is_crowded=present is not None)
        fresh = [
            Fresh(new.hot.run.id, new.hot.facts.scope, new.event.payload, new.known.function, new.event.ref.received_at)
            for new in plan.runs
            if must_arm(new.known.function) and new.hot.run.id in made and new.skip is None
        ]
        if fresh:
            plan.owes_look = await arm(connection, fresh)
        return made

    @staticmethod
    def _tell(out: Reacted, plan: Plan, made: dict[UUID, bool]) -> None:
        out.owes_look = plan.owes_look
        for new in plan.runs:
            if new.hot.run.id in made and new.skip is None:
                telemetry.count("stepwell_runs_started_total")
                if new.lease is not None and made[new.hot.run.id]:
                    out.started.append((new.hot, new.lease))
                else:
                    out.left_ready = True

    def _functions(self, row: Any, view: EnvironmentView, wishes: list[Wish], plan: Plan) -> None:
        """The functions an event may start, and those whose expressions say no."""
        event = stored_event(row)
        if event.name == INVOKED:
            decoded = event.decoded()
            wanted = str((decoded["data"].get("_inngest") or {}).get("fn_id") or "")
            parent = parent_of(decoded)
            known = view.by_slug.get(wanted) or _by_uuid(view, wanted)
            if known is not None and not known.is_archived:
                wishes.append(Wish(event, view, known, parent))
            elif parent:
                plan.wakes.append((parent[0], child_refused(parent[1], f"could not find function with ID: {wanted}")))
            return
        matches = view.triggers.match(event.name, event.decoded, self.clock.now())
        for filtered in matches.filtered:
            outcome = "filtered" if filtered.reason == "filter" else "expression_error"
            plan.answer(view, event.ref.id, filtered.function, outcome, filtered.detail or "")
        wishes += [Wish(event, view, view.functions[function_id]) for function_id in matches.matched]


def _by_uuid(view: EnvironmentView, text: str) -> KnownFunction | None:
    try:
        return view.functions.get(FunctionId(UUID(text)))
    except ValueError:
        return None
