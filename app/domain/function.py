"""A function as the engine knows it: who it is, where it is called, and what it asked for.

Made of a registered `FunctionConfig` and the ids that the store gave it; kept in memory by every worker, so it holds no
payloads and can be shared.
"""

from dataclasses import dataclass, field
from datetime import datetime

from app.domain.ids import AppId, FunctionId
from app.domain.protocol.function_config import FunctionConfig
from app.domain.settings import (
    Backoff,
    Batch,
    CancelRule,
    Concurrency,
    Debounce,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
)


@dataclass(frozen=True, slots=True)
class Function:
    """`max_attempts` is retries + 1, as calls carry it (protocol 10.1). `version` grows with every changed sync.

    `sdk` is `language:vX.Y.Z` of the last sync: some SDKs need to be treated differently (go cannot fetch state).
    """

    id: FunctionId
    app_id: AppId
    app_name: str
    slug: str
    name: str
    url: str
    version: int
    max_attempts: int
    sdk: str = ""
    is_connect: bool = False
    is_paused: bool = False
    #: Calls wait until then, by people's wish; runs are made all the same.
    held_until: datetime | None = None
    backoff: Backoff | None = None
    triggers: tuple[Trigger, ...] = ()
    concurrency: tuple[Concurrency, ...] = ()
    run_concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    rate_limit: RateLimit | None = None
    debounce: Debounce | None = None
    priority: str | None = None
    batch: Batch | None = None
    cancel: tuple[CancelRule, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    singleton: Singleton | None = None

    @property
    def is_failure_handler(self) -> bool:
        """Whether it was registered for another function's `onFailure`: such runs emit no events of their own."""
        return any(trigger.event == "inngest/function.failed" for trigger in self.triggers)


def function_of(
    config: FunctionConfig,
    *,
    id: FunctionId,  # noqa: A002 - the field it becomes
    app_id: AppId,
    app_name: str,
    version: int,
    sdk: str = "",
    is_paused: bool = False,
    held_until: datetime | None = None,
    own_backoff: Backoff | None = None,
) -> Function:
    """The function a config describes, under the ids the store gave it."""
    return Function(
        id=id,
        app_id=app_id,
        app_name=app_name,
        slug=config.slug,
        name=config.name,
        url=config.url,
        version=version,
        max_attempts=config.retries + 1,
        sdk=sdk,
        is_connect=config.is_connect,
        is_paused=is_paused,
        held_until=held_until,
        # What people set wins over the code.
        backoff=own_backoff or config.backoff,
        triggers=config.triggers,
        concurrency=config.concurrency,
        run_concurrency=config.run_concurrency,
        throttle=config.throttle,
        # Batched functions are not rate limited (protocol 8.2).
        rate_limit=None if config.batch is not None else config.rate_limit,
        debounce=config.debounce,
        priority=config.priority,
        batch=config.batch,
        cancel=config.cancel,
        timeouts=config.timeouts,
        singleton=config.singleton,
    )
