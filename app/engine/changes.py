"""Shared commits for changes by those who hold nothing: checkpoints, above all (architecture 5, rules 6, 7 and 13).

A checkpoint arrives at a web process that has neither a lease nor a copy of the run. It locks the run, reads it in a new
statement, advances, commits. Many that are ready at the same moment do this together: one transaction locks all runs
that are free (never waiting), reads them, and writes all entries with one statement. A run that stays busy is waited
for alone, so that no transaction ever waits for two.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg

from app.domain.errors import Outside
from app.domain.ids import ItemId, RunId
from app.domain.run.happenings import Happening
from app.domain.scope import Scope
from app.engine import measured, pause_points
from app.engine.apply import Entry, write
from app.engine.clock import DatabaseClock
from app.engine.hot import HotRun
from app.engine.transition import ItemMoved, RunEnded, RunUnknown, change_run, judged
from app.store.commit import Batch, commit
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

_WRITERS = 2
_BATCH = 64
#: Requests that may wait for their commit; and seconds the oldest may have waited for another one to be taken.
MOST_WAITING = 1_000
STALLED_S = 10.0

Wanted = Callable[[HotRun], Happening | None]


@dataclass(slots=True)
class _Asked:
    run_id: RunId
    happening: Wanted
    scope: Scope
    item: tuple[ItemId, int | None] | None
    future: "asyncio.Future[Entry]"


@dataclass(slots=True)
class Changes:
    """Group commit of changes to runs of one web process."""

    pool: Pool
    clock: DatabaseClock
    retry_delay: timedelta | None = None
    #: A clock in seconds that never goes back.
    now: Callable[[], float] = time.monotonic
    #: Requests without an answer, in the order they came, with the time they did.
    _waiting: dict[int, float] = field(default_factory=dict)
    _asked: int = 0
    _queue: deque[_Asked] = field(default_factory=deque)
    _open: set[RunId] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def start(self) -> None:
        """Begin writing."""
        self._tasks = [asyncio.create_task(self._writer(), name=f"changes-{i}") for i in range(_WRITERS)]

    async def stop(self) -> None:
        """End; requests that still wait fail."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._queue:
            self._queue.popleft().future.cancel()

    async def change(
        self, run_id: RunId, happening: Wanted, *, scope: Scope, item: tuple[ItemId, int | None] | None = None
    ) -> Entry:
        """Move one run; the same promises and exceptions as `transition.change_run`.

        Raises Outside (`storage_unavailable`) at once while too much waits for the database already.
        """
        if self._waiting:
            is_stalled = self.now() - next(iter(self._waiting.values())) > STALLED_S
            if is_stalled or len(self._waiting) >= MOST_WAITING:
                raise Outside(
                    "The database does not keep up; nothing was stored.", retryable=True, code="storage_unavailable"
                )
        self._asked += 1
        number = self._asked
        self._waiting[number] = self.now()
        try:
            return await self._change(run_id, happening, scope, item)
        finally:
            del self._waiting[number]

    async def _change(
        self, run_id: RunId, happening: Wanted, scope: Scope, item: tuple[ItemId, int | None] | None
    ) -> Entry:
        asked = _Asked(run_id, happening, scope, item, asyncio.get_running_loop().create_future())
        self._queue.append(asked)
        self._wake.set()
        return await asked.future

    def _take(self) -> list[_Asked]:
        taken: dict[RunId, _Asked] = {}
        later: list[_Asked] = []
        while self._queue and len(taken) < _BATCH:
            asked = self._queue.popleft()
            if asked.run_id in taken or asked.run_id in self._open:
                later.append(asked)
            else:
                taken[asked.run_id] = asked
        self._queue.extendleft(reversed(later))
        self._open.update(taken)
        return list(taken.values())

    async def _writer(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._take():
                try:
                    await self._write(batch)
                except Exception as error:  # noqa: BLE001 - a bug must not leave its askers waiting, nor end the writer
                    for asked in batch:
                        if not asked.future.done():
                            asked.future.set_exception(error)
                finally:
                    self._open.difference_update(asked.run_id for asked in batch)

    async def _write(self, batch: list[_Asked]) -> None:
        try:
            busy = await self._together(batch)
        except (asyncpg.PostgresError, *CONNECTION_LOST):
            # Alone each finds out for itself whether it is the guilty one, and waits where it has to.
            busy = [asked for asked in batch if not asked.future.done()]
        for asked in busy:
            await self._alone(asked)

    async def _alone(self, asked: _Asked) -> None:
        try:
            entry = await change_run(
                self.pool,
                asked.run_id,
                asked.happening,
                clock=self.clock,
                retry_delay=self.retry_delay,
                item=asked.item,
                scope=asked.scope,
            )
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
            if not asked.future.done():
                asked.future.set_exception(error)
        else:
            if not asked.future.done():
                asked.future.set_result(entry)

    async def _together(self, batch: list[_Asked]) -> list[_Asked]:
        """One transaction over the runs that are free; returns who has to go alone."""
        by_run = {asked.run_id: asked for asked in batch}
        done: list[tuple[_Asked, Entry | Exception]] = []
        rows_of = Batch()
        entries: list[tuple[_Asked, Entry]] = []
        async with self.pool.acquire(timeout=2) as connection, connection.transaction():
            held = [r["id"] for r in await fetch(connection, named("lease", "lock_runs"), run_ids=list(by_run))]
            if not held:
                return batch
            await pause_points.reached("change.locked", held)
            rows = await fetch(connection, named("lease", "load"), run_ids=held, with_memos=False)
            item_ids = [by_run[r].item[0] for r in held if by_run[r].item is not None]  # type: ignore[index]
            found = await fetch(connection, named("lease", "item_fences"), item_ids=item_ids)
            fences = {row["id"]: row["fence"] for row in found}
            self.clock.saw(rows[0]["now"])
            for row in rows:
                asked = by_run[row["id"]]
                decided = self._decide(asked, row, fences)
                if isinstance(decided, Exception) or decided.after is not None:
                    done.append((asked, decided))
                    continue
                write(rows_of, len(entries), decided, self.clock.now())
                entries.append((asked, decided))
            written: list[Entry] = []
            if entries:
                won = await commit(connection, rows_of, uuid.uuid4())
                done += [entries[n] for n in won]
                written = [entries[n][1] for n in won]
        if entries:
            measured.committed(written)
            await pause_points.reached("change.committed", [asked.run_id for asked, _ in entries])
        finished = {asked.run_id for asked, _ in done}
        for asked, outcome in done:
            if asked.future.done():
                continue
            if isinstance(outcome, Exception):
                asked.future.set_exception(outcome)
            else:
                asked.future.set_result(outcome)
        return [asked for asked in batch if asked.run_id not in finished]

    def _decide(self, asked: _Asked, row: Any, fences: dict[Any, int]) -> Entry | Exception:
        """The entry of one request; with `after` set when there is nothing to write; or why not."""
        try:
            return judged(
                row,
                asked.happening,
                clock=self.clock,
                retry_delay=self.retry_delay,
                item=asked.item,
                fences=fences,
                scope=asked.scope,
            )
        except (RunUnknown, RunEnded, ItemMoved) as refused:
            return refused
