"""The engine of one worker process: four loops around the stations, and a heartbeat that holds its leases.

    bell ──► work loop: react (inbox → runs) and lease (queue → drivers), while there is room
    heartbeat: renews ONE row for all leases; a renewal that touches no row drops everything (rule 10)
    keepers: rescue, sweep, recheck every second; house: retention and tidying every ten minutes

It starts before and apart from arq and works with Redis absent: then the bell is a timer of at most a second.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from app import telemetry
from app.adapters.http import Caller
from app.adapters.redis import RUN_CHANGED, Heard
from app.adapters.sealing import Sealer
from app.domain.errors import Outside
from app.domain.ids import RunId, WorkerId, parse_ulid, to_ulid
from app.domain.protocol.call import ServerKind
from app.domain.run.effects import OpenPause
from app.domain.run.happenings import Happening
from app.engine import bulk, pause_points
from app.engine.apply import Entry
from app.engine.breaker import LONGEST_PAUSE_S, Breaker
from app.engine.catalogue import Catalogue
from app.engine.clock import DatabaseClock
from app.engine.dispatch import Dispatch
from app.engine.execute import Execute
from app.engine.gateway import Gateway
from app.engine.keepers import branches, cron, erasure, merge, orders, recheck, rescue, retention, tidy
from app.engine.keepers.sweep import Sweep, free_orphans
from app.engine.overrides import end_due
from app.engine.queue import Looks, lease
from app.engine.react import React, Reacted
from app.engine.repairs import note
from app.engine.transition import Committer, RunEnded, RunUnknown, change_run
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: The longest a worker waits without looking: a lost hint costs a second (rule 17), of which the look takes a part.
_LONGEST_WAIT_S = 0.8
#: Lanes remembered to be looked at next; a hint too many costs a second (rule 17).
_MOST_HINTS = 4_096
#: When a worker that holds all it may looks whether it may hold more.
_RISING_S = 0.05
#: First items react may lease to this worker in one round; the rest is for anyone.
_REACT_ROOM = 64
#: The same while the worker is crowded: beyond what it may hold, and only for those of whom it holds nothing.
_NEWCOMERS = 8
#: Seconds after which the inbox is looked at whatever the bell says; each look costs three answers of the database.
_UNRUNG_S = 0.05
#: Channels on which `_after_commit` and the web process say that a run changed.
_CHANGES = f"{RUN_CHANGED}*"
#: How long a bulk action waits for a worker when nobody says that there is one.
_BULK_LOOK_S = 2.0
_MERGE_S = 60.0
#: The database is away, or not there yet.
UNREACHABLE = (*CONNECTION_LOST, Outside)


class DoorBell(Protocol):
    """What the engine needs of Redis; every method works, slowly, without it."""

    def ring(self, lanes: Any = None) -> None:
        """Wake the workers, with lanes that have work."""

    async def wait(self, timeout: float) -> list[bytes]:
        """Sleep until somebody rings, at most `timeout` seconds."""

    def subscribe(self, pattern: str) -> AsyncIterator[Heard]:
        """Messages of the channels that match, for ever; an empty channel is the news that some may have been missed."""

    def publish(self, channel: str, message: str) -> None:
        """Tell the pages that a run changed."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs to know; times in seconds unless said otherwise."""

    name: str = ""
    lease_s: float = 30.0
    renew_s: float = 5.0
    max_calls: int = 256
    call_timeout_s: float = 7200.0
    server_kind: ServerKind = "cloud"
    is_signed: bool = True
    retry_delay: timedelta | None = None
    #: How long one's own machine keeps what has ended; None is what its plan says.
    retention: timedelta | None = None
    #: How often what is past its time is dropped; the first time after a twentieth of it, when a start is over.
    housekeeping_s: float = 600.0
    #: An item the rows say we hold and we do not is given back when it is this old; longer than any statement may take.
    forgotten_s: float = 15.0
    #: The longest pause of calls to an app that does not answer.
    longest_hold_s: float = LONGEST_PAUSE_S


@dataclass(slots=True)
class Engine:
    """One worker. `start`, then it lives until `stop`; `lost` is set when its leases were taken from it."""

    pool: Pool
    cold_pool: Pool
    caller: Caller
    bell: DoorBell
    catalogue: Catalogue
    settings: EngineSettings
    #: Seals the requests of gateway steps. The default is for a worker that is alone: no other could open them.
    sealer: Sealer = field(default_factory=lambda: Sealer(secrets.token_hex(32)))
    clock: DatabaseClock = field(default_factory=DatabaseClock)
    worker_id: WorkerId = field(default_factory=lambda: WorkerId(uuid.uuid4()))
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _waits_opened: asyncio.Event = field(default_factory=asyncio.Event)
    _bulk_asked: asyncio.Event = field(default_factory=asyncio.Event)
    _hints: set[UUID] = field(default_factory=set)
    _looks: Looks = field(default_factory=Looks)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _is_stopping: bool = False
    #: Whether there may be events in the inbox, and when to look without being told (monotonic).
    _has_news: bool = True
    _look_at: float = 0.0
    #: Until when, by the loop's clock, the list of workers has us for certain.
    _listed_until: float = 0.0
    _sweep: Sweep = field(default_factory=Sweep)
    committer: Committer = field(init=False)
    execute: Execute = field(init=False)
    react: React = field(init=False)

    def __post_init__(self) -> None:
        """Build the stations around the pools."""
        s = self.settings
        self.committer = Committer(
            self.pool,
            self.worker_id,
            self.clock,
            s.retry_delay,
            self.catalogue.is_limited,
            self.sealer.seal,
            self._after_commit,
        )
        dispatch = Dispatch(self.caller, self.clock, s.server_kind, s.is_signed, s.call_timeout_s)
        self.execute = Execute(
            self.pool,
            self.committer,
            dispatch,
            self.catalogue,
            self.clock,
            Gateway(self.pool, self.caller, self.sealer, self.clock, s.call_timeout_s),
            s.max_calls,
            s.retry_delay,
            on_room=self._wake.set,
            breaker=Breaker(longest_s=s.longest_hold_s),
        )
        self.react = React(self.pool, self.catalogue, self.clock, self.worker_id, self.resume, s.retry_delay)

    async def start(self) -> None:
        """Register the worker and begin; waits for the database, however long it takes to come."""
        self._listed_until = await self._register(self.worker_id)
        self.committer.start()
        self._tasks = [
            asyncio.create_task(self._listen(), name="bell"),
            asyncio.create_task(self._work(), name="work"),
            asyncio.create_task(self._heartbeat(), name="heartbeat"),
            asyncio.create_task(self._keep(), name="keepers"),
            asyncio.create_task(self._keep_house(), name="house"),
            asyncio.create_task(self._look_again(), name="waits"),
            asyncio.create_task(self._hear_changes(), name="changes"),
            asyncio.create_task(self._work_off_bulk(), name="bulk"),
        ]

    def wake(self, lanes: list[UUID] | None = None) -> None:
        """Look for work now, in these lanes whatever their clock says."""
        if lanes and len(self._hints) < _MOST_HINTS:
            self._hints.update(lanes)
        self._wake.set()

    def wake_bulk(self) -> None:
        """Look for bulk actions now."""
        self._bulk_asked.set()

    async def stop(self, grace_s: float = 25.0, hand_back_s: float = 4.0) -> None:
        """Stop leasing, hand back what was not called, let calls end, hand back the rest. Costs no counted attempt (F5).

        Calls get `grace_s`, handing back `hand_back_s`; what a database that does not answer keeps longer is left to the
        end of the lease.
        """
        self._is_stopping = True
        self.execute.is_stopping = True
        for task in self._tasks:
            if task.get_name() in {"bell", "work", "keepers", "house", "waits", "changes", "bulk"}:
                task.cancel()
        await self.execute.drain(grace_s)
        try:
            async with asyncio.timeout(hand_back_s):
                await self._hand_back()
        except UNREACHABLE:
            log.warning("could not leave the list of workers; the lease will run out")

    async def _hand_back(self) -> None:
        await self.execute.give_up()
        await self.committer.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self.cold_pool.acquire(timeout=2) as connection:
            await fetch(connection, named("workers", "release_all"), worker=self.worker_id)
            await fetch(connection, named("workers", "leave"), id=self.worker_id)

    async def keep_once(self) -> None:
        """What the keepers do every second."""
        while rescued := await rescue.run_once(self.cold_pool):
            await note(self.cold_pool, "rescue", rescued)
            self._wake.set()
        s = self.settings
        if given := await rescue.give_back(
            self.cold_pool, self.worker_id, self.execute.held, self.committer.writing, timedelta(seconds=s.forgotten_s)
        ):
            await note(self.cold_pool, "give_back", given)
            self._wake.set()
        await note(self.cold_pool, "orphan", await free_orphans(self.cold_pool))
        if wrong := await self._sweep.run_once(self.cold_pool):
            await note(self.cold_pool, "sweep", len(wrong))
            self.wake(wrong)
        if freed := await end_due(self.cold_pool):
            self.wake(freed)
        await orders.run_once(self.cold_pool, self.clock, self._after_commit)
        await note(self.cold_pool, "recheck", await recheck.run_once(self.cold_pool, self.resume))
        await cron.run_once(self.cold_pool, self.react, self._fired)

    def look(self) -> None:
        """Set the gauges of this worker (engine/vitals.py asks before each snapshot)."""
        telemetry.gauge("stepwell_items_held", self.execute.in_flight)
        telemetry.gauge("stepwell_items_limit", self.execute.pace.limit)

    async def _fired(self, reacted: Reacted) -> None:
        """Runs that time started are leased by whoever has room."""
        if reacted.left_ready:
            self._wake.set()
            self.bell.ring()

    async def resume(self, run_id: RunId, happening: Happening) -> None:
        """Move a run that waits; one that is over or unknown does not mind."""
        try:
            entry = await change_run(
                self.cold_pool,
                run_id,
                happening,
                clock=self.clock,
                retry_delay=self.settings.retry_delay,
            )
        except (RunUnknown, RunEnded):
            return
        self._after_commit([entry])

    def _after_commit(self, entries: list[Entry]) -> None:
        """Ring for what others may do now, tell the pages, and take the second look of new waits."""
        lanes: set[UUID] = set()
        for entry in entries:
            if entry.readies or (entry.facts.is_limited and not entry.successors):
                lanes.add(entry.facts.lane_id)
            self.bell.publish(f"{RUN_CHANGED}{entry.facts.scope.environment_id}", to_ulid(entry.run.id))
            if any(isinstance(effect, OpenPause) and effect.event for effect in entry.effects):
                self._waits_opened.set()
        if lanes:
            self.wake(list(lanes))
            if self.execute.room <= 0:
                # Work we cannot take; somebody else may.
                self.bell.ring([lane.bytes for lane in lanes])
        if any(entry.emits for entry in entries):
            self._has_news = True
            self._wake.set()

    async def _look_again(self) -> None:
        """The second look of waits that this worker opened (rule 15), one look at a time however many were opened."""
        while True:
            await self._waits_opened.wait()
            self._waits_opened.clear()
            await pause_points.reached("look.before")
            try:
                await recheck.run_once(self.cold_pool, self.resume, timedelta(0))
            except Exception:
                log.exception("a second look failed; the keeper takes it")

    async def _hear_changes(self) -> None:
        """A run changed somewhere: calls of it that wait to be sent look first (rule 16). A hint; losing it costs a call."""
        async for heard in self.bell.subscribe(_CHANGES):
            run_id = parse_ulid(heard.message) if isinstance(heard.message, str) else None
            if run_id is not None:
                self.execute.doubt(RunId(run_id))

    async def _work_off_bulk(self) -> None:
        """Slices of bulk actions, one after the other, beside everything else."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bulk_asked.wait(), _BULK_LOOK_S)
            self._bulk_asked.clear()
            try:
                while await bulk.run_once(self.cold_pool, self.clock, self._after_bulk):
                    pass
            except UNREACHABLE as error:
                log.warning("bulk actions wait for the database", extra={"error": repr(error)})
            except Exception:
                log.exception("a bulk action failed")

    def _after_bulk(self, done: bulk.Done) -> None:
        if done.entry is not None:
            self._after_commit([done.entry])
        if done.new_run_id is not None:
            self.bell.publish(f"{RUN_CHANGED}{done.scope.environment_id}", to_ulid(done.new_run_id))
            self.bell.ring()
            self.wake()

    async def _register(self, worker_id: WorkerId) -> float:
        """Put an id on the list of workers; gives until when it is there, by the loop's clock."""
        s = self.settings
        while True:
            try:
                asked_at = asyncio.get_running_loop().time()
                async with self.cold_pool.acquire(timeout=5) as connection:
                    await fetch(
                        connection,
                        named("workers", "register"),
                        id=worker_id,
                        name=s.name,
                        host=socket.gethostname(),
                        pid=os.getpid(),
                        lease=timedelta(seconds=s.lease_s),
                    )
                return asked_at + s.lease_s
            except UNREACHABLE as error:
                log.warning("database not reachable, trying again", extra={"error": repr(error)})
                await asyncio.sleep(1)

    async def _listen(self) -> None:
        """The bell wakes the engine directly; arq is not in between."""
        while True:
            for raw in await self.bell.wait(_LONGEST_WAIT_S):
                if len(raw) != 16:
                    self._has_news = True
                elif len(self._hints) < _MOST_HINTS:
                    self._hints.add(UUID(bytes=raw))
            self._wake.set()

    async def _work(self) -> None:
        pause = 0.0
        while True:
            try:
                timeout = await self._round() if pause == 0.0 else pause
                pause = 0.0
            except UNREACHABLE as error:
                log.warning("database does not answer, waiting", extra={"error": repr(error)})
                pause = 0.5
                continue
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("round failed")
                pause = 0.5
                continue
            if timeout > 0:
                # Not wait_for: before Python 3.12 it forgets a cancellation that comes together with the wake-up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
            self._wake.clear()

    async def _round(self) -> float:
        """React and lease once; returns how long nothing will be due (0: there is more now)."""
        hints, self._hints = self._hints, set()
        asked_at = time.monotonic()
        await asyncio.sleep(0)
        self.execute.pace.passed(time.monotonic() - asked_at, self.execute.in_flight)
        reacted = await self._react()
        room = self.execute.room if self._is_listed else 0
        leased = 0
        if room > 0:
            asked_at = time.monotonic()
            found, now = await lease(self.pool, self.worker_id, room, hints, self._looks)
            if now is not None:
                self.clock.saw(now)
            if found:
                await self.execute.start_leased(found, asked_at)
            leased = len(found)
            telemetry.count("stepwell_leases_taken_total", leased)
        self.execute.is_crowded = room <= leased
        if reacted.events or leased:
            return 0.0
        if room <= 0:
            if len(self._hints) < _MOST_HINTS:
                self._hints |= hints
            return _RISING_S if self.execute.pace.is_rising else _LONGEST_WAIT_S
        return await self._until_due()

    async def _react(self) -> Reacted:
        asked_at = time.monotonic()
        if not self._has_news and asked_at < self._look_at:
            return Reacted()
        self._has_news, self._look_at = False, asked_at + _UNRUNG_S
        room, present = min(self.execute.room, _REACT_ROOM), None
        if not self._is_listed:
            room = 0
        elif self.execute.is_crowded:
            # New runs may not overtake work that already waits for room, but those of others do not wait behind it.
            room, present = self.execute.room_beyond(_NEWCOMERS), self.execute.environments
        reacted = await self.react.round(room, present)
        self._has_news = self._has_news or reacted.events > 0
        for hot, item in reacted.started:
            self.execute.start(hot, item, asked_at)
        if reacted.owes_look:
            self._waits_opened.set()
        if reacted.left_ready:
            self.bell.ring()
        return reacted

    @property
    def _is_listed(self) -> bool:
        """Whether the list of workers has us for certain, and not only if we were not frozen. Else nothing may be leased:
        others would rescue it at once, and its calls would be made twice.
        """
        return asyncio.get_running_loop().time() < self._listed_until

    async def _until_due(self) -> float:
        async with self.pool.acquire(timeout=10) as connection:
            row = (await fetch(connection, named("workers", "next_due")))[0]
        self.clock.saw(row["now"])
        if row["has_timers"]:
            await cron.run_once(self.cold_pool, self.react, self._fired)
            return 0.0
        due = row["next_due"]
        if due is None or due.year >= datetime.max.replace(tzinfo=UTC).year:
            return _LONGEST_WAIT_S
        return float(min(max((due - row["now"]).total_seconds(), 0.001), _LONGEST_WAIT_S))

    async def _heartbeat(self) -> None:
        """Renew the one row; when it is gone, everything held is dropped and the worker starts under a new id."""
        s = self.settings
        while True:
            await asyncio.sleep(s.renew_s)
            try:
                await pause_points.reached("heartbeat")
                asked_at = asyncio.get_running_loop().time()
                async with self.cold_pool.acquire(timeout=5) as connection:
                    rows = await fetch(
                        connection, named("workers", "renew"), id=self.worker_id, lease=timedelta(seconds=s.lease_s)
                    )
            except UNREACHABLE as error:
                log.warning("could not renew the lease", extra={"error": repr(error)})
                continue
            except Exception:
                # Whatever it was: a worker whose heart stops goes on leasing what others then rescue from it, for ever.
                log.exception("could not renew the lease")
                continue
            if rows:
                self.clock.saw(rows[0]["now"])
                self._listed_until = asked_at + s.lease_s
                continue
            self._listed_until = 0.0
            log.error("lost all leases; starting under a new id", extra={"worker_id": str(self.worker_id)})
            self.execute.forget_all()
            self.committer.forget_all()
            new_id = WorkerId(uuid.uuid4())
            # Under the old id until the new one is on the list: what nobody on it holds is rescued at once.
            listed_until = await self._register(new_id)
            self.worker_id = self.committer.worker_id = self.react.worker_id = new_id
            self._listed_until = listed_until
            self._wake.set()

    async def _keep(self) -> None:
        last_merge = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self.keep_once()
                if loop.time() - last_merge > _MERGE_S:
                    last_merge = loop.time()
                    await merge.run_once(self.cold_pool)
            except UNREACHABLE as error:
                log.warning("keepers wait for the database", extra={"error": repr(error)})
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("a keeper failed")
            await asyncio.sleep(1.0)

    async def _keep_house(self) -> None:
        """What may take minutes, apart from the keepers that others wait for."""
        s = self.settings
        await asyncio.sleep(s.housekeeping_s / 20)
        while True:
            try:
                await retention.run_once(self.cold_pool, retention.keeps_of(s.retention))
                await tidy.run_once(self.cold_pool)
                await branches.run_once(self.cold_pool)
                await erasure.run_once(self.cold_pool)
            except UNREACHABLE as error:
                log.warning("housekeeping waits for the database", extra={"error": repr(error)})
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("housekeeping failed")
            await asyncio.sleep(s.housekeeping_s)
