"""The one door that changes a run: happenings in, committed effects out.

`Committer` serves a worker, which holds leases and a copy of the run in memory; `change_run` serves everybody else
(checkpoints, cancels, wake-ups), who hold nothing. Both end in the same statement (store/commit.py).

    submit ─► queue of the run ─► batch ─► commit ─┬─ won ──────► memory folds forward, successors go on
                 (one entry per run,               └─ not won ──► slow path: lock the run, THEN read it again,
                  folded in order)                                advance again, commit: won, or lost for good

Who is authoritative for what
- the run row: version, counters, status. Memory is a copy and is thrown away when a guard fails.
- the item row: fence and attempt. A fence that moved means that somebody rescued the item: the answer is late.
- this module: the order in which happenings of one run are folded. Nobody else may call `advance` and write.

Optimism is tried once. There is no timer: a batch goes when the previous one is back, so an idle engine commits at
once and a busy one in large batches (architecture D4).
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg

from app.domain.ids import RunId, WorkerId
from app.domain.run.advance import advance
from app.domain.run.effects import Effect, Ignore
from app.domain.run.fold import fold_all
from app.domain.run.happenings import CancelRequested, Happening, SignalRefused
from app.domain.run.state import Run
from app.domain.scope import Scope
from app.engine import pause_points
from app.engine.apply import Entry, Told, write
from app.engine.claims import claim_signals, wanted_signals
from app.engine.clock import DatabaseClock
from app.engine.hot import HotRun, LeasedItem, hot_run
from app.store.commit import Batch, Won, commit
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Two open batches: one on its way to the disk, one being filled (rule 5).
_WRITERS = 2
#: Runs in one batch; above it the statement's arrays cost more latency than they save.
_BATCH = 128
#: Tries without waiting before a busy run is waited for (rule 6).
_BUSY_TRIES = 3


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a happening.

    `won`: written; `successors` are the items now leased to the worker. `lost`: somebody else moved the run or the item,
    the happening changed nothing.
    """

    is_won: bool
    successors: tuple[LeasedItem, ...] = ()


LOST = Decision(False)


@dataclass(slots=True)
class Pending:
    """A happening on its way into a commit."""

    hot: HotRun
    happening: Happening
    lease: LeasedItem | None
    told: Told | None
    room: int
    future: "asyncio.Future[Decision]"
    tries: int = 0


@dataclass(slots=True)
class Committer:
    """Group commit of a worker's runs. Start with `start`, end with `stop` (drains first)."""

    pool: Pool
    worker_id: WorkerId
    clock: DatabaseClock
    retry_delay: timedelta | None = None
    is_limited: Callable[[Any], bool] = lambda _function_id: False
    seal: Callable[[str, Scope], bytes] | None = None
    #: Called after a commit: (entries written), to ring bells and publish.
    after_commit: Callable[[list[Entry]], None] = lambda _entries: None
    _queue: deque[Pending] = field(default_factory=deque)
    _open: set[RunId] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def start(self) -> None:
        """Begin writing."""
        self._tasks = [asyncio.create_task(self._writer(), name=f"commit-{i}") for i in range(_WRITERS)]

    async def stop(self) -> None:
        """Write what is queued, then end."""
        while self._queue or self._open:  # noqa: ASYNC110 - a stop happens once
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(
        self, hot: HotRun, happening: Happening, lease: LeasedItem | None, *, told: Told | None = None, room: int = 0
    ) -> Awaitable[Decision]:
        """Put a happening of a hot run into the next batch. `room`: successors the worker would take at once."""
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._queue.append(Pending(hot, happening, lease, told, room, future))
        self._wake.set()
        return future

    def _take(self) -> list[list[Pending]]:
        """The next batch: all happenings of up to `_BATCH` runs that are in no open batch."""
        groups: dict[RunId, list[Pending]] = {}
        later: list[Pending] = []
        while self._queue:
            pending = self._queue.popleft()
            run_id = pending.hot.run.id
            if run_id in groups:
                groups[run_id].append(pending)
            elif run_id in self._open or len(groups) >= _BATCH:
                later.append(pending)
            else:
                groups[run_id] = [pending]
        self._queue.extend(later)
        self._open.update(groups)
        return list(groups.values())

    async def _writer(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while groups := self._take():
                try:
                    await self._write(groups)
                except Exception:
                    # A bug here must not strand the drivers: they see a lost happening, the lease runs out, the item is
                    # rescued and done again.
                    log.exception("batch failed", extra={"runs": len(groups)})
                    for pending in (p for group in groups for p in group):
                        if not pending.future.done():
                            pending.future.set_result(LOST)
                finally:
                    self._open.difference_update(g[0].hot.run.id for g in groups)

    async def _write(self, groups: list[list[Pending]]) -> None:
        """Optimism once; what did not win goes the slow way."""
        entries = [self._entry(group) for group in groups]
        if claiming := {n for n, entry in enumerate(entries) if wanted_signals(entry.effects)}:
            # A name may be refused, and that must cost this run alone: it is asked for under the run's lock.
            if kept := [group for n, group in enumerate(groups) if n not in claiming]:
                await self._write(kept)
            await self._slow([groups[n] for n in claiming])
            return
        batch = Batch()
        for n, entry in enumerate(entries):
            write(batch, n, entry, self.clock.now())
        await pause_points.reached("commit.before", [e.run.id for e in entries])
        commit_id = uuid.uuid4()
        try:
            async with self.pool.acquire(timeout=10) as connection:
                won = await commit(connection, batch, commit_id)
        except CONNECTION_LOST:
            won = await self._read_back(entries, commit_id)
        except asyncpg.DeadlockDetectedError:
            won = {}
        except asyncpg.PostgresError:
            if len(groups) > 1:
                # Rule 7: halve until the guilty entry is alone.
                middle = len(groups) // 2
                await self._write(groups[:middle])
                await self._write(groups[middle:])
                return
            log.exception("entry refused by the database", extra={"run_id": str(groups[0][0].hot.run.id)})
            for pending in groups[0]:
                pending.future.set_result(LOST)
            return
        await pause_points.reached("commit.after", [e.run.id for e in entries])
        losers: list[list[Pending]] = []
        written: list[Entry] = []
        for n, (group, entry) in enumerate(zip(groups, entries, strict=True)):
            answer = won.get(n)
            if answer is None:
                losers.append(group)
                continue
            self.clock.saw(answer.now)
            written.append(entry)
            self._resolve(group, entry, answer)
        if written:
            self.after_commit(written)
        if losers:
            await self._slow(losers)

    def _entry(self, group: list[Pending], refused: frozenset[str] = frozenset()) -> Entry:
        """Fold the happenings of one run that are ready together, in order, into one entry (rule 5).

        An answer that opens a wait for one of the `refused` signals becomes the end of its run.
        """
        hot = group[0].hot
        run: Run = hot.run
        effects: list[Effect] = []
        told: list[Told] = []
        leases: list[LeasedItem] = []
        room = 0
        for pending in group:
            more = advance(run, pending.happening, self.clock.now())
            if refused and pending.lease and any(wait.signal in refused for wait in wanted_signals(more)):
                more = advance(run, SignalRefused(pending.lease.key), self.clock.now())
            run = fold_all(run, more)
            effects += more
            if pending.told is not None:
                told.append(pending.told)
            if pending.lease is not None:
                leases.append(pending.lease)
            room += pending.room
        heard = [one.heard_at for one in told if one.heard_at is not None]
        return Entry(
            hot.run,
            hot.facts,
            effects,
            leases,
            told,
            self.worker_id if room else None,
            room,
            heard_at=min(heard, default=None),
            seal=self.seal,
        )

    def _resolve(self, group: list[Pending], entry: Entry, answer: Won) -> None:
        assert entry.after is not None
        group[0].hot.remember(entry.after, entry.effects, answer.version, answer.now)
        # All successors go to one driver: it starts the others.
        for i, pending in enumerate(group):
            if not pending.future.done():
                pending.future.set_result(Decision(True, tuple(entry.successors) if i == 0 else ()))

    async def _read_back(self, entries: list[Entry], commit_id: uuid.UUID) -> dict[int, Won]:
        """The connection died in COMMIT: the outcome is unknown until the rows say who wrote last (rule 7, G11)."""
        rows: list[Any] | None = None
        while rows is None:
            try:
                async with self.pool.acquire(timeout=10) as connection:
                    rows = await connection.fetch(
                        "select id, version, clock() as now from runs where id = any($1) and commit_id = $2",
                        [e.run.id for e in entries],
                        commit_id,
                    )
            except CONNECTION_LOST:
                await asyncio.sleep(0.2)
        found = {row["id"]: Won(row["version"], row["now"]) for row in rows}
        return {n: found[e.run.id] for n, e in enumerate(entries) if e.run.id in found}

    async def _slow(self, groups: list[list[Pending]]) -> None:
        """Lock, then read in a new statement, advance again, commit; wait only for runs that stay busy (rule 6)."""
        rest = groups
        for _ in range(_BUSY_TRIES):
            rest = await self._slow_once(rest, wait=False)
            if not rest:
                return
            await asyncio.sleep(0.005)
        for group in rest:
            busy = await self._slow_once([group], wait=True)
            for pending in (p for g in busy for p in g):
                pending.future.set_result(LOST)

    async def _slow_once(self, groups: list[list[Pending]], *, wait: bool) -> list[list[Pending]]:
        """One transaction over the runs that can be locked; returns the groups that were busy."""
        by_run = {g[0].hot.run.id: g for g in groups}
        written: list[tuple[list[Pending], Entry, Won]] = []
        lost: list[Pending] = []
        held_ids: list[RunId] = []
        try:
            async with self.pool.acquire(timeout=10) as connection, connection.transaction():
                if wait:
                    held = await fetch(connection, named("lease", "lock_run"), run_id=groups[0][0].hot.run.id)
                else:
                    held = await fetch(connection, named("lease", "lock_runs"), run_ids=list(by_run))
                held_ids = [row["id"] for row in held]
                await pause_points.reached("slow.locked", held_ids)
                rows = await fetch(connection, named("lease", "load"), run_ids=held_ids, with_memos=True)
                item_ids = [p.lease.id for g in groups for p in g if p.lease is not None]
                fences = {
                    r["id"]: r["fence"]
                    for r in await fetch(connection, named("lease", "item_fences"), item_ids=item_ids)
                }
                entries: list[tuple[list[Pending], Entry]] = []
                for row in rows:
                    group = by_run[row["id"]]
                    fresh = hot_run(row, self.retry_delay, group[0].hot.facts.is_limited)
                    good = [p for p in group if _still_ours(p, fresh.run, fences)]
                    lost += [p for p in group if p not in good]
                    group[0].hot.run, group[0].hot.memos = fresh.run, fresh.memos
                    if good:
                        entries.append((good, self._entry(good)))
                if any(wanted_signals(entry.effects) for _, entry in entries):
                    refused = await claim_signals(connection, [entry for _, entry in entries])
                    entries = [
                        (good, self._entry(good, names) if names else entry)
                        for (good, entry), names in zip(entries, refused, strict=True)
                    ]
                if entries:
                    batch = Batch()
                    for n, (_, entry) in enumerate(entries):
                        write(batch, n, entry, self.clock.now())
                    won = await commit(connection, batch, uuid.uuid4())
                    for n, (good, entry) in enumerate(entries):
                        if n in won:
                            written.append((good, entry, won[n]))
                        else:  # an item was rescued between the two statements
                            lost += good
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, *CONNECTION_LOST) as error:
            log.warning("slow path must try again", extra={"error": repr(error), "runs": len(groups)})
            if wait:
                await asyncio.sleep(0.5)
            return groups
        for good, entry, answer in written:
            self.clock.saw(answer.now)
            self._resolve(good, entry, answer)
        for pending in lost:
            if not pending.future.done():
                pending.future.set_result(LOST)
        if written:
            self.after_commit([entry for _, entry, _ in written])
        return [g for run_id, g in by_run.items() if run_id not in held_ids]


def _still_ours(pending: Pending, run: Run, fences: dict[Any, int]) -> bool:
    if run.is_ended:
        return False
    return pending.lease is None or fences.get(pending.lease.id) == pending.lease.fence


class RunUnknown(LookupError):
    """No such run."""


class RunEnded(Exception):
    """The run is over; the happening changed nothing."""


class ItemMoved(Exception):
    """The item is settled, or its fence is not the one given: another call has taken over."""


async def change_run(
    pool: Pool,
    run_id: RunId,
    happening: Happening | Callable[[HotRun], Happening | None],
    *,
    clock: DatabaseClock,
    retry_delay: timedelta | None = None,
    is_limited: Callable[[Any], bool] = lambda _function_id: False,
    item: tuple[Any, int | None] | None = None,
    scope: Any = None,
    check: Callable[[Any], Awaitable[bool]] | None = None,
) -> Entry:
    """Move one run that this process does not hold: lock it, then read, advance, commit (rules 13-16).

    `happening` may be a function of the loaded run (None: nothing to do). `item` is (item id, fence or None) and must
    still be live with that fence. With `scope`, a run of another tenant is unknown. `check` is asked on the connection
    while the run is held; when it says no, that is ItemMoved too.
    Raises RunUnknown, RunEnded, ItemMoved; returns the written entry (its effects say what happened).
    """
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        await fetch(connection, named("lease", "lock_run"), run_id=run_id)
        await pause_points.reached("change.locked", [run_id])
        rows = await fetch(connection, named("lease", "load"), run_ids=[run_id], with_memos=False)
        if not rows or (scope is not None and rows[0]["environment_id"] != scope.environment_id):
            raise RunUnknown(run_id)
        row = rows[0]
        clock.saw(row["now"])
        hot = hot_run(row, retry_delay, is_limited(row["function_id"]))
        if hot.run.is_ended:
            raise RunEnded(run_id)
        leases: list[LeasedItem] = []
        if item is not None:
            item_id, fence = item
            found = await fetch(connection, named("lease", "item_fences"), item_ids=[item_id])
            if not found or (fence is not None and found[0]["fence"] != fence):
                raise ItemMoved(run_id)
        if check is not None and not await check(connection):
            raise ItemMoved(run_id)
        what = happening(hot) if callable(happening) else happening
        effects = [] if what is None else advance(hot.run, what, clock.now())
        entry = Entry(hot.run, hot.facts, effects, leases)
        if not effects or all(isinstance(e, Ignore) for e in effects):
            entry.after = hot.run
            return entry
        batch = Batch()
        write(batch, 0, entry, clock.now())
        await commit(connection, batch, uuid.uuid4())
    return entry


async def cancel_runs(pool: Pool, run_ids: Iterable[RunId], cause: str, *, clock: DatabaseClock) -> list[Entry]:
    """Cancel each run in a transaction of its own; ended and unknown ones are passed by."""
    done: list[Entry] = []
    for run_id in run_ids:
        try:
            done.append(await change_run(pool, run_id, CancelRequested(cause), clock=clock))
        except (RunUnknown, RunEnded):
            continue
    return done
