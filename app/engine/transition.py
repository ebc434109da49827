"""The one door that changes a run: happenings in, committed effects out.

`Committer` serves a worker, which holds leases and a copy of the run in memory; `change_run` serves everybody else
(checkpoints, cancels, wake-ups), who hold nothing. Both end in the same statement (store/commit.py).

    submit ─► queue of the run ─► batch ─► commit ─┬─ won ──────► memory folds forward, successors go on
                 (one entry per run,               ├─ not won ──► slow path: lock the run, THEN read it again,
                  folded in order)                 │              advance again, commit: won, or lost for good
                                                   └─ refused ──► halved until the guilty entry is alone: its run fails

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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from app.domain.ids import RunId, WorkerId, to_ulid
from app.domain.protocol.error_object import made_error
from app.domain.protocol.reply import Failed
from app.domain.run.advance import advance
from app.domain.run.effects import Effect, FinishRun, Ignore
from app.domain.run.fold import fold_all
from app.domain.run.happenings import Happening, Replied
from app.domain.run.state import CALLS, Run
from app.domain.scope import Scope
from app.engine import measured, pause_points
from app.engine.apply import Entry, Told, write
from app.engine.clock import DatabaseClock
from app.engine.hot import HotRun, LeasedItem, hot_run
from app.engine.signal_names import SignalNames, asks_for_signal
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
#: Waits of `lock_timeout` for one run that stays busy, aside from everybody else's; then its item is given back.
_PATIENT_TRIES = 10
#: Somebody else's locks, or a database too slow for the statement's time: says nothing against what was to be written.
_IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.QueryCanceledError)
_UNWRITABLE = "What the app answered cannot be stored."


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
    heard_at: datetime
    #: The worker's life it belongs to: a later one must not write it (rule 10).
    life: int = 0
    is_refused: bool = False

    def decide(self, decision: Decision) -> None:
        """Tell the driver, unless it is gone."""
        if not self.future.done():
            self.future.set_result(decision)


@dataclass(slots=True)
class Committer:
    """Group commit of a worker's runs. Start with `start`, end with `stop` (drains first)."""

    pool: Pool
    worker_id: WorkerId
    clock: DatabaseClock
    retry_delay: timedelta | None = None
    is_limited: Callable[[Any], bool] = lambda _function_id: False
    #: Seals what may hold credentials.
    seal: Callable[[str, Scope], bytes] | None = None
    #: Called after a commit: (entries written), to ring bells and publish.
    after_commit: Callable[[list[Entry]], None] = lambda _entries: None
    _queue: deque[Pending] = field(default_factory=deque)
    _open: set[RunId] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    _patient: set["asyncio.Task[None]"] = field(default_factory=set)
    _waited_for: set[RunId] = field(default_factory=set)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    _life: int = 0

    @property
    def writing(self) -> set[RunId]:
        """The runs in an open batch."""
        return set(self._open)

    def start(self) -> None:
        """Begin writing."""
        self._tasks = [asyncio.create_task(self._writer(), name=f"commit-{i}") for i in range(_WRITERS)]

    async def stop(self) -> None:
        """Write what is queued, then end."""
        while self._queue or self._open:  # noqa: ASYNC110 - a stop happens once
            await asyncio.sleep(0.01)
        for task in (*self._tasks, *self._patient):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._patient, return_exceptions=True)

    def submit(
        self,
        hot: HotRun,
        happening: Happening,
        lease: LeasedItem | None,
        *,
        told: Told | None = None,
        room: int = 0,
        heard_at: datetime | None = None,
    ) -> Awaitable[Decision]:
        """Put a happening of a hot run into the next batch. `room`: successors the worker would take at once.

        `heard_at` is the database's time, as well as we know it, when the answer came in; None means now.
        """
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._queue.append(Pending(hot, happening, lease, told, room, future, heard_at or self.clock.now(), self._life))
        self._wake.set()
        return future

    def forget_all(self) -> None:
        """The worker's leases are lost: nothing that waits here is written any more (rule 10).

        What is on its way to the database is judged by the fences there; whatever it still leases to the old worker
        is rescued with the rest of it.
        """
        self._life += 1
        waiting, self._queue = self._queue, deque()
        for pending in waiting:
            pending.decide(LOST)

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
                    # A bug here must not strand the drivers: they see a lost happening and forget the item, and the
                    # keeper gives it back to be done again.
                    log.exception("batch failed", extra={"runs": len(groups)})
                    for pending in (p for group in groups for p in group):
                        pending.decide(LOST)
                finally:
                    self._release(groups)

    async def _write(self, groups: list[list[Pending]]) -> None:
        """Optimism once; what did not win goes the slow way."""
        losers = [group for group in groups if asks_for_signal(p.happening for p in group)]
        batch = Batch()
        entries: dict[int, tuple[list[Pending], Entry]] = {}
        for n, group in enumerate(groups):
            if group not in losers and (entry := self._written(batch, n, group)) is not None:
                entries[n] = (group, entry)
        run_ids = [entry.run.id for _, entry in entries.values()]
        await pause_points.reached("commit.before", run_ids)
        commit_id = uuid.uuid4()
        won: dict[int, Won] = {}
        try:
            if entries:
                async with self.pool.acquire(timeout=10) as connection:
                    won = await commit(connection, batch, commit_id)
                    await pause_points.reached("commit.sent", run_ids)
        except CONNECTION_LOST:
            won = await self._read_back(entries, commit_id)
            await self._take_up(entries, won)
        except _IN_THE_WAY:
            won = {}
        except asyncpg.PostgresError as error:
            tried = [group for group, _ in entries.values()]
            if len(tried) == 1:
                self._refuse(tried[0], error)
            else:
                # Rule 7: halve until the guilty entry is alone.
                middle = len(tried) // 2
                await self._write(tried[:middle])
                await self._write(tried[middle:])
            if losers:
                await self._slow(losers)
            return
        await pause_points.reached("commit.after", run_ids)
        written: list[Entry] = []
        for n, (group, entry) in entries.items():
            answer = won.get(n)
            if answer is None:
                losers.append(group)
                continue
            self.clock.saw(answer.now)
            written.append(entry)
            self._resolve(group, entry, answer)
        if written:
            measured.committed(written)
            self.after_commit(written)
        if losers:
            await self._slow(losers)

    def _written(self, batch: Batch, n: int, group: list[Pending]) -> Entry | None:
        """The entry of a group as number `n` of the batch; None when it cannot even be put into rows.

        Rows of an entry that is not in the batch join nothing, so what was written of it by then does no harm.
        """
        try:
            entry = self._entry(group)
            write(batch, n, entry, self.clock.now())
        except Exception as error:  # noqa: BLE001 - one run's bad luck must not be its neighbours'
            self._refuse(group, error)
            return None
        return entry

    def _refuse(self, group: list[Pending], error: BaseException) -> None:
        """What these happenings ask for cannot be written: the run fails instead, or the item is given back."""
        log.error("entry refused", extra={"run_id": to_ulid(group[0].hot.run.id), "error": repr(error)})
        for pending in group:
            if pending.is_refused or pending.lease is None or pending.lease.kind not in CALLS:
                pending.decide(LOST)
                continue
            failed = Failed(made_error("Error", _UNWRITABLE), "unwritable", no_retry=True, is_fatal=True)
            pending.happening, pending.is_refused = Replied(pending.lease.key, failed), True
            self._queue.append(pending)
            self._wake.set()

    def _entry(self, group: list[Pending]) -> Entry:
        """Fold the happenings of one run that are ready together, in order, into one entry (rule 5)."""
        hot = group[0].hot
        run: Run = hot.run
        effects: list[Effect] = []
        told: list[Told] = []
        leases: list[LeasedItem] = []
        room = 0
        for pending in group:
            more = advance(run, pending.happening, self.clock.now())
            run = fold_all(run, more)
            effects += more
            if pending.told is not None:
                told.append(pending.told)
            if pending.lease is not None:
                leases.append(pending.lease)
            room += pending.room
        return Entry(
            hot.run,
            hot.facts,
            effects,
            leases,
            told,
            self.worker_id if room else None,
            room,
            heard_at=min(p.heard_at for p in group),
            is_limited=hot.facts.is_limited or self.is_limited(hot.facts.function_id),
            seal=self.seal,
        )

    def _resolve(self, group: list[Pending], entry: Entry, answer: Won) -> None:
        assert entry.after is not None
        group[0].hot.remember(entry.after, entry.effects, answer.version, answer.now)
        if answer.given_up:
            entry.successors = [item for item in entry.successors if item.lease_id not in answer.given_up]
            entry.readies = True
        # All successors go to one driver: it starts the others.
        for i, pending in enumerate(group):
            pending.decide(Decision(True, tuple(entry.successors) if i == 0 else ()))

    async def _read_back(self, entries: dict[int, tuple[list[Pending], Entry]], commit_id: uuid.UUID) -> dict[int, Won]:
        """The connection died in COMMIT: the outcome is unknown until the rows say who wrote last (rule 7, G11)."""
        rows: list[Any] | None = None
        while rows is None:
            try:
                async with self.pool.acquire(timeout=10) as connection:
                    # The lock waits for the statement should it still be running in a connection that only we lost.
                    rows = await connection.fetch(
                        "select id, version, clock() as now from runs where id = any($1) and commit_id = $2 for no key update",
                        [e.run.id for _, e in entries.values()],
                        commit_id,
                    )
            except (*_IN_THE_WAY, *CONNECTION_LOST):
                await asyncio.sleep(0.2)
        found = {row["id"]: Won(row["version"], row["now"]) for row in rows}
        return {n: found[e.run.id] for n, (_, e) in entries.items() if e.run.id in found}

    async def _take_up(self, entries: dict[int, tuple[list[Pending], Entry]], won: dict[int, Won]) -> None:
        """Runs that were changed again before they could be read back: an item under the lease we gave it proves that the
        entry was written. Its driver goes on with it; the copy in memory is read again. Takes what it settles out of `entries`.
        """
        asked = {n: pair for n, pair in entries.items() if n not in won and pair[1].successors}
        items = [item for _, entry in asked.values() for item in entry.successors]
        if not items:
            return
        async with self.pool.acquire(timeout=10) as connection:
            held = await fetch(
                connection,
                named("lease", "handed_on"),
                item_ids=[item.id for item in items],
                lease_ids=[item.lease_id for item in items],
                worker=self.worker_id,
            )
            alive = {row["id"] for row in held}
            written = [n for n, (_, entry) in asked.items() if any(item.id in alive for item in entry.successors)]
            run_ids = [asked[n][1].run.id for n in written]
            rows = await fetch(connection, named("lease", "load"), run_ids=run_ids, with_memos=True) if run_ids else []
        fresh = {row["id"]: hot_run(row, self.retry_delay) for row in rows}
        for n in written:
            group, entry = entries.pop(n)
            hot = group[0].hot
            if (found := fresh.get(hot.run.id)) is not None:
                hot.run, hot.memos, hot.seen_at = found.run, found.memos, found.seen_at
            successors = tuple(item for item in entry.successors if item.id in alive)
            for i, pending in enumerate(group):
                pending.decide(Decision(True, successors if i == 0 else ()))

    def _release(self, groups: list[list[Pending]]) -> None:
        self._open.difference_update({g[0].hot.run.id for g in groups} - self._waited_for)

    async def _slow(self, groups: list[list[Pending]]) -> None:
        """Lock, then read in a new statement, advance again, commit; wait only for runs that stay busy (rule 6)."""
        rest = groups
        for _ in range(_BUSY_TRIES):
            rest = await self._slow_once(rest, wait=False)
            if not rest:
                return
            await asyncio.sleep(0.005)
        # Somebody sits on these runs. They are waited for aside: the runs of others must not stand behind them (F9).
        self._waited_for.update(group[0].hot.run.id for group in rest)
        task = asyncio.create_task(self._patiently(rest), name="commit-busy")
        self._patient.add(task)
        task.add_done_callback(self._patient.discard)

    async def _patiently(self, groups: list[list[Pending]]) -> None:
        """One connection at most waits for busy runs; a run that stays busy loses its happening, and the item is redone."""
        for group in groups:
            try:
                async with self._one_at_a_time:
                    tries = 0
                    while await self._slow_once([group], wait=True) and tries < _PATIENT_TRIES:
                        tries += 1
            except Exception:
                log.exception("a busy run could not be written", extra={"run_id": to_ulid(group[0].hot.run.id)})
            finally:
                for pending in group:
                    if not pending.is_refused:
                        pending.decide(LOST)
                self._waited_for.discard(group[0].hot.run.id)
                self._open.discard(group[0].hot.run.id)
                self._wake.set()

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
                batch = Batch()
                entries, lost = await self._advance_again(connection, batch, by_run, held_ids)
                await _await_leases(connection, [entry for *_, entry in entries])
                if entries:
                    won = await commit(connection, batch, uuid.uuid4())
                    for n, good, entry in entries:
                        if n in won:
                            written.append((good, entry, won[n]))
                        else:  # an item was rescued between the two statements
                            lost += good
        except (*_IN_THE_WAY, *CONNECTION_LOST) as error:
            log.warning("slow path must try again", extra={"error": repr(error), "runs": len(groups)})
            if wait:
                await asyncio.sleep(0.5)
            return groups
        except asyncpg.PostgresError as error:
            if len(groups) == 1:
                self._refuse(groups[0], error)
                return []
            middle = len(groups) // 2
            return await self._slow_once(groups[:middle], wait=wait) + await self._slow_once(groups[middle:], wait=wait)
        for good, entry, answer in written:
            self.clock.saw(answer.now)
            self._resolve(good, entry, answer)
        for pending in lost:
            pending.decide(LOST)
        if written:
            done = [entry for _, entry, _ in written]
            measured.committed(done)
            self.after_commit(done)
        return [g for run_id, g in by_run.items() if run_id not in held_ids]

    async def _advance_again(
        self, connection: Any, batch: Batch, by_run: dict[RunId, list[Pending]], held_ids: list[RunId]
    ) -> tuple[list[tuple[int, list[Pending], Entry]], list[Pending]]:
        """What the happenings mean to the runs as they are now, in rows of the batch; and those that come too late."""
        rows = await fetch(connection, named("lease", "load"), run_ids=held_ids, with_memos=True)
        item_ids = [p.lease.id for run_id in held_ids for p in by_run[run_id] if p.lease is not None]
        found = await fetch(connection, named("lease", "item_fences"), item_ids=item_ids)
        fences = {row["id"]: row["fence"] for row in found}
        signals = await SignalNames.look(
            connection, [(r["environment_id"], p.happening) for r in rows for p in by_run[r["id"]]]
        )
        # A run that is there but cannot be loaded has lost its function; its answer has nowhere to go.
        loaded = {row["id"] for row in rows}
        lost = [pending for run_id in held_ids if run_id not in loaded for pending in by_run[run_id]]
        entries: list[tuple[int, list[Pending], Entry]] = []
        for n, row in enumerate(rows):
            group = by_run[row["id"]]
            fresh = hot_run(row, self.retry_delay)
            group[0].hot.run, group[0].hot.memos = fresh.run, fresh.memos
            good: list[Pending] = []
            for pending in group:
                if pending.life == self._life and _still_ours(pending, fresh.run, fences):
                    good.append(pending)
                else:
                    lost.append(pending)
                    await _tell_late(connection, pending)
            for pending in good:
                pending.happening = signals.judge(row["environment_id"], fresh.run, pending.happening)
            if good and (entry := self._written(batch, n, good)) is not None:
                entries.append((n, good, entry))
        await signals.take(connection)
        return entries, lost


async def _await_leases(connection: Any, entries: list[Entry]) -> None:
    """Before runs end: a lease of their items may be under way, and the slot it takes is not yet seen by anybody.

    The fast path does not wait; the keeper `sweep` frees what a run of its then leaves behind, a second later.
    """
    ending = [entry.run.id for entry in entries if any(isinstance(effect, FinishRun) for effect in entry.effects)]
    if ending:
        await fetch(connection, named("lease", "lock_items"), run_ids=ending)


async def _tell_late(connection: Any, pending: Pending) -> None:
    """Journal an answer that changes nothing any more (rule 6, I22)."""
    told = pending.told
    if told is not None:
        await fetch(
            connection,
            named("lease", "tell_late"),
            run_id=pending.hot.run.id,
            step=told.step_key,
            item=told.item_key,
            attempt=told.attempt,
            started=told.started_at,
            detail=told.detail.decode() if told.detail else None,
        )


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


def judged(
    row: Any,
    happening: Happening | Callable[[HotRun], Happening | None],
    *,
    clock: DatabaseClock,
    retry_delay: timedelta | None,
    item: tuple[Any, int | None] | None,
    fences: Mapping[Any, int],
    scope: Scope | None,
) -> Entry:
    """What a happening means to a run that is held; `row` is one of `load`, `fences` are those of held items.

    An entry with `after` set has nothing to write. Raises RunUnknown, RunEnded, ItemMoved.
    """
    if scope is not None and row["environment_id"] != scope.environment_id:
        raise RunUnknown(row["id"])
    hot = hot_run(row, retry_delay)
    if hot.run.is_ended:
        raise RunEnded(row["id"])
    if item is not None:
        item_id, fence = item
        if item_id not in fences or (fence is not None and fences[item_id] != fence):
            raise ItemMoved(row["id"])
    what = happening(hot) if callable(happening) else happening
    effects = [] if what is None else advance(hot.run, what, clock.now())
    entry = Entry(hot.run, hot.facts, effects, is_limited=hot.facts.is_limited)
    if not effects or all(isinstance(effect, Ignore) for effect in effects):
        entry.after = hot.run
    return entry


async def change_run(
    pool: Pool,
    run_id: RunId,
    happening: Happening | Callable[[HotRun], Happening | None],
    *,
    clock: DatabaseClock,
    retry_delay: timedelta | None = None,
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
        if not rows:
            raise RunUnknown(run_id)
        clock.saw(rows[0]["now"])
        fences: dict[Any, int] = {}
        if item is not None:
            found = await fetch(connection, named("lease", "item_fences"), item_ids=[item[0]])
            fences = {row["id"]: row["fence"] for row in found}
        if check is not None and not await check(connection):
            raise ItemMoved(run_id)
        entry = judged(rows[0], happening, clock=clock, retry_delay=retry_delay, item=item, fences=fences, scope=scope)
        if entry.after is not None:
            return entry
        batch = Batch()
        write(batch, 0, entry, clock.now())
        await _await_leases(connection, [entry])
        await commit(connection, batch, uuid.uuid4())
    measured.committed([entry])
    await pause_points.reached("change.committed", [run_id])
    return entry
