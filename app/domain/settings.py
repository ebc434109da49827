"""What a function may ask for: one small value for each setting of protocol 8.2, read and in range.

Keys and conditions are expressions as text; who evaluates them compiles them. None always means "not set".
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Scope(StrEnum):
    """Over what a concurrency limit counts."""

    FUNCTION = "fn"
    ENVIRONMENT = "env"
    ACCOUNT = "account"


class SingletonMode(StrEnum):
    """What happens to the newcomer: it is skipped, or it takes the place of the run that is there."""

    SKIP = "skip"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Trigger:
    """What starts a run: exactly one of `event` (a name or pattern) and `cron`."""

    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    jitter: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` calls (or runs) at once per value of `key`, counted over `scope`."""

    limit: int
    key: str | None = None
    scope: Scope = Scope.FUNCTION


@dataclass(frozen=True, slots=True)
class Throttle:
    """`limit` starts per `period`, `burst` more at once; the rest waits."""

    limit: int
    period: timedelta
    burst: int = 0
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`limit` runs per `period`; the rest is not started at all."""

    limit: int
    period: timedelta
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Debounce:
    """Start only after `period` without another event, at the latest after `timeout`."""

    period: timedelta
    key: str | None = None
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One run for up to `max_size` events or whatever came within `timeout`; `condition` false runs an event alone."""

    max_size: int
    timeout: timedelta
    key: str | None = None
    condition: str | None = None


@dataclass(frozen=True, slots=True)
class CancelRule:
    """An event that ends the run. `timeout`: how long, or until when, the rule holds."""

    event: str
    timeout: timedelta | datetime
    expression: str | None = None


@dataclass(frozen=True, slots=True)
class Singleton:
    """One run at a time per value of `key`."""

    mode: SingletonMode
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Runs that start or finish later than this are cancelled."""

    start: timedelta | None = None
    finish: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before a retry: `initial` before the first, `factor` times as long before each further one, at most `cap`."""

    initial: timedelta
    factor: float
    cap: timedelta
