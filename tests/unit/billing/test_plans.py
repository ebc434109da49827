"""The rules of billing: months, forecasts, allowances, amounts, and what follows from a payment that failed."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.billing.plans import (
    GRACE,
    Period,
    Price,
    Stage,
    beyond,
    day_reached,
    forecast,
    is_upgrade,
    minor_units,
    money,
    period_of,
    plan_given,
    reached,
    stage_at,
    stop_reason,
)
from app.domain.limits import PLANS

NOVEMBER = Period(date(2026, 11, 1), date(2026, 12, 1))
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("today", "began", "first", "until"),
    [
        (date(2026, 11, 23), None, date(2026, 11, 1), date(2026, 12, 1)),
        (date(2026, 11, 23), date(2026, 3, 10), date(2026, 11, 10), date(2026, 12, 10)),
        (date(2026, 11, 9), date(2026, 3, 10), date(2026, 10, 10), date(2026, 11, 10)),
        (date(2027, 2, 28), date(2026, 10, 31), date(2027, 2, 28), date(2027, 3, 31)),
        (date(2027, 2, 27), date(2026, 10, 31), date(2027, 1, 31), date(2027, 2, 28)),
        (date(2027, 1, 5), date(2026, 10, 31), date(2026, 12, 31), date(2027, 1, 31)),
    ],
)
def test_a_period_is_the_month_of_the_subscription_or_of_the_calendar(
    today: date, began: date | None, first: date, until: date
) -> None:
    assert period_of(today, began) == Period(first, until)


@given(st.dates(date(2020, 1, 1), date(2030, 12, 31)), st.none() | st.dates(date(2020, 1, 1), date(2030, 12, 31)))
def test_periods_follow_each_other_without_gap_or_overlap(today: date, began: date | None) -> None:
    period = period_of(today, began)
    assert period.first <= today < period.until
    assert 28 <= period.days <= 31
    assert period_of(period.until, began).first == period.until
    assert period_of(period.first - timedelta(days=1), began).until == period.first


def test_a_forecast_goes_on_at_the_pace_of_the_last_week() -> None:
    used = {date(2026, 11, d): 100 for d in range(1, 23)}
    # 22 days of 100, today already 40 of what will be 100, seven days to come.
    assert forecast(used | {date(2026, 11, 23): 40}, NOVEMBER, date(2026, 11, 23)) == 3000
    assert forecast(used | {date(2026, 11, 23): 500}, NOVEMBER, date(2026, 11, 23)) == 3400


def test_a_forecast_on_the_first_day_uses_the_days_before_the_period() -> None:
    used = {date(2026, 10, d): 10 for d in range(25, 32)}
    assert forecast(used, NOVEMBER, date(2026, 11, 1)) == 300
    assert forecast({}, NOVEMBER, date(2026, 11, 1)) == 0
    assert forecast({date(2026, 11, 1): 7}, NOVEMBER, date(2026, 11, 1)) == 210


@given(st.dictionaries(st.dates(date(2026, 10, 20), date(2026, 11, 23)), st.integers(0, 10**9), max_size=30))
def test_a_forecast_is_never_below_what_is_used(used: dict[date, int]) -> None:
    today = date(2026, 11, 23)
    assert forecast(used, NOVEMBER, today) >= sum(n for d, n in used.items() if NOVEMBER.first <= d <= today) - 1


def test_the_day_a_limit_is_passed_is_said_while_it_lies_within_the_period() -> None:
    used = {date(2026, 11, d): 100 for d in range(1, 24)}
    assert day_reached(used, NOVEMBER, date(2026, 11, 23), 2000) == date(2026, 11, 20)
    assert day_reached(used, NOVEMBER, date(2026, 11, 23), 100_000) is None
    soon = day_reached(used, NOVEMBER, date(2026, 11, 23), 2500)
    assert soon is not None and date(2026, 11, 23) < soon < NOVEMBER.until


def test_only_what_is_beyond_the_allowance_costs_and_a_started_cent_is_a_cent() -> None:
    price = Price("pro", "eur", 2900, Decimal("0.005"), 1_000_000)
    assert beyond(999_999, PLANS["pro"], price) == 0
    assert beyond(1_000_001, PLANS["pro"], price) == 1
    assert beyond(1_200_000, PLANS["pro"], price) == 1000
    assert beyond(10**9, PLANS["free"], price) is None
    assert beyond(10**9, PLANS["pro"], None) is None


def test_a_free_account_stops_at_its_allowance_and_a_paying_one_at_its_cap() -> None:
    free, pro = PLANS["free"], PLANS["pro"]
    assert stop_reason(free, 49_999, 0, None, None) is None
    assert stop_reason(free, 50_000, 0, None, None) == "allowance"
    assert stop_reason(free, 0, 500_000, None, None) == "allowance"
    assert stop_reason(pro, 10**9, 10**9, 5_000, None) is None
    assert stop_reason(pro, 10**9, 10**9, 4_999, 5_000) is None
    assert stop_reason(pro, 10**9, 10**9, 5_000, 5_000) == "spend_cap"
    assert stop_reason(PLANS["self_hosted"], 10**12, 10**12, None, None) is None


def test_the_marks_are_80_and_100_percent() -> None:
    assert [reached(n, 1000) for n in (0, 799, 800, 999, 1000, 5000)] == [0, 0, 80, 80, 100, 100]
    assert reached(10**9, None) == 0


@pytest.mark.parametrize(
    ("days", "stage"),
    [
        (0, Stage.PAYMENT_FAILED),
        (3, Stage.PAST_DUE),
        (7, Stage.FINAL_NOTICE),
        (12, Stage.DOWNGRADE_PENDING),
        (14, Stage.DOWNGRADED),
        (400, Stage.DOWNGRADED),
    ],
)
def test_a_failed_payment_goes_through_its_stages_by_time(days: int, stage: Stage) -> None:
    assert stage_at(NOW - timedelta(days=days), NOW) is stage
    assert stage_at(NOW + timedelta(seconds=5), NOW) is Stage.PAYMENT_FAILED
    assert stage_at(None, NOW) is Stage.FINE


def test_a_plan_is_kept_through_the_grace_and_lost_after_it() -> None:
    assert plan_given("active", "pro", None, Stage.FINE) == "pro"
    assert plan_given("past_due", "pro", None, stage_at(NOW - GRACE + timedelta(hours=1), NOW)) == "pro"
    assert plan_given("past_due", "pro", None, stage_at(NOW - GRACE, NOW)) == "free"
    for status in ("none", "canceled", "incomplete", "incomplete_expired", "paused", "something new"):
        assert plan_given(status, "pro", None, Stage.FINE) == "free"
    assert plan_given("active", "no such plan", None, Stage.FINE) == "free"


def test_what_an_operator_gave_goes_before_what_is_paid_for() -> None:
    assert plan_given("canceled", "pro", "business", Stage.DOWNGRADED) == "business"
    assert plan_given("active", "pro", "no such plan", Stage.FINE) == "pro"


def test_amounts_are_read_and_written_in_the_units_of_their_currency() -> None:
    assert [money(2900, c) for c in ("eur", "USD", "chf", "jpy")] == ["€29.00", "$29.00", "29.00 CHF", "¥2,900"]
    assert [minor_units(t, "eur") for t in ("29", "29.5", "1,000.00", " 0 ")] == [2900, 2950, 100_000, 0]
    assert [minor_units(t, "eur") for t in ("", "-1", "1e3", "1.234", "x", "٣", "9" * 10, "1.٣")] == [None] * 8
    assert (minor_units("500", "jpy"), minor_units("500.5", "jpy")) == (500, None)


def test_larger_plans_are_upgrades() -> None:
    assert is_upgrade("free", "pro") and is_upgrade("pro", "business")
    assert not is_upgrade("business", "pro") and not is_upgrade("pro", "self_hosted")
