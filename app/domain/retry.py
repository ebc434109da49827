"""How long to wait before a failed call is made again (protocol 14.2, 14.3).

The spread is computed from the run, the item and the attempt: calls that failed together come back apart, and the same
history gives the same times.
"""

import hashlib
from datetime import timedelta
from typing import Final

from app.domain.backoff import wait_before
from app.domain.ids import RunId
from app.domain.limits import MAX_RETRY_DELAY, MIN_RETRY_DELAY
from app.domain.run.state import RetryPolicy

#: Before the first retry, the second, …; the last one holds for all that follow (protocol 14.2).
BACKOFF: Final = (
    timedelta(seconds=15),
    timedelta(seconds=30),
    timedelta(minutes=1),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=10),
    timedelta(minutes=20),
    timedelta(minutes=40),
    timedelta(hours=1),
    timedelta(hours=2),
)
MAX_JITTER: Final = timedelta(seconds=30)


def delay(
    policy: RetryPolicy, run_id: RunId, item_key: str, attempt: int, retry_after: timedelta | None = None
) -> timedelta:
    """The wait before `attempt` (1 is the first retry).

    What the app asked for wins, held between a second and a day; then the policy's fixed delay, without spread; then the
    function's own waits plus at most a tenth of each; then the table plus 0 to 30 s.
    """
    if retry_after is not None:
        return min(max(retry_after, MIN_RETRY_DELAY), MAX_RETRY_DELAY)
    if policy.fixed_delay is not None:
        return policy.fixed_delay
    if policy.backoff is not None:
        base = wait_before(policy.backoff, attempt)
        return base + _jitter(run_id, item_key, attempt, min(base / 10, MAX_JITTER))
    base = BACKOFF[min(max(attempt, 1), len(BACKOFF)) - 1]
    return base + _jitter(run_id, item_key, attempt, MAX_JITTER)


def _jitter(run_id: RunId, item_key: str, attempt: int, most: timedelta) -> timedelta:
    digest = hashlib.sha256(b"\x00".join((run_id.bytes, item_key.encode(), str(attempt).encode()))).digest()
    span = most // timedelta(milliseconds=1)
    return timedelta(milliseconds=int.from_bytes(digest[:8], "big") % (span + 1))
