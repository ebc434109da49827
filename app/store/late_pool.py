"""A pool for a database that may come later: processes start without it and work as soon as it is there."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg

from app.domain.errors import Outside
from app.store.db import CONNECTION_LOST, Pool

#: Seconds between attempts to open, doubled from the first to the last.
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0
#: What opening may raise while a database is away, starting, or not yet migrated (roles missing).
_NOT_YET = (*CONNECTION_LOST, asyncpg.PostgresError)


class StorageUnavailable(Outside):
    """The database cannot be reached just now. Please try again in a moment."""

    def __init__(self) -> None:
        super().__init__(retryable=True, after=timedelta(seconds=1), code="storage_unavailable")


class LatePool:
    """Stands in for an asyncpg pool: the same methods, `StorageUnavailable` until the real one is open."""

    def __init__(self, open_pool: Callable[[], Awaitable[Pool]], *, longest_wait: float | None = None) -> None:
        """Remember how to open; nothing is opened before `start`.

        `longest_wait` bounds in seconds how long anybody waits for a free connection, whatever they ask for (L15): where
        people and apps wait for an answer, a pool that is exhausted is an error at once (F10).
        """
        self._open_pool = open_pool
        self._longest_wait = longest_wait
        self._pool: Pool | None = None
        self._opening: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self.last_failure: str = ""

    @property
    def is_open(self) -> bool:
        """Say whether the database has been reached since the start."""
        return self._pool is not None

    async def start(self) -> None:
        """Try once to open; if that fails, go on trying in the background."""
        self._opening = asyncio.create_task(self._keep_trying())
        await self._tried.wait()
        await asyncio.sleep(0)
        self._fail_with_mistake()

    async def stop(self) -> None:
        """Give up trying and close what is open; connections in use get two seconds."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), 2)
            except TimeoutError:
                pool.terminate()

    def acquire(self, *, timeout: float | None = None) -> Any:
        """Take a connection, as the real pool's method; TimeoutError when none is free in time."""
        longest = self._longest_wait
        if longest is not None:
            timeout = longest if timeout is None else min(timeout, longest)
        return self._real().acquire(timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        """Pass everything else on to the real pool."""
        return getattr(self._real(), name)

    def _real(self) -> Pool:
        if self._pool is None:
            self._fail_with_mistake()
            raise StorageUnavailable
        return self._pool

    def _fail_with_mistake(self) -> None:
        """Raise what ended the attempts, if it was not an absent database but a mistake of ours."""
        if self._opening is not None and self._opening.done() and not self._opening.cancelled():
            self._opening.result()

    async def _keep_trying(self) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                self._pool = await self._open_pool()
                return
            except _NOT_YET as failure:
                self.last_failure = type(failure).__name__
            finally:
                self._tried.set()
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
