from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.durations import format_duration, parse_date, parse_duration, parse_when
from app.domain.errors import DurationRefused
from tests.unit.domain.vectors import load

_DURATIONS = load("durations-cron.json")


@pytest.mark.parametrize("vector", _DURATIONS["server_parse"], ids=lambda vector: vector["wire"])
def test_recorded_time_strings_are_read(vector: dict[str, object]) -> None:
    assert parse_duration(str(vector["wire"])) == timedelta(milliseconds=int(str(vector["ms"])))


@pytest.mark.parametrize("vector", _DURATIONS["python_to_wire"], ids=lambda vector: vector["wire"])
def test_time_strings_of_the_python_sdk_are_read(vector: dict[str, object]) -> None:
    assert parse_duration(str(vector["wire"])) == timedelta(seconds=float(str(vector["timedelta_seconds"])))


@pytest.mark.parametrize("vector", [v for v in _DURATIONS["js_to_wire"] if isinstance(v["input"], int)], ids=str)
def test_time_strings_of_the_typescript_sdk_mean_what_was_asked_to_the_second(vector: dict[str, object]) -> None:
    asked = timedelta(milliseconds=int(str(vector["input"])))
    assert timedelta() <= abs(parse_duration(str(vector["wire"])) - asked) < timedelta(seconds=1)


@pytest.mark.parametrize(
    "text", [*_DURATIONS["server_parse_invalid"], "1h30", "s", ".s", "-", "1 h", "1H", "٣s", "10s\n"]
)
def test_what_is_no_time_string_is_refused(text: str) -> None:
    with pytest.raises(DurationRefused) as refused:
        parse_duration(text)
    assert refused.value.code == "duration_invalid"


def test_days_and_weeks_are_no_go_units() -> None:
    assert parse_duration("1m30s", go_units=True) == timedelta(seconds=90)
    with pytest.raises(DurationRefused):
        parse_duration("1d", go_units=True)


def test_the_go_sdk_can_name_an_instant_in_nanoseconds() -> None:
    expected = timedelta(weeks=162, hours=21, minutes=56, seconds=58, milliseconds=362, microseconds=291)
    assert parse_duration("162w21h56m58s362ms291us574ns") == expected


def test_a_ridiculous_length_is_long_but_harmless() -> None:
    assert parse_duration("999999999999999999w") == timedelta(days=100_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2030-01-02T03:04:05.678Z", datetime(2030, 1, 2, 3, 4, 5, 678_000, UTC)),
        ("2026-11-23T02:03:34.123456789+02:00", datetime(2026, 11, 23, 0, 3, 34, 123_456, UTC)),
        ("2006-01-02T15:04:05", datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("Mon, 02 Jan 2006 15:04:05 GMT", datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC)),
        ("Mon, 02 Jan 2006 15:04:05 -0700", datetime(2006, 1, 2, 22, 4, 5, tzinfo=UTC)),
        ("02 Jan 06 15:04 UTC", datetime(2006, 1, 2, 15, 4, tzinfo=UTC)),
        ("Monday, 02-Jan-06 15:04:05 GMT", datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC)),
        ("Mon Jan  2 15:04:05 2006", datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC)),
        ("2026-02-30", None),
        ("9999-99-99T99:99:99Z", None),
        ("02 Xxx 06 15:04 UTC", None),
        ("tomorrow at noon", None),
    ],
)
def test_dates_of_every_accepted_form_are_read(text: str, expected: datetime | None) -> None:
    assert parse_date(text) == expected


def test_a_time_argument_may_be_a_length_or_an_instant() -> None:
    assert parse_when("2030-01-02T00:00:00Z") == datetime(2030, 1, 2, tzinfo=UTC)
    assert parse_when("2w6h56m7s") == timedelta(weeks=2, hours=6, minutes=56, seconds=7)
    assert parse_when("") == timedelta()


@given(st.integers(0, 10**9))
def test_a_written_time_string_reads_as_itself(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(DurationRefused):
        assert isinstance(parse_when(text), (timedelta, datetime))
