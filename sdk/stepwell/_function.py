"""A function: its settings, checked when it is declared, and its handler."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from stepwell import _durations
from stepwell._durations import Duration
from stepwell._errors import ConfigError
from stepwell._event import Event, Trigger

#: An `async def` taking `(ctx: Context, step: Step)`, or a `def` taking `(ctx: Context, step: SyncStep)`.
Handler = Callable[[Any, Any], Any]

#: Servers clamp larger numbers of retries to this one (protocol 8.2).
MAX_RETRIES = 20

DEFAULT_RETRIES = 4
MAX_FACTOR = 100
_LEAST_WAIT, _LONGEST_WAIT = timedelta(seconds=1), timedelta(days=1)


@dataclass(frozen=True)
class Concurrency:
    """How many steps of the function may execute at once: in all, or for each value of `key` (CEL over `event`).

    `scope` widens the count to all functions of the environment or account that use the same key.
    """

    limit: int
    key: str | None = None
    scope: Literal["fn", "env", "account"] = "fn"

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError("Concurrency.limit counts steps: write 1 or more, or 0 for no limit.")
        if self.scope != "fn" and not self.key:
            raise ConfigError(f"Concurrency with scope {self.scope!r} needs a key that names what is shared.")

    def to_wire(self) -> dict[str, Any]:
        """The limit as registered."""
        return {"limit": self.limit, "scope": self.scope} | ({"key": self.key} if self.key else {})


@dataclass(frozen=True)
class Backoff:
    """The waits between tries: `initial` before the second, then `factor` times as long each time, at most `cap`.

    A Stepwell server keeps to it; other servers of the protocol use their own waits.
    """

    initial: Duration
    factor: float = 2.0
    cap: Duration = "1h"

    def __post_init__(self) -> None:
        try:
            first, most = _durations.parse(self.initial), _durations.parse(self.cap)
        except ValueError as error:
            raise ConfigError(f"Backoff: {error}") from None
        if not _LEAST_WAIT <= first <= most <= _LONGEST_WAIT:
            raise ConfigError(
                "Backoff: initial and cap are spans from one second to one day, and initial is not above cap."
            )
        if not 1 <= self.factor <= MAX_FACTOR:
            raise ConfigError(f"Backoff.factor is {self.factor!r}: write 1 to {MAX_FACTOR}.")

    def to_wire(self) -> dict[str, Any]:
        """The waits as registered."""
        return {
            "initial": _durations.to_wire(self.initial),
            "factor": self.factor,
            "cap": _durations.to_wire(self.cap),
        }


class Function:
    """A declared function. Calling it runs the plain handler, which is handy in tests."""

    def __init__(
        self,
        handler: Handler,
        *,
        app_id: str,
        id: str,
        name: str | None,
        triggers: Sequence[Trigger],
        retries: int,
        concurrency: Sequence[Concurrency],
        on_failure: "Function | None" = None,
        checkpointing: bool = True,
        backoff: Backoff | None = None,
    ) -> None:
        if not id:
            raise ConfigError("A function needs an id, such as 'fulfil-order'.")
        if not 0 <= retries <= MAX_RETRIES:
            raise ConfigError(f"Function {id!r} has retries={retries}: write 0 to {MAX_RETRIES}.")
        if len(concurrency) > 2:
            raise ConfigError(f"Function {id!r} has {len(concurrency)} concurrency limits: two are the most.")
        self.handler = handler
        self.id = id
        self.full_id = f"{app_id}-{id}"
        self.name = name or id
        self.triggers = list(triggers)
        self.retries = retries
        self.concurrency = list(concurrency)
        self.on_failure = on_failure
        self.checkpointing = checkpointing
        self.backoff = backoff

    def __call__(self, ctx: Any, step: Any) -> Any:
        """Run the handler itself."""
        return self.handler(ctx, step)

    @property
    def is_async(self) -> bool:
        """Which of the two shells drives it."""
        return inspect.iscoroutinefunction(self.handler) or inspect.iscoroutinefunction(type(self.handler).__call__)

    def to_wire(self, serve_url: str) -> dict[str, Any]:
        """The function as registered (protocol 8.1)."""
        query = urlencode({"fnId": self.full_id, "stepId": "step"})
        runtime = {"type": "http", "url": f"{serve_url}?{query}"}
        retries: dict[str, Any] = {"attempts": self.retries}
        if self.backoff is not None:
            retries["backoff"] = self.backoff.to_wire()
        step = {"id": "step", "name": "step", "runtime": runtime, "retries": retries}
        written: dict[str, Any] = {
            "id": self.full_id,
            "name": self.name,
            "triggers": [trigger.to_wire() for trigger in self.triggers],
            "steps": {"step": step},
        }
        if self.concurrency:
            written["concurrency"] = [limit.to_wire() for limit in self.concurrency]
        return written


def make_failure_function(handler: Handler, *, app_id: str, id: str, name: str | None) -> Function:
    """The function that runs once when a run of function `id` has failed (protocol 6)."""
    trigger = Event("inngest/function.failed", if_=f"event.data.function_id == '{app_id}-{id}'")
    return Function(
        handler,
        app_id=app_id,
        id=f"{id}-failure",
        name=f"{name or id} (failure)",
        triggers=[trigger],
        retries=0,
        concurrency=[],
    )
