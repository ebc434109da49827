"""Station 1: events are validated, get ids, are committed with their inbox rows, and only then acknowledged (I1, I2).

Many requests that are ready together share one statement (architecture D4): commit when the previous commit is back.
Comes from `web/api/events.py`; what an event sets off is `react`'s work, in another transaction.
"""

import asyncio
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from app import telemetry
from app.domain.errors import Outside
from app.domain.event import NewEvent, event_payload, seeded_ids
from app.domain.ids import to_ulid, ulid_of
from app.domain.scope import Scope
from app.engine import measured, pause_points
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

#: Events in one statement; a request larger than this goes alone.
_BATCH_EVENTS = 2000
_WRITERS = 2


@dataclass(slots=True)
class _Request:
    scope: Scope
    events: list[NewEvent]
    ids: list[UUID]
    seed: str | None
    sha: bytes | None
    source: str
    future: "asyncio.Future[list[UUID]]"


@dataclass(slots=True)
class Ingest:
    """Group commit of accepted events, one per web process."""

    pool: Pool
    after_commit: Callable[[], None] = lambda: None
    _queue: deque[_Request] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

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
        the same ids (protocol 5.5). `source` says where they came from: api, or page for people's own. Raises Outside (`storage_unavailable`) when the database cannot say that they are stored.
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
        request = _Request(scope, events, ids, seed, sha, source, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._wake.set()
        stored = await request.future
        return stored or None

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
            # The outcome is unknown; a seeded repeat finds out, and 503 says nothing was promised.
            self._refuse(requests, _unavailable("The database does not answer; nothing is known to be stored."))
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
    def _refuse(requests: list[_Request], error: Exception) -> None:
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
