"""How much is used, by day, environment and month: `/billing/usage`. There for everybody, on one's own machine too."""

from collections import defaultdict
from datetime import date, timedelta
from typing import Any

from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response import Template

from app.billing import plans
from app.billing.plans import Period
from app.billing.usage import Day, counted_until, days_of, months_of
from app.store.db import tenant
from app.web.guards import Principal
from app.web.pages.billing.desk import around, page
from app.web.site import Site

AnyRequest = Request[Any, Any, State]
Who = NamedDependency[Principal]
Here = NamedDependency[Site]
#: Days before the period that make the pace of its first days known.
_BEFORE = timedelta(days=7)
#: A limit is drawn when it is at most so many times what the bars need; else it is only said.
_IN_SIGHT = 3


@get("/usage", name="billing_usage", include_in_schema=False)
async def show_usage(request: AnyRequest, principal: Who, site: Here) -> Template:
    """The period day by day with its forecast and limit, who used how much of it, and the months before."""
    async with tenant(site.pages, principal.account_id, principal.user_id) as conn:
        context = await around(conn, request, principal, site, "usage")
        period: Period = context["here"].period
        days = await days_of(conn, principal.account_id, period.first - _BEFORE, period.until)
        months = await months_of(conn, principal.account_id)
        until = await counted_until(conn)
    today = context["now"].date()
    used: dict[date, int] = defaultdict(int)
    for one in days:
        used[one.day] += one.executions
    limit = context["here"].limits.executions
    expected = plans.forecast(used, period, today)
    names = {e.id: e.name for e in context["environments"]}
    context |= {
        "chart": chart(used, period, today, limit, expected),
        "expected": expected,
        "limit": limit,
        "reached_on": plans.day_reached(used, period, today, limit) if limit else None,
        "shares": shares([d for d in days if d.day >= period.first], names),
        "months": months,
        "period": period,
        "today": today,
        "counted_until": until,
    }
    return page("usage", context)


def chart(used: dict[date, int], period: Period, today: date, limit: int | None, expected: int) -> dict[str, Any]:
    """The period as bars of what is used in all by the end of each day; days to come as the forecast has them.

    Places and sizes are percent of the drawing. `limit_y` is None when there is no limit, or it is too far away to draw.
    """
    top: float = max(expected, 1)
    is_drawn = limit is not None and limit <= top * _IN_SIGHT
    top = max(top, limit if is_drawn and limit else 0) * 1.08
    each = 100 / period.days
    total, bars = 0.0, []
    done = sum(number for day, number in used.items() if period.first <= day <= today)
    pace = (expected - done) / max(1, (period.until - today).days)
    for n in range(period.days):
        day = period.first + timedelta(days=n)
        before = total
        # What today will still bring is part of the forecast.
        total += used.get(day, 0) if day <= today else pace
        bars.append(
            {
                "day": day,
                "x": round(each * n, 3),
                "width": round(each * 0.78, 3),
                "total": round(total),
                "new": used.get(day, 0),
                "old_h": round(100 * before / top, 2) if day <= today else 0.0,
                "h": round(100 * total / top, 2),
                "is_ahead": day > today,
                "is_over": limit is not None and total > limit,
            }
        )
    y = round(100 - 100 * limit / top, 2) if is_drawn and limit else None
    ticks = [period.first + timedelta(days=round(n * (period.days - 1) / 6)) for n in range(7)]
    return {"bars": bars, "limit_y": y, "is_far": limit is not None and not is_drawn, "ticks": ticks}


def shares(days: list[Day], names: dict[Any, str]) -> list[dict[str, Any]]:
    """Each environment's part of the period, the largest first; `share` is 0 to 1 of all executions."""
    sums: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in days:
        for n, number in enumerate((one.runs, one.steps, one.events)):
            sums[one.environment_id][n] += number
    whole = sum(runs + steps for runs, steps, _ in sums.values())
    rows = [
        {
            "name": names.get(environment_id, "An environment that is gone"),
            "runs": runs,
            "steps": steps,
            "events": events,
            "executions": runs + steps,
            "share": (runs + steps) / whole if whole else 0.0,
        }
        for environment_id, (runs, steps, events) in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row["executions"], row["name"]))


HANDLERS = (show_usage,)
