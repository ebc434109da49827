"""Schedules, against a second implementation that walks the clock minute by minute and knows nothing of the first."""

import json
import os
from datetime import UTC, datetime, timedelta
from itertools import islice, product, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.domain.cron import CronRefused, jitter_of, read_cron

MINUTE = timedelta(minutes=1)
VECTORS = Path(__file__).parents[2] / "vectors" / "durations-cron.json"
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "America/Santiago",
    "Pacific/Chatham",
    "Europe/London",
    "Pacific/Apia",
]
EXPRESSIONS = [
    "* * * * *",
    "*/5 * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 * * * *",
    "15,45 8-10 * * *",
    "30 2 * * *",
    "0 2 * * *",
    "*/15 2 * * *",
    "59 23 * * *",
    "0 0 * * *",
    "30 1 * * *",
    "15 0 * * *",
    "0 */2 * * *",
    "0 */3 * * SUN",
    "0 9 * * 1",
    "0 9 * * MON-FRI",
    "0 0 1 * *",
    "0 0 31 * *",
    "0 0 29 2 *",
    "0 0 13 * 5",
    "0 0 13 * */2",
    "0 12 */10 * 1",
    "0 12 ? * 1",
    "5 4 1,15 JAN,jul *",
    "0 6 * 3-11/2 6,0",
    "10-20/3 1-3 * * *",
    "5/20 3 * * *",
    "0 3 * * 7",
    "0 0 1 1 ?",
]
IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"


def fields_of(text: str) -> list[tuple[set[int], bool, bool]]:
    """Values, "open" and "begins with a star" of each field, read in the plainest way."""
    names = {n: str(i) for i, n in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
    months = {
        n: str(i)
        for i, n in enumerate(["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1)
    }
    out = []
    for place, (field, low, high) in enumerate(
        zip(text.upper().split(), (0, 0, 1, 1, 0), (59, 23, 31, 12, 6), strict=True)
    ):
        for name, number in ((names if place == 4 else months) if place > 2 else {}).items():
            field = field.replace(name, number)  # noqa: PLW2901 - the same field, spelled out
        values: set[int] = set()
        is_open = False
        for part in field.split(","):
            body, _, step = part.partition("/")
            if body in "*?":
                values |= {v for v in range(low, high + 1) if (v - low) % int(step or 1) == 0}
                is_open |= int(step or 1) == 1
            elif "-" in body:
                first, last = map(int, body.split("-"))
                values |= {v for v in range(first, last + 1) if (v - first) % int(step or 1) == 0}
            else:
                last = high if step else int(body)
                values |= {v for v in range(int(body), last + 1) if (v - int(body)) % int(step or 1) == 0}
        out.append((({v % 7 for v in values} if place == 4 else values), is_open, field[0] in "*?"))
    return out


class Walk:
    """What the wall clock of a zone shows each minute of a window, what it skips, and what it shows again; by hour and minute."""

    def __init__(self, zone: ZoneInfo, start: datetime, end: datetime) -> None:
        self.shown: dict[tuple[int, int], list[tuple[datetime, datetime, bool]]] = {}
        self.skipped: dict[tuple[int, int], list[tuple[datetime, datetime]]] = {}
        shown = latest = start.astimezone(zone).replace(tzinfo=None)
        at = start
        while at < end:
            at += MINUTE
            before, shown = shown, at.astimezone(zone).replace(tzinfo=None)
            wall = before + MINUTE
            while wall < shown:
                self.skipped.setdefault((wall.hour, wall.minute), []).append((at, wall))
                wall += MINUTE
            self.shown.setdefault((shown.hour, shown.minute), []).append((at, shown, shown > latest))
            latest = max(latest, shown)


def oracle(text: str, walk: Walk) -> list[datetime]:
    """F27 by looking through the walk."""
    (minutes, _, _), (hours, _, is_hourly), (days, any_day, _), (months, _, _), (weekdays, any_weekday, _) = fields_of(
        text
    )

    def matches(wall: datetime) -> bool:
        if wall.month not in months:
            return False
        by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        return by_day and by_weekday if any_day or any_weekday else by_day or by_weekday

    found: set[datetime] = set()
    for time in product(hours, minutes):
        found |= {at for at, wall, is_new in walk.shown.get(time, ()) if (is_hourly or is_new) and matches(wall)}
        if not is_hourly:
            found |= {at for at, wall in walk.skipped.get(time, ()) if matches(wall)}
    return sorted(found)


def windows() -> list[tuple[datetime, datetime]]:
    if IS_FULL:
        return [(datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))]
    # Around the changes of most zones, and a leap day.
    spans = [(2024, 2, 27, 4), (2026, 3, 7, 3), (2026, 3, 28, 3), (2026, 10, 24, 3)]
    return [(datetime(y, m, d, tzinfo=UTC), datetime(y, m, d, tzinfo=UTC) + timedelta(days=n)) for y, m, d, n in spans]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("zone", ZONES if IS_FULL else ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_due_times_equal_those_of_the_walking_oracle(zone: str) -> None:
    for start, end in windows():
        walk = Walk(ZoneInfo(zone), start, end)
        for text in EXPRESSIONS:
            due = read_cron(f"TZ={zone} {text}").due_times(start)
            assert list(takewhile(end.__ge__, due)) == oracle(text, walk), (zone, text)


def test_published_vectors_hold() -> None:
    for case in json.loads(VECTORS.read_text(encoding="utf-8"))["cron_next"]:
        at = datetime.fromisoformat(case["from"])
        due = [
            d.isoformat().replace("+00:00", "Z")
            for d in islice(read_cron(case["expr"]).due_times(at), len(case["next_utc"]))
        ]
        assert due == case["next_utc"], case["expr"]


def test_a_fixed_time_in_the_gap_runs_once_at_the_first_valid_instant() -> None:
    due = list(islice(read_cron("TZ=Europe/Berlin 30 2 * * *").due_times(datetime(2026, 3, 28, 12, tzinfo=UTC)), 2))
    assert due == [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC)]


def test_a_repeated_hour_runs_a_fixed_time_once_and_an_interval_every_time() -> None:
    before = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    fixed = read_cron("TZ=Europe/Berlin 30 2 * * *").next_after(before)
    assert fixed == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert read_cron("TZ=Europe/Berlin 30 2 * * *").next_after(fixed) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    every = list(islice(read_cron("TZ=Europe/Berlin */30 * * * *").due_times(before), 4))
    assert [d - before for d in every] == [timedelta(minutes=30 * n) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@Weekly", "0 0 * * 0"), ("@yearly", "0 0 1 1 *")],
)
def test_descriptors_stand_for_five_fields(text: str, meaning: str) -> None:
    at = datetime(2026, 5, 5, 5, 5, tzinfo=UTC)
    assert read_cron(f"CRON_TZ=Asia/Tokyo {text}").next_after(at) == read_cron(f"TZ=Asia/Tokyo {meaning}").next_after(
        at
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("* * * * * *", "Seconds are not supported"),
        ("* * * *", "this one has 4"),
        ("0 0 L * *", "not supported"),
        ("0 0 * * 5L", "not supported"),
        ("0 0 * * MON#2", "not supported"),
        ("61 * * * *", "not within"),
        ("*/0 * * * *", "a step is 1 or more"),
        ("30-10 * * * *", "ends before it begins"),
        ("TZ=Mars/Olympus 0 0 * * *", "time zone"),
        ("TZ=../../etc/passwd 0 0 * * *", "time zone"),
        ("@every 5m", "not a descriptor"),
        ("0 0 30 2 *", "never comes due"),
        ("", "five fields"),
        ("a b c d e", "not understood"),
    ],
)
def test_what_is_no_schedule_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(CronRefused, match=said):
        read_cron(text)


def test_jitter_lies_between_a_second_and_its_bound_and_never_changes() -> None:
    bound = timedelta(seconds=30)
    found = [jitter_of(str(n).encode(), bound) for n in range(500)]
    assert found == [jitter_of(str(n).encode(), bound) for n in range(500)]
    assert min(found) >= timedelta(seconds=1) and max(found) < bound
    assert len(set(found)) > 490
    assert jitter_of(b"x", timedelta()) == timedelta()
