"""Drives an `async def` function through one call.

The function runs as a task. A step it has no result for leaves it waiting on a future, and it may wait on several at once,
through `step.parallel`, `asyncio.gather` or task groups. When nothing new was asked for during a few turns of the event
loop it stands still, and the replay core decides what happens next.
"""

import asyncio
import contextvars
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any

from stepwell import _answer
from stepwell._answer import Answer
from stepwell._errors import Interrupted, NestedStepError
from stepwell._execute import Budget, Checkpoint, attempt, conclude
from stepwell._replay import Execute, Missing, Outcome, Release, Replay, Slot, Wish
from stepwell._step import Mode
from stepwell._wishes import in_race, inside_step

#: Turns of the event loop without a new step before user code counts as standing still. A group nested in a group takes
#: one turn to start its branches and about three to pass on their results.
_QUIET_TURNS = 12

#: Seconds to wait for the targeted step when user code awaits something else first.
_MISSING_GRACE_S = 5.0

#: Seconds user code gets to unwind (its `finally` blocks), before and after it is cancelled.
_UNWIND_S = 2.0


class AsyncShell:
    """One call of one asynchronous function."""

    def __init__(self, replay: Replay, checkpoint: Checkpoint, threads: Executor, requests: Executor) -> None:
        self._replay = replay
        self._checkpoint = checkpoint
        self._threads = threads
        self._requests = requests
        self._budget = Budget()
        self._waiting: dict[Slot, asyncio.Future[None]] = {}
        self._contexts: dict[Slot, contextvars.Context] = {}
        self._stirred = asyncio.Event()
        self._is_over = False

    async def run(self, function: Coroutine[Any, Any, Any]) -> Answer:
        """Run user code until the answer to the call is known."""
        task = asyncio.create_task(function)
        task.add_done_callback(lambda _: self._stirred.set())
        try:
            return await self._drive(task)
        finally:
            await self._unwind(task)

    async def ask(self, wish: Wish) -> Any:
        """Serve a step to user code; see `Step`."""
        if inside_step.get():
            raise NestedStepError
        if self._is_over:
            raise Interrupted
        slot = self._replay.discover(wish, race=in_race.get())
        self._wake(self._replay.release_ready())
        if slot.outcome is None:
            self._waiting[slot] = asyncio.get_running_loop().create_future()
            self._contexts[slot] = contextvars.copy_context()
            self._stirred.set()
            try:
                await self._waiting[slot]
            except asyncio.CancelledError:
                self._replay.withdraw(slot)
                raise
            finally:
                del self._waiting[slot]
        assert slot.outcome is not None
        return slot.outcome.unwrap()

    async def parallel(self, branches: Sequence[Callable[[], Awaitable[Any]]], mode: Mode) -> Any:
        """Serve a group to user code; see `Step.parallel`."""
        if not branches:
            return ()
        ended: list[asyncio.Task[Any]] = []
        tasks = [asyncio.create_task(_branch(branch, mode)) for branch in branches]
        for task in tasks:
            task.add_done_callback(ended.append)
        try:
            if mode == "race":
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                return ended[0].result()
            await asyncio.wait(tasks)
            return tuple(task.result() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, task: asyncio.Task[Any]) -> Answer:
        while True:
            await self._stand_still(task)
            if task.done():
                return _end(task)
            decision = self._replay.decide(expired=self._budget.is_spent)
            match decision:
                case None:
                    continue
                case Release(slot):
                    self._wake([slot])
                case Execute(slot):
                    following = await self._execute(slot)
                    if isinstance(following, Answer):
                        return following
                    self._wake([following])
                case Missing(answer):
                    if not await self._stirs(task):
                        return answer
                case Answer():
                    return decision

    async def _stand_still(self, task: asyncio.Task[Any]) -> None:
        """Wait until user code waits for a step and has asked for no further one during some turns, or has ended."""
        quiet, seen = 0, -1
        while quiet < _QUIET_TURNS and not task.done():
            if not self._replay.is_waiting:
                self._stirred.clear()
                await self._stirred.wait()
            await asyncio.sleep(0)
            quiet = quiet + 1 if seen == self._replay.changes else 0
            seen = self._replay.changes

    async def _stirs(self, task: asyncio.Task[Any]) -> bool:
        """Wait a little for another step, or the end, of user code that is busy elsewhere."""
        self._stirred.clear()
        if task.done():
            return True
        try:
            await asyncio.wait_for(self._stirred.wait(), _MISSING_GRACE_S)
        except TimeoutError:
            return False
        return True

    async def _execute(self, slot: Slot) -> Answer | Slot:
        started_ns = time.time_ns()
        outcome = await self._work(slot)
        following = self._replay.settle(slot, outcome, started_ns)
        if isinstance(following, Answer):
            return following
        loop = asyncio.get_running_loop()
        verdict = await loop.run_in_executor(self._requests, self._checkpoint, following.ops)
        return conclude(self._replay, following, verdict)

    async def _work(self, slot: Slot) -> Outcome:
        """Run a step's code in the context it was asked for in; plain functions in a thread."""
        context = self._contexts.pop(slot)
        work = asyncio.create_task(self._outcome(slot), context=context)
        try:
            return await work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                work.cancel()
                raise
            return Outcome(error=RuntimeError("The step's code was cancelled from within."))

    async def _outcome(self, slot: Slot) -> Outcome:
        inside_step.set(True)
        function, args = slot.wish.work, slot.args
        assert function is not None
        if inspect.iscoroutinefunction(function):
            outcome = attempt(function, args)
        else:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            outcome = await loop.run_in_executor(self._threads, context.run, attempt, function, args)
        if not inspect.isawaitable(outcome.value):
            return outcome
        try:
            return Outcome(await outcome.value)
        except Exception as error:  # noqa: BLE001  a failure of user code is the step's result
            return Outcome(error=error)

    def _wake(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            future = self._waiting.get(slot)
            if future is not None and not future.done():
                future.set_result(None)

    async def _unwind(self, task: asyncio.Task[Any]) -> None:
        """Let user code run its `finally` blocks and end, so that nothing of this call outlives it."""
        self._is_over = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Interrupted())
        if not task.done():
            await asyncio.wait({task}, timeout=_UNWIND_S)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_UNWIND_S)
        if task.done() and not task.cancelled():
            task.exception()  # Marks it as seen; the answer is already decided.


async def _branch(branch: Callable[[], Awaitable[Any]], mode: Mode) -> Any:
    in_race.set(in_race.get() or mode == "race")
    return await branch()


def _end(task: asyncio.Task[Any]) -> Answer:
    if task.cancelled():
        return _answer.failure(RuntimeError("The function was cancelled from within."))
    error = task.exception()
    if error is not None:
        return _answer.failure(error)
    try:
        return _answer.result(task.result())
    except Exception as unwritable:  # noqa: BLE001  the result has no JSON form
        return _answer.failure(unwritable)
