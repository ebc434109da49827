"""How often one key may ask the API (L12 of the limits): a bucket in the memory of each process.

Nobody waits for a shared counter, so Redis may be away; with several web processes a key may ask that many times as
often. What SDKs call in the middle of a run (checkpoints, state, registration) does not come here: refusing them would
break runs to protect lists.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.domain.errors import Refused
from app.domain.flow.gcra import arrive, pace_of

_MINUTE = timedelta(minutes=1)
#: A monotonic clock has no date; this one stands in, and only differences count.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: Keys remembered; the one that came first goes first, and has its whole allowance again.
_MOST = 10_000


class TooOften(Refused):
    """The key has asked too often. Wait as long as `Retry-After` says."""

    def __init__(self, usage: "Usage") -> None:
        """Say when to come again."""
        super().__init__("rate_limited", details={"limit": usage.limit, "retry_after": usage.reset_s})


@dataclass(frozen=True, slots=True)
class Usage:
    """What a key may do in a minute, how much of it is left, and in how many seconds there is more."""

    limit: int
    rest: int
    reset_s: int

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """For the answer."""
        values = (self.limit, self.rest, self.reset_s)
        names = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
        return [(name, str(value).encode()) for name, value in zip(names, values, strict=True)]


class ApiRate:
    """The buckets of this process, one for each key."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        """`now` is a clock in seconds that never goes back."""
        self._now = now
        self._most = most
        self._tats: dict[bytes, datetime] = {}

    def ask(self, key: str, limit: int) -> tuple[bool, Usage]:
        """Count one request of a key that may make `limit` in a minute: whether it may pass, and what is left."""
        name = hashlib.sha256(key.encode(errors="replace")).digest()
        now = _EPOCH + timedelta(seconds=self._now())
        pace = pace_of(limit, _MINUTE, limit - 1)
        answer = arrive(pace, self._tats.get(name), now)
        assert answer.tat is not None
        while name not in self._tats and len(self._tats) >= self._most:
            del self._tats[next(iter(self._tats))]
        self._tats[name] = answer.tat
        rest = max(0, limit - math.ceil((answer.tat - now) / pace.every))
        wait = answer.at - now if not answer.is_admitted else answer.tat - now - pace.every * (limit - 1)
        return answer.is_admitted, Usage(limit, rest, max(1, math.ceil(wait.total_seconds())))
