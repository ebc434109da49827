"""A worker holds as many items as it can serve while its own queues stay short."""

from app.engine.pace import MOST_OCTETS, Pace

QUICK_S, SLOW_S = 0.0005, 0.05


def test_a_worker_whose_loop_is_quick_holds_all_it_may() -> None:
    pace = Pace(256)
    for _ in range(100):
        pace.passed(QUICK_S, 256)
    assert pace.limit == 256


def test_a_worker_whose_loop_is_slow_holds_fewer_but_never_too_few_for_a_batch() -> None:
    pace = Pace(256)
    pace.passed(SLOW_S, 256)
    after_one = pace.limit
    assert after_one < 256
    for _ in range(200):
        pace.passed(SLOW_S, pace.limit)
    assert 0 < pace.limit < after_one
    assert pace.limit == 24


def test_the_number_falls_from_what_is_held_and_rises_only_while_it_is_what_holds_back() -> None:
    pace = Pace(256)
    pace.passed(SLOW_S, 40)
    assert pace.limit <= 40
    for _ in range(20):
        pace.passed(QUICK_S, 3)
    low = pace.limit
    for _ in range(50):
        pace.passed(QUICK_S, 3)
    assert pace.limit == low < 40
    for _ in range(50):
        pace.passed(QUICK_S, pace.limit)
    assert pace.limit == 256


def test_one_slow_pass_among_quick_ones_changes_nothing() -> None:
    pace = Pace(256)
    for _ in range(20):
        pace.passed(QUICK_S, 256)
    pace.passed(0.02, 256)
    assert pace.limit == 256


def test_a_worker_below_its_limit_says_that_it_may_rise() -> None:
    pace = Pace(256)
    assert not pace.is_rising
    pace.passed(SLOW_S, 256)
    assert not pace.is_rising
    for _ in range(20):
        pace.passed(QUICK_S, 1)
    assert pace.is_rising


def test_runs_with_much_state_are_held_in_smaller_numbers() -> None:
    pace = Pace(256)
    assert pace.room(0, 0) == 256
    assert pace.room(100, 100 * 1024) == 156
    # Of 32 MiB each, eight fit.
    assert pace.room(2, 2 * 32 * 1024 * 1024) == 6
    assert pace.room(8, MOST_OCTETS) == 0
    assert pace.room(9, MOST_OCTETS + 1) == 0
    assert pace.room(300, 0) == 0
