"""How a process is: measured while it lives and published every few seconds, so that one page and one address show all.

A process that cannot reach the database publishes nothing and is missing from the list, which is what an operator must
see. Nothing waits for this task and it waits for nobody.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from app import telemetry
from app.domain.errors import Outside
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Seconds between snapshots; a process is missed after `FRESH_S`.
_EVERY_S = 5.0
FRESH_S = 20.0
#: Seconds between two looks at the event loop.
_LOOK_S = 0.25


@dataclass(slots=True)
class Vitals:
    """The task of one process. `look` sets gauges that only its owner knows."""

    pool: Pool
    kind: str
    name: str = ""
    pools: Mapping[str, Pool] = field(default_factory=dict)
    look: Callable[[], None] = lambda: None
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    _lag: float = 0.0
    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def start(self) -> None:
        """Begin to measure and to publish."""
        self._tasks = [asyncio.create_task(self._watch(), name="lag"), asyncio.create_task(self._tell(), name="vitals")]

    async def stop(self) -> None:
        """End, and leave the list of processes where the database lets us."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*CONNECTION_LOST, asyncpg.PostgresError, Outside):
            async with self.pool.acquire(timeout=1) as connection:
                await fetch(connection, named("operations", "withdraw"), id=self.id)

    async def publish(self) -> None:
        """Write one snapshot."""
        self._measure()
        name = self.name or f"{self.kind}@{socket.gethostname()}:{os.getpid()}"
        async with self.pool.acquire(timeout=2) as connection:
            await fetch(
                connection,
                named("operations", "publish"),
                id=self.id,
                kind=self.kind,
                name=name,
                body=json.dumps(telemetry.snapshot()),
            )

    def _measure(self) -> None:
        telemetry.gauge("stepwell_memory_bytes", telemetry.memory_bytes())
        telemetry.gauge("stepwell_cpu_seconds_total", telemetry.cpu_seconds())
        telemetry.gauge("stepwell_loop_lag_seconds", self._lag)
        self._lag = 0.0
        for name, pool in self.pools.items():
            size, idle = _size_of(pool)
            telemetry.gauge("stepwell_pool_connections", size - idle, name, "in_use")
            telemetry.gauge("stepwell_pool_connections", idle, name, "idle")
        self.look()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self._lag = max(self._lag, loop.time() - wanted)

    async def _tell(self) -> None:
        while True:
            try:
                await self.publish()
            except (*CONNECTION_LOST, asyncpg.PostgresError, Outside) as error:
                log.debug("could not publish what was measured", extra={"error": repr(error)})
            await asyncio.sleep(_EVERY_S)


def _size_of(pool: Any) -> tuple[int, int]:
    """(connections, idle ones); a pool that is not open yet has none."""
    try:
        return pool.get_size(), pool.get_idle_size()
    except Outside:
        return 0, 0
