"""The client: one app, its settings, its functions, and sending events."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stepwell import _settings, _signature
from stepwell._api import Api
from stepwell._errors import ConfigError
from stepwell._event import Sendable, Trigger
from stepwell._function import DEFAULT_RETRIES, Backoff, Concurrency, Function, Handler, make_failure_function
from stepwell._wishes import to_messages

if TYPE_CHECKING:
    from stepwell._settings import Settings

#: Threads for plain functions and plain steps.
_THREADS = 64

#: Threads for requests to the server, apart from those of user code, so that slow steps cannot hold up saving others.
_REQUESTS = 16


class Client:
    """One app. What is left out is read from the environment; see the README for the variables.

    `checkpointing` lets one call execute several steps, saving each before the next; off, every step is a call of its own.
    """

    def __init__(
        self,
        app_id: str,
        *,
        env: str | None = None,
        is_dev: bool | None = None,
        base_url: str | None = None,
        event_key: str | None = None,
        signing_key: str | None = None,
        signing_key_fallback: str | None = None,
        checkpointing: bool = True,
    ) -> None:
        if not app_id:
            raise ConfigError("A client needs the id of your app, such as 'shop'.")
        self.app_id = app_id
        self.checkpointing = checkpointing
        self.functions: list[Function] = []
        """Every function declared on this client, in order."""
        self._settings = _settings.resolve(
            env=env,
            is_dev=is_dev,
            base_url=base_url,
            event_key=event_key,
            signing_key=signing_key,
            signing_key_fallback=signing_key_fallback,
        )
        for key in self._settings.signing_keys:
            _signature.hash_key(key)  # A key that is no key is refused now, not in the middle of a run.
        self._api = Api(self._settings)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="stepwell")
        self._requests = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="stepwell-requests")

    @property
    def settings(self) -> "Settings":
        """What was settled from arguments and environment."""
        return self._settings

    def function(
        self,
        *,
        id: str,
        trigger: Trigger | Sequence[Trigger] = (),
        name: str | None = None,
        retries: int = DEFAULT_RETRIES,
        backoff: Backoff | None = None,
        concurrency: int | Concurrency | Sequence[Concurrency] = (),
        on_failure: Handler | None = None,
        checkpointing: bool = True,
    ) -> Callable[[Handler], Function]:
        """Declare a function. Without a trigger it runs only when invoked.

        `retries` counts the tries after the first one, of each step and of the function's own code; `backoff` sets the
        waits between them. `on_failure` is a
        handler like the function itself; it runs once when a run has failed, with the error in `ctx.event.data["error"]`
        and the event that had started the run in `ctx.event.data["event"]`.
        """
        triggers = list(trigger) if isinstance(trigger, Sequence) else [trigger]

        def declare(handler: Handler) -> Function:
            failure = on_failure and make_failure_function(on_failure, app_id=self.app_id, id=id, name=name)
            function = Function(
                handler,
                app_id=self.app_id,
                id=id,
                name=name,
                triggers=triggers,
                retries=retries,
                concurrency=_limits(concurrency),
                on_failure=failure,
                checkpointing=checkpointing and self.checkpointing,
                backoff=backoff,
            )
            self.functions.append(function)
            return function

        return declare

    async def send(self, events: Sendable | Sequence[Sendable]) -> list[str]:
        """Send one event or several and give their internal ids; `SendEventsError` when the server does not take them.

        Safe to repeat if your events have an `id`. Inside a function use `step.send_event`, which sends once.
        """
        return await asyncio.get_running_loop().run_in_executor(self._requests, self.send_sync, events)

    def send_sync(self, events: Sendable | Sequence[Sendable]) -> list[str]:
        """The same, blocking."""
        messages = to_messages(events)
        return self._api.send(messages) if messages else []


def _limits(concurrency: int | Concurrency | Sequence[Concurrency]) -> list[Concurrency]:
    if isinstance(concurrency, int):
        return [Concurrency(concurrency)]
    return [concurrency] if isinstance(concurrency, Concurrency) else list(concurrency)
