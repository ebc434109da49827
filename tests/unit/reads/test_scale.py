"""The time axis: everything stays in order, folds take their share, ticks are round and apart."""

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.reads.scale import FOLD_SHARE, Scale, fold_idle, length, live_end, union, without

spans = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(0, 10**6)).map(lambda t: (float(t[0]), float(t[0] + t[1]))),
    min_size=0,
    max_size=12,
)


@given(spans, st.lists(st.integers(0, 12 * 10**8), min_size=2, max_size=20))
@settings(max_examples=150)
def test_later_is_never_further_left_and_never_outside(busy: Any, instants: Any) -> None:
    end = max([1.0, *(b for _, b in busy)])
    scale = fold_idle(busy, end)
    places = [scale.x(at) for at in sorted(instants)]
    assert all(b >= a - 1e-3 for a, b in pairwise(places))
    assert all(0 <= place <= 100 for place in places)


@given(spans)
@settings(max_examples=150)
def test_the_end_of_the_run_is_the_right_edge(busy: Any) -> None:
    end = max([1.0, *(b for _, b in busy)])
    assert abs(fold_idle(busy, end).x(end) - 100) < 1e-3


def test_a_long_sleep_takes_a_fixed_share_and_shows_its_length() -> None:
    scale = fold_idle([(0, 100), (86_400_100, 86_400_200)], 86_400_200)
    (fold,) = scale.drawn_folds()
    assert fold.width == FOLD_SHARE
    assert abs(fold.ms - 86_400_000) < 86_400_000 * 0.11
    assert scale.x(100) - scale.x(0) > 40


def test_a_fold_that_is_still_open_shows_what_has_passed() -> None:
    (fold,) = fold_idle([(0, 100)], 600_000).drawn_folds(until_ms=300_000)
    assert 290_000 < fold.ms < 300_000


def test_short_pauses_are_not_folded() -> None:
    assert fold_idle([(0, 1000), (5900, 10_000)], 10_000).folds == ()


def test_a_run_without_any_call_has_a_plain_axis() -> None:
    assert fold_idle([], 60_000).folds == ()


def test_ticks_are_round_and_do_not_touch() -> None:
    ticks = Scale(514_360).ticks()
    assert [t.ms for t in ticks] == [0, 120_000, 240_000, 360_000, 480_000]
    assert all(b.x - a.x >= 6 for a, b in pairwise(ticks))


def test_the_axis_of_a_running_run_is_the_same_a_moment_later() -> None:
    assert live_end(10_300) == live_end(13_000)
    assert live_end(13_900) > 13_900


def test_rate_and_room_lead_to_the_next_change_of_speed() -> None:
    scale = Scale(10_000, ((2_000, 8_000),))
    rate, room = scale.rate_at(1_000)
    assert abs(scale.x(1_000) + room - scale.x(2_000)) < 1e-6
    assert abs(scale.x(1_500) - scale.x(1_000) - 500 * rate) < 1e-6


@given(spans, spans)
@settings(max_examples=100)
def test_what_is_taken_away_and_what_remains_add_up(whole: Any, taken: Any) -> None:
    cut = union(taken)
    rest = without(whole, cut)
    both = union([*rest, *(s for s in cut)])
    assert abs(length(both) - length(union([*whole, *taken]))) < 1e-3 * max(1, length(both))


@given(spans, st.integers(0, 10**8), st.integers(1, 10**8))
@settings(max_examples=100)
def test_a_part_of_a_run_fills_the_axis_and_its_key_says_all_of_it(busy: Any, start: int, span: int) -> None:
    scale = fold_idle(busy, float(start + span), float(start))
    assert scale.x(start - 1) == scale.x(start) == 0
    assert abs(scale.x(start + span) - 100) < 1e-3
    assert all(x <= x2 + 1e-6 and ms <= ms2 for (x, ms), (x2, ms2) in pairwise(scale.bends))
    again = Scale.of(scale.key)
    assert again is None or again.key == scale.key


def test_what_is_no_key_is_no_scale() -> None:
    for key in ("", "0", "0-x", "5-1", "0-10-2-12", "0-10-8-2", "0-0", "-1-5", "0-10-0-10", "0-1-" * 99):
        assert Scale.of(key) is None, key
