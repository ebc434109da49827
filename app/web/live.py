"""Live pages: "something changed, fetch again", and nothing more.

The engine publishes a run's id on the channel `RUN_CHANGED` + environment id after its commits. One process holds one
subscription and wakes the streams that watch. Messages are hints: every stream also reads the version it watches, every
second without Redis and every three with it, so a lost message or a dead Redis delays a page and never makes it lie.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from app.adapters.redis import RUN_CHANGED

#: Seconds between looks at the database without and with a working subscription.
POLL_ALONE = 1.0
POLL_BESIDE = 3.0
#: A stream says something at least this often (seconds), or proxies close it.
KEEP_ALIVE = 15.0
#: At most about three signals a second: a busy run must not make its page busy. The last state is always told.
QUIET = 0.3
#: Streams of one process; who comes beyond is asked to come again later, and sees changes by reloading.
MOST_STREAMS = 1_000
_LATER = ": too many streams\nretry: 15000\n\n"
#: All environments' channels; what stands after the colon is the environment's id.
_PATTERN = f"{RUN_CHANGED}*"


class HeardLike(Protocol):
    """What a subscription gives: an empty channel means "from now on nothing is missed, look again"."""

    @property
    def channel(self) -> str:
        """Its name; empty for the news that nothing is missed from now on."""
        ...

    @property
    def message(self) -> Any:
        """The run's id as ULID text."""
        ...


class Signals:
    """One per process: who watches which environment, and the subscription that wakes them.

    `subscribe` is the door bell's (`adapters.redis.Bell.subscribe`); None means there is no Redis. Run `listen()` as a
    task of the process.
    """

    def __init__(self, subscribe: Callable[[str], AsyncIterator[HeardLike]] | None = None) -> None:
        self._subscribe = subscribe
        self._watchers: dict[str, set[Watch]] = defaultdict(set)
        self._has_heard = False

    @property
    def hears(self) -> bool:
        """True once a subscription has worked; it may be interrupted since, so polling never stops."""
        return self._has_heard

    @property
    def watching(self) -> int:
        """How many streams are open in this process."""
        return sum(map(len, self._watchers.values()))

    @contextmanager
    def watch(self, environment_id: UUID, run: str | None = None) -> Iterator["Watch"]:
        """Be woken by changes of one run (its ULID) or of any run of the environment."""
        name = f"{RUN_CHANGED}{environment_id}"
        watch = Watch(run, asyncio.Event())
        self._watchers[name].add(watch)
        try:
            yield watch
        finally:
            self._watchers[name].discard(watch)
            if not self._watchers[name]:
                del self._watchers[name]

    async def listen(self) -> None:
        """Wake watchers for ever; the subscription itself survives interruptions."""
        if self._subscribe is None:
            return
        async for heard in self._subscribe(_PATTERN):
            if not heard.channel:
                self._has_heard = True
                for watches in self._watchers.values():
                    for watch in watches:
                        watch.event.set()
                continue
            for watch in self._watchers.get(heard.channel, ()):
                if watch.run is None or watch.run == heard.message:
                    watch.event.set()


@asynccontextmanager
async def listening(signals: Signals) -> AsyncIterator[None]:
    """Listen as long as the process serves."""
    task = asyncio.create_task(signals.listen())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """One stream's place in the list; `event` is set by every message that concerns it."""

    run: str | None
    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Mark:
    """What a stream reads again and again: a text that differs after a change, and whether nothing more can come."""

    value: str
    is_final: bool = False


async def stream(
    signals: Signals,
    environment_id: UUID,
    run: str | None,
    read: Callable[[], Awaitable[Mark | None]],
    *,
    seen: str,
) -> AsyncIterator[str]:
    """The lines of a server-sent stream: `changed` when the mark differs from `seen`, `done` when it is final.

    Ends after `done`, or when `read` gives None (the thing is gone). Comments keep the line open.
    """
    clock = asyncio.get_running_loop().time
    if signals.watching >= MOST_STREAMS:
        yield _LATER
        return
    yield ": open\n\n"
    said = clock()
    with signals.watch(environment_id, run) as watch:
        while True:
            watch.event.clear()
            mark = await read()
            if mark is None:
                yield _event("done", seen)
                return
            if mark.value != seen:
                seen, said = mark.value, clock()
                yield _event("changed", seen)
            if mark.is_final:
                yield _event("done", seen)
                return
            if clock() - said >= KEEP_ALIVE:
                said = clock()
                yield ": still here\n\n"
            pause = POLL_BESIDE if signals.hears else POLL_ALONE
            await asyncio.sleep(QUIET)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watch.event.wait(), pause - QUIET)


def _event(name: str, mark: str) -> str:
    return f"event: {name}\nid: {mark}\ndata: {mark}\n\n"
