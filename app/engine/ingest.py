"""Station 1: events are validated, get ids, are committed with their inbox rows, and only then acknowledged (I1, I2).

Many requests that are ready together share one statement (architecture D4): commit when the previous commit is back.
What waits for a commit is bounded by requests, events and bytes, and by how long the oldest has waited: a database that is
slow or away is told to senders at once (503), instead of in the memory of this process. Comes from `web/api/events.py`; what an event sets off is `react`'s work, in another transaction.
"""

import asyncio
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from app import telemetry
from app.domain.errors import Outside
from app.domain.event import NewEvent, event_payload, seeded_ids
from app.domain.ids import to_ulid, ulid_of
from app.domain.limits import MIB
from app.domain.scope import Scope
from app.engine import measured, pause_points
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

#: Events in one statement; a request larger than this goes alone.
_BATCH_EVENTS = 2000
_WRITERS = 2
#: While the oldest request has waited this long for its commit, no further one is taken: as long as a statement may take.
STALLED_S = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may wait for its commit in one process. One request is taken in any case when nothing waits."""

    requests: int = 2_000
    events: int = 20_000
    #: Octets of names and payloads as they are stored.
    octets: int = 64 * MIB


@dataclass(slots=True)
class _Request:
    scope: Scope
    events: list[NewEvent]
    ids: list[UUID]
    seed: str | None
    sha: bytes | None
    source: str
    future: "asyncio.Future[list[UUID]]"
    octets: int
    asked_at: float


@dataclass(slots=True)
class Ingest:
    """Group commit of accepted events, one per web process."""

    pool: Pool
    after_commit: Callable[[], None] = lambda: None
    bounds: Bounds = Bounds()
    #: A clock in seconds that never goes back.
    now: Callable[[], float] = time.monotonic
    _queue: deque[_Request] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)
    #: Requests that are not answered yet, in the order they came; those in an open statement are among them.
    _waiting: dict[int, _Request] = field(default_factory=dict)
    _events: int = 0
    _octets: int = 0

    @property
    def waiting(self) -> tuple[int, int, int]:
        """Requests, events and octets that wait for their commit."""
        return len(self._waiting), self._events, self._octets

    def start(self) -> None:
        """Begin writing."""
        self._tasks = [asyncio.create_task(self._writer(), name=f"ingest-{i}") for i in range(_WRITERS)]

    async def stop(self) -> None:
        """Write what was accepted, then end."""
        while self._queue:  # noqa: ASYNC110 - a stop happens once
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def add(
        self,
        scope: Scope,
        events: list[NewEvent],
        *,
        seed: str | None = None,
        body: bytes = b"",
        start: int = 1,
        source: str = "api",
    ) -> list[UUID]:
        """Store the events of one request, all or none, and return their internal ids in order.

        With a valid `seed` header the ids come from it, and the same request again within 24 h stores nothing and gets
        the same ids (protocol 5.5). `source` says where they came from: api, or page for people's own. Raises Outside (`storage_unavailable`) when the database cannot say that they are stored, and at once when too
        much waits for it already.
        """
        ids = seeded_ids(seed, len(events), start) if seed else None
        sha = hashlib.sha256(body).digest() if ids is not None else None
        if ids is None:
            seed = None
            ids = _drawn_ids(len(events))
        stored = await self._add(scope, events, ids, seed, sha, source)
        if stored is None:
            # Another body came with this seed before: the events are new and must not be lost.
            stored = await self._add(scope, events, _drawn_ids(len(events)), None, None, source)
            assert stored is not None
        return stored

    async def _add(
        self, scope: Scope, events: list[NewEvent], ids: list[UUID], seed: str | None, sha: bytes | None, source: str
    ) -> list[UUID] | None:
        octets = sum(len(event.name) + len(event.data) + len(event.original or "") for event in events)
        self._admit(len(events), octets)
        future: asyncio.Future[list[UUID]] = asyncio.get_running_loop().create_future()
        request = _Request(scope, events, ids, seed, sha, source, future, octets, self.now())
        self._waiting[id(request)] = request
        self._events += len(events)
        self._octets += octets
        future.add_done_callback(lambda _: self._answered(request))
        self._queue.append(request)
        self._wake.set()
        return await future or None

    def refuse_when_full(self) -> None:
        """Raise what the next request would get, before its body is read."""
        self._admit(0, 0)

    def _admit(self, events: int, octets: int) -> None:
        if not self._waiting:
            return
        oldest = next(iter(self._waiting.values()))
        if self.now() - oldest.asked_at > STALLED_S:
            raise _unavailable("The database does not answer in time; nothing was stored.")
        if (
            len(self._waiting) >= self.bounds.requests
            or self._events + events > self.bounds.events
            or self._octets + octets > self.bounds.octets
        ):
            raise _unavailable("More events wait for the database than it can store just now; nothing was stored.")

    def _answered(self, request: _Request) -> None:
        if self._waiting.pop(id(request), None) is not None:
            self._events -= len(request.events)
            self._octets -= request.octets

    async def _writer(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while requests := self._take():
                await self._write(requests)

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        count = 0
        seeds: set[tuple[UUID, str]] = set()
        while self._queue:
            request = self._queue[0]
            if request.future.done():
                # Its sender is gone, and was promised nothing.
                self._queue.popleft()
                continue
            key = (request.scope.environment_id, request.seed or "")
            if taken and (count + len(request.events) > _BATCH_EVENTS or (request.seed and key in seeds)):
                break
            if request.seed:
                seeds.add(key)
            taken.append(self._queue.popleft())
            count += len(request.events)
        return taken

    async def _write(self, requests: list[_Request]) -> None:
        began, at = time.perf_counter(), time.time()
        try:
            async with self.pool.acquire(timeout=2) as connection:
                await pause_points.reached("ingest.before")
                fresh = await self._store(connection, requests)
                await pause_points.reached("ingest.after")  # stored, and nobody knows yet
                for n, request in enumerate(requests):
                    if n in fresh:
                        answer = request.ids
                    else:
                        row = (
                            await fetch(
                                connection,
                                named("inbox", "seed"),
                                environment=request.scope.environment_id,
                                seed=request.seed,
                            )
                        )[0]
                        answer = list(row["ids"]) if row["body_sha"] == request.sha else []
                    if not request.future.done():
                        request.future.set_result(answer)
        except CONNECTION_LOST:
            # The outcome is unknown; a seeded repeat finds out, and 503 says nothing was promised. Who waits in line would
            # only wait for the same: they hear it now, and the next request finds out whether the database is back.
            self._refuse(requests, _unavailable("The database does not answer; nothing is known to be stored."))
            behind, self._queue = self._queue, deque()
            self._refuse(behind, _unavailable("The database does not answer; nothing was stored."))
            return
        except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
            # It took too long. Each alone would take as long again, one after the other, while more come.
            self._refuse(requests, _unavailable("The database does not answer in time; nothing was stored."))
            return
        except asyncpg.PostgresError:
            if len(requests) > 1:
                for request in requests:
                    await self._write([request])
                return
            self._refuse(requests, _unavailable("The database refused to store the events."))
            return
        except BaseException as error:
            self._refuse(requests, _unavailable("The events could not be stored."))
            if not isinstance(error, Exception):
                raise
            return
        telemetry.observe("stepwell_ingest_commit_seconds", time.perf_counter() - began)
        telemetry.observe(
            "stepwell_ingest_batch_events", sum(len(r.events) for n, r in enumerate(requests) if n in fresh)
        )
        for n, request in enumerate(requests):
            if n in fresh:
                measured.received(request.scope.environment_id, request.ids, request.events, request.source, at)
        self.after_commit()

    @staticmethod
    def _refuse(requests: Iterable[_Request], error: Exception) -> None:
        for request in requests:
            if not request.future.done():
                request.future.set_exception(error)

    @staticmethod
    async def _store(connection: Any, requests: list[_Request]) -> set[int]:
        events = [
            (
                n,
                event_id,
                event.name,
                event.client_id,
                event.ts,
                event_payload(event, to_ulid(event_id)).decode(),
                event.original,
            )
            for n, request in enumerate(requests)
            for event_id, event in zip(request.ids, request.events, strict=True)
        ]
        columns = list(zip(*events, strict=True))
        rows = await fetch(
            connection,
            named("inbox", "ingest"),
            n=list(range(len(requests))),
            environment=[r.scope.environment_id for r in requests],
            account=[r.scope.account_id for r in requests],
            seed=[r.seed for r in requests],
            sha=[r.sha for r in requests],
            source=[r.source for r in requests],
            event_n=columns[0],
            event_id=columns[1],
            event_name=columns[2],
            event_client_id=columns[3],
            event_ts=columns[4],
            event_payload=columns[5],
            event_original=columns[6],
        )
        return {row["n"] for row in rows}


def _drawn_ids(count: int) -> list[UUID]:
    """Ids in the order of the request's events: within one instant, who reacts to them goes by their ids."""
    now = time.time_ns() // 1_000_000
    first = int.from_bytes(os.urandom(10), "big") >> 1
    return [ulid_of(now, (first + i).to_bytes(10, "big")) for i in range(count)]


def _unavailable(message: str) -> Outside:
    return Outside(message, retryable=True, code="storage_unavailable")
