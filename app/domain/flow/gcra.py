"""The arithmetic of even spreading (GCRA), shared by throttle and rate limit.

One instant is all the state there is: `tat`, when everything admitted so far will be used up at the even pace. An arrival
is admitted while `tat` lies no more than `burst` paces ahead of now.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

_STEP = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Pace:
    """`every` is the time between two admissions, `burst` how many more than one may come at once."""

    every: timedelta
    burst: int


@dataclass(frozen=True, slots=True)
class Answer:
    """`tat` is the new state (the old one when refused); `at` the earliest time a refused arrival could pass."""

    is_admitted: bool
    tat: datetime | None
    at: datetime


def pace_of(limit: int, period: timedelta, burst: int) -> Pace:
    """`limit` per `period`. Rounded up to the microsecond, so that a period never admits one more than its limit."""
    return Pace(-(-period // (_STEP * limit)) * _STEP if limit > 0 else period, burst)


def arrive(pace: Pace, tat: datetime | None, now: datetime) -> Answer:
    """Admit one arrival or say when it may come again; `tat` None is a key nobody has used."""
    start = now if tat is None or tat < now else tat
    earliest = start - pace.every * pace.burst
    if earliest > now:
        return Answer(False, tat, earliest)
    return Answer(True, start + pace.every, now)
