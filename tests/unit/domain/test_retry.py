"""Delays before retries (protocol 14.2, 14.3)."""

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.ids import RunId
from app.domain.retry import BACKOFF, delay
from app.domain.run.state import RetryPolicy

RUN = RunId(UUID(int=7))


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(1, 15), (2, 30), (3, 60), (4, 120), (5, 300), (6, 600), (7, 1200), (8, 2400), (9, 3600), (10, 7200), (20, 7200)],
)
def test_a_delay_is_the_table_plus_at_most_half_a_minute(attempt: int, seconds: int) -> None:
    after = delay(RetryPolicy(), RUN, "start", attempt)
    assert timedelta(seconds=seconds) <= after <= timedelta(seconds=seconds + 30)


def test_the_same_attempt_always_waits_as_long_and_neighbours_do_not() -> None:
    first = delay(RetryPolicy(), RUN, "start", 1)
    assert first == delay(RetryPolicy(), RUN, "start", 1)
    others = {delay(RetryPolicy(), RunId(UUID(int=n)), "start", 1) for n in range(100)}
    assert len(others) > 90


def test_the_spread_covers_the_half_minute() -> None:
    spread = [delay(RetryPolicy(), RunId(UUID(int=n)), "start", 1) - BACKOFF[0] for n in range(300)]
    assert min(spread) < timedelta(seconds=2)
    assert max(spread) > timedelta(seconds=28)


def test_a_fixed_delay_replaces_the_table_without_spread() -> None:
    assert delay(RetryPolicy(fixed_delay=timedelta(milliseconds=5)), RUN, "start", 3) == timedelta(milliseconds=5)


@given(asked=st.timedeltas())
def test_what_the_app_asks_for_wins_between_a_second_and_a_day(asked: timedelta) -> None:
    after = delay(RetryPolicy(fixed_delay=timedelta(milliseconds=5)), RUN, "start", 1, asked)
    assert timedelta(seconds=1) <= after <= timedelta(hours=24)
    if timedelta(seconds=1) <= asked <= timedelta(hours=24):
        assert after == asked
