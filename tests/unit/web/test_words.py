"""Numbers and hostile text as people read them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web import words

NOW = datetime(2026, 11, 23, 14, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"), (440, "440 ms"), (999.6, "1.00 s"), (2400, "2.40 s"), (12_400, "12.4 s"), (59_960, "1 min 0 s"),
        (514_000, "8 min 34 s"), (11_520_000, "3 h 12 min"), (100_000_000, "1 d 3 h"), (None, ""),
    ],
)  # fmt: skip
def test_lengths_read_as_people_say_them(ms: Any, text: Any) -> None:
    assert words.duration(ms) == text


@pytest.mark.parametrize(
    ("back", "text"),
    [
        (timedelta(seconds=1), "just now"), (timedelta(seconds=41), "41 s ago"), (timedelta(minutes=9), "9 min ago"),
        (timedelta(hours=5), "5 h ago"), (timedelta(days=2), "21 Nov"), (timedelta(days=400), "19 Oct 2025"),
    ],
)  # fmt: skip
def test_times_are_relative_for_a_day(back: Any, text: Any) -> None:
    assert words.ago(NOW - back, NOW) == text


def test_a_moment_on_another_day_has_its_date() -> None:
    assert words.moment(NOW + timedelta(hours=1), NOW) == "15:31:00"
    assert words.moment(NOW + timedelta(days=1), NOW) == "24 Nov, 14:31"


@pytest.mark.parametrize(("number", "text"), [(12_408, "12,408"), (612_345, "612k"), (4_200_000, "4.2M")])
def test_counts_are_full_until_they_are_long(number: Any, text: Any) -> None:
    assert words.count(number) == text


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0"), (2000, "2 s"), (350, "350 ms"), (502_000, "8:22"), (11_520_000, "3:12:00")]
)
def test_axis_labels_are_short(ms: Any, text: Any) -> None:
    assert words.axis_time(ms) == text


def test_hidden_characters_are_shown_as_code_points() -> None:
    assert words.visible("a\u202eb\x00c\x1b\ud800") == "a[U+202E]b[U+0000]c[U+001B][U+D800]"
    assert words.visible("Zoë 漢字 ✓\n\t") == "Zoë 漢字 ✓\n\t"


@given(st.text(alphabet=st.characters(), max_size=500))
def test_whatever_a_tenant_names_things_it_can_be_sent(text: Any) -> None:
    words.short(text).encode()
    assert len(words.visible(text, 50)) <= 51 * len("[U+10FFFF]")
