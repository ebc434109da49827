"""An event loop without a world: virtual time, no sockets, one order of everything for one seed.

Time jumps to the next timer when nobody can go on. A task belongs to the actor in whose context it was made; a dead actor's
tasks are never resumed, those of a frozen one only after it thaws, wherever they stand: that is a process that was killed
or stopped between two instructions.
"""

import asyncio
import contextlib
import heapq
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Actor:
    """A process of the pretended world. `frozen_until`: virtual seconds before which none of its tasks moves."""

    name: str
    is_dead: bool = False
    frozen_until: float = 0.0


ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)


class Stuck(AssertionError):
    """Nobody will ever move again, or not before the bound."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """See the module. Only what asyncio's tasks, futures, locks and timeouts need."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.Handle]] = []
        self._count = 0
        self.now = 0.0
        #: What asyncio reported: exceptions nobody awaited.
        self.complaints: list[dict[str, Any]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self._contexts: dict[asyncio.Task[Any], Context] = {}

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(context)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **_more: Any) -> "asyncio.Task[Any]":
        own = context if context is not None else copy_context()
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=own)
        self.tasks.append(task)
        self._contexts[task] = own
        return task

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._push(when, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed by when its time comes."""

    def _push(self, when: float, handle: asyncio.Handle) -> None:
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))

    def start(self, actor: Actor | None, coro: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Make a task of an actor."""
        context = copy_context()
        context.run(ACTOR.set, actor)
        return self.create_task(coro, context=context)

    def run(self, is_done: Callable[[], bool], until: float) -> None:
        """Let everybody move until `is_done`; raises `Stuck` at the virtual time `until`."""
        asyncio._set_running_loop(self)
        try:
            while not is_done():
                if not self._ready:
                    self._next_timer(until)
                self._move(self._ready.popleft())
        finally:
            asyncio._set_running_loop(None)

    def _next_timer(self, until: float) -> None:
        while self._timers:
            when, _, handle = heapq.heappop(self._timers)
            if handle.cancelled():
                continue
            if when > until:
                raise Stuck(f"not done at {until} s of virtual time")
            self.now = max(self.now, when)
            self._ready.append(handle)
            return
        raise Stuck("nobody moves any more")

    def _move(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        actor = handle._context.get(ACTOR)  # type: ignore[attr-defined]
        if actor is not None:
            if actor.is_dead:
                return
            if actor.frozen_until > self.now:
                self._push(actor.frozen_until, handle)
                return
        handle._run()

    def bury(self) -> None:
        """End every task that is left; what they do while they end reaches nobody."""
        for task in self.tasks:
            coroutine = task.get_coro()
            if task.done() or not inspect.iscoroutine(coroutine):
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(Exception):
                # In its own context, or what it put there cannot be taken back.
                self._contexts[task].run(coroutine.close)
        self._ready.clear()
        self._timers.clear()
        self.tasks.clear()
        self._contexts.clear()
