"""The wait between retries that a function asks for instead of the protocol's table: initial delay, factor, cap.

It comes from the code (our SDK registers it) or from people (the dashboard, the API), who win. Either lies in the store as
one short text, read by every process that decides about a retry.
"""

from datetime import timedelta
from math import isfinite

from app.domain.limits import MAX_RETRY_DELAY, MIN_RETRY_DELAY
from app.domain.settings import Backoff

#: A factor beyond this reaches any cap with the second retry.
MAX_FACTOR = 100.0
_MS = timedelta(milliseconds=1)


def wait_before(backoff: Backoff, attempt: int) -> timedelta:
    """The wait before `attempt` (1 is the first retry), without spread."""
    seconds = backoff.initial.total_seconds()
    cap = backoff.cap.total_seconds()
    for _ in range(max(attempt, 1) - 1):
        seconds *= backoff.factor
        if seconds >= cap:
            break
    return timedelta(seconds=min(seconds, cap))


def complaint_about(initial: timedelta, factor: object, cap: timedelta | None) -> str | None:
    """What is wrong with a policy, as a sentence; None when nothing is. No cap means the longest wait there is."""
    most = MAX_RETRY_DELAY if cap is None else cap
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not isfinite(factor):
        return "The factor between two waits is a number."
    if not 1 <= factor <= MAX_FACTOR:
        return f"The factor between two waits is a number from 1 to {MAX_FACTOR:g}."
    if not MIN_RETRY_DELAY <= initial <= MAX_RETRY_DELAY or not MIN_RETRY_DELAY <= most <= MAX_RETRY_DELAY:
        return "Waits between retries last from one second to one day."
    if most < initial:
        return "The longest wait is shorter than the first one."
    return None


def stored(backoff: Backoff | None) -> str | None:
    """The policy as the store keeps it."""
    return None if backoff is None else f"{backoff.initial // _MS}:{backoff.factor!r}:{backoff.cap // _MS}"


def read_backoff(text: str | None) -> Backoff | None:
    """The policy of a stored text."""
    if text is None:
        return None
    initial, factor, cap = text.split(":")
    return Backoff(int(initial) * _MS, float(factor), int(cap) * _MS)
