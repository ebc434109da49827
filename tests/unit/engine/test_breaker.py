"""An app that does not answer is left alone for a while, tried with one call, and then called with more and more."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.domain.ids import AppId
from app.engine.breaker import FIRST_PAUSE_S, OPENS_AFTER, RAMP_ENDS, Breaker, Permit

APP, OTHER = AppId(UUID(int=1)), AppId(UUID(int=2))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def made(**more: float) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(now=clock, chance=lambda: 0.0, **more), clock  # type: ignore[arg-type]


def opened(longest_s: float = 60.0) -> tuple[Breaker, Clock]:
    breaker, clock = made(longest_s=longest_s)
    for _ in range(OPENS_AFTER):
        call(breaker, is_answer=False)
    assert breaker.held_back == [APP]
    return breaker, clock


def call(breaker: Breaker, *, is_answer: bool) -> None:
    permit = breaker.ask(APP)
    assert permit.wait_s == 0
    breaker.heard(APP, permit, is_answer=is_answer)


def test_an_app_that_answers_is_never_held_back_nor_remembered() -> None:
    breaker, _ = made()
    for _ in range(100):
        call(breaker, is_answer=True)
    assert breaker._apps == {}


def test_failures_that_are_not_in_a_row_hold_nothing_back() -> None:
    breaker, _ = made()
    for _ in range(20):
        for _ in range(OPENS_AFTER - 1):
            call(breaker, is_answer=False)
        call(breaker, is_answer=True)
    assert breaker.held_back == []


def test_after_failures_in_a_row_calls_wait_while_those_of_other_apps_go_on() -> None:
    breaker, _ = opened()
    assert breaker.ask(APP) == Permit(wait_s=FIRST_PAUSE_S)
    assert breaker.ask(OTHER) == Permit()


def test_those_who_wait_are_spread_over_more_than_the_pause() -> None:
    chances = iter([0.0, 0.5, 0.999])
    breaker = Breaker(now=lambda: 0.0, chance=lambda: next(chances))
    for _ in range(OPENS_AFTER):
        call(breaker, is_answer=False)
    waits = [breaker.ask(APP).wait_s for _ in range(3)]
    assert waits == sorted(set(waits))
    assert waits[-1] - waits[0] > FIRST_PAUSE_S / 2


def test_after_the_pause_one_call_tries_the_app_and_the_others_wait() -> None:
    breaker, clock = opened()
    clock.seconds += FIRST_PAUSE_S
    trial = breaker.ask(APP)
    assert (trial.wait_s, trial.trial is not None) == (0, True)
    assert all(breaker.ask(APP).wait_s > 0 for _ in range(50))


def test_a_trial_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, clock = opened(longest_s=10.0)
    pauses = []
    for _ in range(6):
        pauses.append(breaker.ask(APP).wait_s)
        clock.seconds += pauses[-1]
        call(breaker, is_answer=False)
    assert pauses == [1, 2, 4, 8, 10, 10]


def test_an_app_that_is_back_is_called_by_1_2_4_and_so_on_at_once_and_then_freely() -> None:
    breaker, clock = opened()
    clock.seconds += FIRST_PAUSE_S
    at_once = []
    while breaker.held_back:
        permits = []
        while breaker.held_back and (permit := breaker.ask(APP)).wait_s == 0:
            permits.append(permit)
        at_once.append(len(permits))
        for permit in permits:
            breaker.heard(APP, permit, is_answer=True)
    assert at_once == [2**n for n in range(RAMP_ENDS.bit_length())]
    assert breaker.ask(APP) == Permit()


def ramped(ramp: int) -> tuple[Breaker, Clock]:
    """A breaker that lets `ramp` calls be under way at once."""
    breaker, clock = opened()
    clock.seconds += FIRST_PAUSE_S
    for _ in range(ramp - 1):
        call(breaker, is_answer=True)
    return breaker, clock


def at_once(breaker: Breaker) -> list[Permit]:
    """As many calls as are let pass; they stay under way."""
    permits = []
    while breaker.held_back and (permit := breaker.ask(APP)).wait_s == 0:
        permits.append(permit)
    return permits


def test_one_failure_on_the_ramp_changes_nothing_and_each_further_one_in_a_row_halves_it() -> None:
    for failures, left in ((1, 16), (2, 8), (3, 4)):
        breaker, _ = ramped(16)
        trials = at_once(breaker)
        assert len(trials) == 16
        for trial in trials[:failures]:
            breaker.heard(APP, trial, is_answer=False)
        for trial in trials[failures:]:
            breaker.gave_up(APP, trial)
        assert len(at_once(breaker)) == left


def test_an_app_that_goes_down_again_on_the_ramp_is_left_alone_after_five_failures_in_a_row() -> None:
    breaker, clock = ramped(64)
    trials = at_once(breaker)
    for trial in trials[:OPENS_AFTER]:
        breaker.heard(APP, trial, is_answer=False)
    assert breaker.ask(APP).wait_s == FIRST_PAUSE_S
    # The others fail in the same moment; that is no further failure.
    for trial in trials[OPENS_AFTER:]:
        breaker.heard(APP, trial, is_answer=False)
    assert breaker.ask(APP).wait_s == FIRST_PAUSE_S
    # Nothing is answered any more: each pause is twice as long.
    clock.seconds += FIRST_PAUSE_S
    call(breaker, is_answer=False)
    assert breaker.ask(APP).wait_s == 2 * FIRST_PAUSE_S


def test_an_app_that_loses_one_call_in_twenty_is_soon_called_freely_again() -> None:
    for seed in range(100):
        breaker, clock = opened()
        began, dice = clock.seconds, random.Random(seed)
        while breaker.held_back:
            clock.seconds += 1
            assert clock.seconds - began < 60, seed
            for permit in at_once(breaker):
                breaker.heard(APP, permit, is_answer=dice.random() > 0.05)


def test_calls_from_before_that_fail_late_make_nothing_worse_and_one_that_is_answered_ends_the_pause() -> None:
    breaker, _ = opened()
    before = Permit()
    breaker.heard(APP, before, is_answer=False)
    assert breaker.ask(APP).wait_s == FIRST_PAUSE_S
    breaker.heard(APP, before, is_answer=True)
    assert breaker.ask(APP).trial is not None


def test_a_trial_that_takes_long_has_reached_the_app_and_lets_another_one_try() -> None:
    breaker, clock = opened()
    clock.seconds += FIRST_PAUSE_S
    slow = breaker.ask(APP)
    clock.seconds += 29
    assert breaker.ask(APP).wait_s > 0
    clock.seconds += 2
    assert breaker.ask(APP).trial is not None
    breaker.heard(APP, slow, is_answer=False)
    assert breaker.held_back == [APP]


def test_a_trial_that_was_given_up_makes_place_for_another() -> None:
    breaker, clock = opened()
    clock.seconds += FIRST_PAUSE_S
    breaker.gave_up(APP, breaker.ask(APP))
    assert breaker.ask(APP).trial is not None


def test_a_new_sync_of_the_app_begins_afresh() -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    breaker, _ = made()
    for _ in range(OPENS_AFTER):
        breaker.heard(APP, breaker.ask(APP, first), is_answer=False, synced_at=first)
    assert breaker.ask(APP, first).wait_s > 0
    assert breaker.ask(APP, first + timedelta(seconds=1)) == Permit()
    assert breaker.held_back == []


def test_only_so_many_apps_are_remembered() -> None:
    breaker = Breaker(most=10)
    for n in range(50):
        breaker.heard(AppId(UUID(int=n)), Permit(), is_answer=False)
    assert list(breaker._apps) == [AppId(UUID(int=n)) for n in range(40, 50)]
