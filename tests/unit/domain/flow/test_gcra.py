"""Even spreading against an independent model: a bucket that leaks, counted in whole microseconds."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.flow import rate_limit, throttle
from app.domain.flow.gcra import Pace, arrive, pace_of
from app.domain.settings import RateLimit, Throttle

START = datetime(2026, 1, 1, tzinfo=UTC)
MICRO = timedelta(microseconds=1)


class Bucket:
    """The model: a level in microseconds of work that drains by itself; full at (burst + 1) paces."""

    def __init__(self, every: int, burst: int) -> None:
        self.every, self.room = every, every * (burst + 1)
        self.level, self.at = 0, 0

    def arrive(self, at: int) -> bool:
        self.level = max(0, self.level - (at - self.at))
        self.at = at
        if self.level + self.every > self.room:
            return False
        self.level += self.every
        return True


@given(
    limit=st.integers(1, 50),
    period=st.integers(1_000, 100_000),
    burst=st.integers(0, 20),
    gaps=st.lists(st.integers(0, 30_000), max_size=200),
)
@settings(max_examples=200, deadline=None)
def test_admissions_equal_those_of_a_leaking_bucket(limit: int, period: int, burst: int, gaps: list[int]) -> None:
    pace = pace_of(limit, period * MICRO, burst)
    bucket = Bucket(pace.every // MICRO, burst)
    tat, at = None, 0
    for gap in gaps:
        at += gap
        answer = arrive(pace, tat, START + at * MICRO)
        assert answer.is_admitted == bucket.arrive(at)
        tat = answer.tat


@given(limit=st.integers(1, 40), period_ms=st.integers(1, 5_000), burst=st.integers(0, 10), count=st.integers(1, 150))
@settings(max_examples=100, deadline=None)
def test_no_window_of_one_period_holds_more_than_limit_and_burst(
    limit: int, period_ms: int, burst: int, count: int
) -> None:
    period = timedelta(milliseconds=period_ms)
    pace = pace_of(limit, period, burst)
    tat, now, admitted = None, START, []
    for _ in range(count):
        answer = arrive(pace, tat, now)
        if not answer.is_admitted:
            now = answer.at  # come back as early as one is told to
            answer = arrive(pace, tat, now)
        assert answer.is_admitted
        tat = answer.tat
        admitted.append(now)
    for first in admitted:
        assert sum(first <= at < first + period for at in admitted) <= limit + burst


def test_a_refused_arrival_is_told_the_first_moment_that_works() -> None:
    pace = Pace(timedelta(seconds=10), 0)
    tat = arrive(pace, None, START).tat
    refused = arrive(pace, tat, START + timedelta(seconds=3))
    assert not refused.is_admitted
    assert refused.at == START + timedelta(seconds=10)
    assert not arrive(pace, tat, refused.at - MICRO).is_admitted
    assert arrive(pace, tat, refused.at).is_admitted


def test_a_throttle_admits_its_burst_and_one_at_once() -> None:
    pace = throttle.pace(Throttle(60, timedelta(minutes=1), burst=2))
    tat, admitted = None, 0
    for _ in range(10):
        answer = arrive(pace, tat, START)
        tat, admitted = answer.tat, admitted + answer.is_admitted
    assert admitted == 3
    assert pace.every == timedelta(seconds=1)


def test_a_rate_limit_admits_a_tenth_and_one_at_once() -> None:
    pace = rate_limit.pace(RateLimit(20, timedelta(seconds=20)))
    tat, admitted = None, 0
    for _ in range(10):
        answer = arrive(pace, tat, START)
        tat, admitted = answer.tat, admitted + answer.is_admitted
    assert admitted == 3
