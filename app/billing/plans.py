"""The rules of billing, without a database, a clock or Stripe: periods, forecasts, allowances, failed payments.

Amounts are minor units of a currency (cents), as Stripe has them. Days are days in UTC.
"""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Final

from app.domain.limits import PLANS, PlanLimits

#: What a new organization of the hosted service has, and what it falls back to.
FREE: Final = "free"
#: Plans people can choose on the pages, from the smallest; one of these is sold where a price for it is set.
CHOICES: Final = ("free", "pro", "business")
#: Days whose mean is the pace of a forecast.
_PACE_DAYS: Final = 7
#: Currencies that have no smaller unit.
_WHOLE: Final = frozenset({"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"})  # fmt: skip
_SIGNS: Final = {"eur": "€", "usd": "$", "gbp": "£", "jpy": "¥"}


class Stage(StrEnum):
    """How far it has come with a payment that failed."""

    FINE = "fine"
    PAYMENT_FAILED = "payment_failed"
    PAST_DUE = "past_due"
    FINAL_NOTICE = "final_notice"
    DOWNGRADE_PENDING = "downgrade_pending"
    DOWNGRADED = "downgraded"


#: Since the payment failed, the last first.
_STAGES: Final = (
    (timedelta(days=14), Stage.DOWNGRADED),
    (timedelta(days=12), Stage.DOWNGRADE_PENDING),
    (timedelta(days=7), Stage.FINAL_NOTICE),
    (timedelta(days=3), Stage.PAST_DUE),
    (timedelta(0), Stage.PAYMENT_FAILED),
)
GRACE: Final = _STAGES[0][0]
"""How long a plan is kept though its payment failed."""
#: What Stripe says of subscriptions that give their plan; those that do while the grace lasts; the rest gives nothing.
_GOOD: Final = frozenset({"active", "trialing"})
OWING: Final = frozenset({"past_due", "unpaid"})
#: Subscriptions that are there to be changed, rather than over.
LIVING: Final = _GOOD | OWING


@dataclass(frozen=True, slots=True)
class Period:
    """The days of [first, until) over which an allowance counts."""

    first: date
    until: date

    @property
    def days(self) -> int:
        """How many there are."""
        return (self.until - self.first).days


@dataclass(frozen=True, slots=True)
class Price:
    """What a plan costs a month, and each execution beyond the `included` ones (None: those of the plan's limits)."""

    plan: str
    currency: str
    amount: int
    each: Decimal = Decimal(0)
    included: int | None = None


def period_of(today: date, began: date | None) -> Period:
    """The month around `today`: from the day of the month a subscription `began` on, else the calendar's.

    A subscription of the 31st begins its shorter months on their last day, as Stripe has it.
    """
    anchor = began.day if began is not None else 1
    first = _on(today.year, today.month, anchor)
    if first > today:
        first = _on(*_month_before(today.year, today.month), anchor)
    after = first.replace(day=28) + timedelta(days=4)
    return Period(first, _on(after.year, after.month, anchor))


def forecast(used: Mapping[date, int], period: Period, today: date) -> int:
    """What a period will have used at its end, at the pace of the last seven whole days.

    `used` is by day and may begin before the period, which makes the pace of its first days better. Without a whole day
    to go by, today's figure is the pace.
    """
    begun = [day for day in used if day < today]
    since = max(min(begun), today - timedelta(days=_PACE_DAYS)) if begun else today
    whole = (today - since).days
    pace = sum(used.get(since + timedelta(days=n), 0) for n in range(whole)) / whole if whole else used.get(today, 0)
    done = sum(number for day, number in used.items() if period.first <= day < today)
    left = (period.until - today).days - 1
    return round(done + max(used.get(today, 0), pace) + pace * max(0, left))


def day_reached(used: Mapping[date, int], period: Period, today: date, limit: int) -> date | None:
    """The day on which the forecast passes a limit; None when it does not within the period."""
    total = sum(number for day, number in used.items() if period.first <= day <= today)
    if total >= limit:
        running = 0
        for day in sorted(used):
            running += used[day] if period.first <= day <= today else 0
            if running >= limit:
                return day
    pace = (forecast(used, period, today) - total) / max(1, (period.until - today).days)
    for n in range(1, (period.until - today).days):
        if total + pace * n >= limit:
            return today + timedelta(days=n)
    return None


def beyond(executions: int, plan: PlanLimits, price: Price | None) -> int | None:
    """What the executions beyond the allowance cost so far, rounded up; None where nothing is charged for them."""
    if price is None or plan.stops_at_allowance or price.each <= 0:
        return None
    included = price.included if price.included is not None else plan.executions or 0
    return int((max(0, executions - included) * price.each).to_integral_value(ROUND_CEILING))


def stop_reason(plan: PlanLimits, executions: int, events: int, cost: int | None, cap: int | None) -> str | None:
    """Why an account may start no new runs: `allowance`, `spend_cap`, or None when it may."""
    if plan.stops_at_allowance:
        for used, limit in ((executions, plan.executions), (events, plan.events)):
            if limit is not None and used >= limit:
                return "allowance"
    return "spend_cap" if cap is not None and cost is not None and cost >= cap > 0 else None


def reached(used: int, limit: int | None) -> int:
    """Which of the marks 80 and 100 (percent) is reached; 0 for neither, or without a limit."""
    if not limit:
        return 0
    return 100 if used >= limit else 80 if used * 100 >= limit * 80 else 0


def stage_at(failed_since: datetime | None, now: datetime) -> Stage:
    """The stage of a payment that failed so long ago."""
    if failed_since is None:
        return Stage.FINE
    return next((stage for after, stage in _STAGES if now - failed_since >= after), Stage.PAYMENT_FAILED)


def plan_given(status: str, subscribed: str | None, by_hand: str | None, stage: Stage) -> str:
    """The plan an account has: what an operator gave, else what is paid for or within its grace, else free."""
    if by_hand in PLANS:
        return str(by_hand)
    is_kept = status in _GOOD or (status in OWING and stage is not Stage.DOWNGRADED)
    return subscribed if is_kept and subscribed in PLANS and subscribed is not None else FREE


def is_upgrade(present: str, wanted: str) -> bool:
    """Whether a plan is larger than the present one."""
    return wanted in CHOICES and (present not in CHOICES or CHOICES.index(wanted) > CHOICES.index(present))


def money(minor: int, currency: str) -> str:
    """An amount for people: `€29.00`, `¥500`, `29.00 CHF`."""
    code = currency.lower()
    number = f"{minor:,}" if code in _WHOLE else f"{Decimal(minor) / 100:,.2f}"
    return f"{_SIGNS[code]}{number}" if code in _SIGNS else f"{number} {currency.upper()}"


def minor_units(text: str, currency: str) -> int | None:
    """An amount typed by somebody, in whole currency or with its decimals; None when it is none, or above a billion."""
    text = text.strip().replace(",", "")
    whole, _, part = text.partition(".")
    if (
        not text.isascii()
        or not whole.isdecimal()
        or len(whole) > 9
        or len(part) > 2
        or (part and not part.isdecimal())
    ):
        return None
    if currency.lower() in _WHOLE:
        return int(whole) if not part.strip("0") else None
    return int(whole) * 100 + int(part.ljust(2, "0") or 0)


def _on(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))


def _month_before(year: int, month: int) -> tuple[int, int]:
    return (year - 1, 12) if month == 1 else (year, month - 1)
