"""What user code holds in its hands: `Context` and the two kinds of `step`, one to await and one to call.

Both say what they want as a `Wish` and ask their shell for it; neither decides anything.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, TypeVarTuple, overload

from stepwell import _wishes
from stepwell._durations import Duration
from stepwell._event import EventMessage, Sendable
from stepwell._replay import Wish
from stepwell._wishes import Send, Until

if TYPE_CHECKING:
    from stepwell._function import Function

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
Args = TypeVarTuple("Args")

#: How a parallel group ends: when all branches have ended, or when the first one has.
Mode = Literal["wait", "race"]


class Context:
    """What a run knows about itself.

    `event` started the run; `events` are all of them when the function takes batches. `attempt` counts from 0 and is that
    of the step being executed, or of the function's own code.
    """

    def __init__(
        self,
        *,
        event: EventMessage,
        events: Sequence[EventMessage],
        run_id: str,
        function_id: str,
        attempt: Callable[[], int],
    ) -> None:
        self.event = event
        self.events = list(events)
        self.run_id = run_id
        self.function_id = function_id
        self._attempt = attempt

    @property
    def attempt(self) -> int:
        """How often this was tried before."""
        return self._attempt()


class AsyncAsk(Protocol):
    """The asynchronous shell as `Step` sees it."""

    async def ask(self, wish: Wish) -> Any:
        """Wait until the step has ended; gives its value or raises its error."""

    async def parallel(self, branches: Sequence[Callable[[], Any]], mode: Mode) -> Any:
        """Run the branches side by side."""


class SyncAsk(Protocol):
    """The synchronous shell as `SyncStep` sees it."""

    def ask(self, wish: Wish) -> Any:
        """Wait until the step has ended; gives its value or raises its error."""

    def parallel(self, branches: Sequence[Callable[[], Any]], mode: Mode) -> Any:
        """Run the branches side by side."""


class Step:
    """The steps of an `async def` function. Ids name steps on the run's page and must stay the same between calls."""

    def __init__(self, shell: AsyncAsk, run_id: str, send: Send) -> None:
        self._shell = shell
        self._run_id = run_id
        self._send = send

    @overload
    async def run(self, step_id: str, work: Callable[[*Args], Awaitable[T]], *args: *Args) -> T: ...
    @overload
    async def run(self, step_id: str, work: Callable[[*Args], T], *args: *Args) -> T: ...
    async def run(self, step_id: str, work: Callable[[*Args], Any], *args: *Args) -> Any:
        """Execute `work(*args)` once, however often the function is started again, and give what it returned.

        The value passes through JSON, so return plain values. Plain functions run in a thread. What `work` raises is
        tried again as the function's `retries` say; after that it is raised here as `StepError`.
        """
        return await self._shell.ask(_wishes.run(step_id, work, args))

    async def sleep(self, step_id: str, span: Duration) -> None:
        """Pause the run, for seconds or months. Nothing waits in memory."""
        await self._shell.ask(_wishes.sleep(step_id, span))

    async def sleep_until(self, step_id: str, moment: datetime) -> None:
        """Pause the run until a moment, which must have a time zone."""
        await self._shell.ask(_wishes.sleep_until(step_id, moment))

    async def wait_for_event(
        self, step_id: str, event: str, *, timeout: Until, if_: str | None = None
    ) -> EventMessage | None:
        """Pause until an event of this name arrives for which `if_` holds; None when `timeout` comes first.

        `if_` is CEL over `event`, which started the run, and `async`, the one that arrives:
        `event.data.order == async.data.order`.
        """
        found: EventMessage | None = await self._shell.ask(_wishes.wait_for_event(step_id, event, timeout, if_))
        return found

    async def invoke(
        self,
        step_id: str,
        function: "Function | str",
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: Until | None = None,
    ) -> Any:
        """Run another function and give its result; `StepError` if it fails. A text is its full id, `app-function`."""
        return await self._shell.ask(_wishes.invoke(step_id, _full_id(function), payload or {}, timeout))

    async def send_event(self, step_id: str, events: Sendable | Sequence[Sendable]) -> list[str]:
        """Send one event or several, once, and give their internal ids."""
        ids: list[str] = await self._shell.ask(_wishes.send_event(step_id, events, self._send, self._run_id))
        return ids

    @overload
    async def parallel(
        self, first: Callable[[], Awaitable[T1]], second: Callable[[], Awaitable[T2]], /
    ) -> tuple[T1, T2]: ...
    @overload
    async def parallel(
        self,
        first: Callable[[], Awaitable[T1]],
        second: Callable[[], Awaitable[T2]],
        third: Callable[[], Awaitable[T3]],
        /,
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def parallel(
        self, *branches: Callable[[], Awaitable[T]], mode: Literal["wait"] = "wait"
    ) -> tuple[T, ...]: ...
    @overload
    async def parallel(self, *branches: Callable[[], Awaitable[T]], mode: Literal["race"]) -> T: ...
    async def parallel(self, *branches: Callable[[], Any], mode: Mode = "wait") -> Any:
        """Run branches side by side; each may use several steps, one after the other.

        `wait` gives all results as a tuple, and raises the first error, in the order of the branches, once all have ended.
        `race` gives what the first branch to end gives (or raises) and drops the others. `asyncio.gather` and task groups
        work as well.
        """
        return await self._shell.parallel(branches, mode)


class SyncStep:
    """The steps of a plain `def` function: like `Step`, without `await`. Branches of `parallel` take turns."""

    def __init__(self, shell: SyncAsk, run_id: str, send: Send) -> None:
        self._shell = shell
        self._run_id = run_id
        self._send = send

    def run(self, step_id: str, work: Callable[[*Args], T], *args: *Args) -> T:
        """Execute `work(*args)` once; see `Step.run`."""
        value: T = self._shell.ask(_wishes.run(step_id, work, args))
        return value

    def sleep(self, step_id: str, span: Duration) -> None:
        """Pause the run; see `Step.sleep`."""
        self._shell.ask(_wishes.sleep(step_id, span))

    def sleep_until(self, step_id: str, moment: datetime) -> None:
        """Pause the run until a moment; see `Step.sleep_until`."""
        self._shell.ask(_wishes.sleep_until(step_id, moment))

    def wait_for_event(
        self, step_id: str, event: str, *, timeout: Until, if_: str | None = None
    ) -> EventMessage | None:
        """Pause until an event arrives or time is up; see `Step.wait_for_event`."""
        found: EventMessage | None = self._shell.ask(_wishes.wait_for_event(step_id, event, timeout, if_))
        return found

    def invoke(
        self,
        step_id: str,
        function: "Function | str",
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: Until | None = None,
    ) -> Any:
        """Run another function and give its result; see `Step.invoke`."""
        return self._shell.ask(_wishes.invoke(step_id, _full_id(function), payload or {}, timeout))

    def send_event(self, step_id: str, events: Sendable | Sequence[Sendable]) -> list[str]:
        """Send one event or several, once; see `Step.send_event`."""
        ids: list[str] = self._shell.ask(_wishes.send_event(step_id, events, self._send, self._run_id))
        return ids

    @overload
    def parallel(self, first: Callable[[], T1], second: Callable[[], T2], /) -> tuple[T1, T2]: ...
    @overload
    def parallel(
        self, first: Callable[[], T1], second: Callable[[], T2], third: Callable[[], T3], /
    ) -> tuple[T1, T2, T3]: ...
    @overload
    def parallel(self, *branches: Callable[[], T], mode: Literal["wait"] = "wait") -> tuple[T, ...]: ...
    @overload
    def parallel(self, *branches: Callable[[], T], mode: Literal["race"]) -> T: ...
    def parallel(self, *branches: Callable[[], Any], mode: Mode = "wait") -> Any:
        """Run branches side by side; see `Step.parallel`."""
        return self._shell.parallel(branches, mode)


def _full_id(function: "Function | str") -> str:
    return function if isinstance(function, str) else function.full_id
