"""The drawing of a period: bars grow to what is used in all, the forecast follows, the limit is drawn while it is in sight."""

from datetime import date
from uuid import UUID

from app.billing.plans import Period
from app.billing.usage import Day
from app.domain.ids import EnvironmentId
from app.web.pages.billing.usage import chart, shares

NOVEMBER = Period(date(2026, 11, 1), date(2026, 12, 1))
TODAY = date(2026, 11, 10)
USED = {date(2026, 11, d): 100 for d in range(1, 11)}


def test_every_day_has_a_bar_that_ends_where_the_next_begins() -> None:
    drawn = chart(USED, NOVEMBER, TODAY, 2500, 3000)
    bars = drawn["bars"]
    assert [b["day"].day for b in bars] == list(range(1, 31))
    assert [b["total"] for b in bars[:3]] == [100, 200, 300]
    assert [b["is_ahead"] for b in bars].count(True) == 20
    assert bars[-1]["total"] <= 3000 <= bars[-1]["total"] + 100
    assert all(0 <= b["old_h"] <= b["h"] <= 100 for b in bars if not b["is_ahead"])
    assert all(b["x"] + b["width"] <= 100 for b in bars)
    assert next(b["day"] for b in bars if b["is_over"]) > TODAY


def test_a_limit_is_drawn_at_its_height_and_one_that_is_far_away_is_only_said() -> None:
    near = chart(USED, NOVEMBER, TODAY, 6000, 3000)
    assert near["limit_y"] is not None and 0 < near["limit_y"] < 15 and not near["is_far"]
    far = chart(USED, NOVEMBER, TODAY, 1_000_000, 3000)
    assert far["limit_y"] is None and far["is_far"]
    none = chart(USED, NOVEMBER, TODAY, None, 3000)
    assert none["limit_y"] is None and not none["is_far"]


def test_nothing_used_is_drawn_as_nothing() -> None:
    drawn = chart({}, NOVEMBER, TODAY, 50_000, 0)
    assert {b["h"] for b in drawn["bars"]} == {0.0}


def test_shares_are_of_the_whole_and_the_largest_is_first() -> None:
    one, two = EnvironmentId(UUID(int=1)), EnvironmentId(UUID(int=2))
    days = [Day(one, TODAY, 10, 15, 4), Day(two, TODAY, 25, 40, 0), Day(one, TODAY, 5, 5, 1)]
    rows = shares(days, {two: "Production"})
    assert [(r["name"], r["executions"], r["runs"], r["steps"], r["events"]) for r in rows] == [
        ("Production", 65, 25, 40, 0),
        ("An environment that is gone", 35, 15, 20, 5),
    ]
    assert sum(r["share"] for r in rows) == 1.0
    assert shares([], {}) == []
