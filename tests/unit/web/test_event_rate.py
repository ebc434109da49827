"""An environment sends as many events as its plan says (L10); a request is taken whole and paid for by waiting."""

from uuid import UUID

import pytest

from app.domain.ids import EnvironmentId
from app.domain.limits import PLANS
from app.web.api.event_rate import EventRate, TooManyEvents
from app.web.api.rate import Usage

MINE, OTHER = EnvironmentId(UUID(int=1)), EnvironmentId(UUID(int=2))
FREE = PLANS["free"]


class Clock:
    """Seconds that pass when the test says so."""

    seconds = 50.0

    def __call__(self) -> float:
        return self.seconds


def test_a_plan_without_a_rate_is_never_refused_nor_remembered() -> None:
    rate = EventRate()
    for _ in range(1000):
        rate.ask(MINE, PLANS["self_hosted"])
        rate.count(MINE, PLANS["self_hosted"], 5000)
    assert rate._paid_at == {}


def test_a_burst_passes_and_then_as_much_as_the_rate() -> None:
    clock = Clock()
    rate = EventRate(now=clock)
    passed = 0
    for _ in range(100):  # Ten seconds, in which 1,000 events are offered per second.
        for _ in range(100):
            try:
                rate.ask(MINE, FREE)
            except TooManyEvents:
                continue
            rate.count(MINE, FREE, 1)
            passed += 1
        clock.seconds += 0.1
    assert FREE.event_rate is not None
    assert FREE.event_burst is not None
    assert FREE.event_burst + 9 * FREE.event_rate <= passed <= FREE.event_burst + 10 * FREE.event_rate + 1


def test_a_large_request_is_taken_whole_and_says_when_there_is_room_again() -> None:
    clock = Clock()
    rate = EventRate(now=clock)
    rate.ask(MINE, FREE)
    rate.count(MINE, FREE, 5000)
    with pytest.raises(TooManyEvents) as refused:
        rate.ask(MINE, FREE)
    after = refused.value.details["retry_after"]
    assert isinstance(after, int)
    assert 48 <= after <= 51
    assert (refused.value.code, refused.value.details["limit"]) == ("rate_limited", 100)
    rate.ask(OTHER, FREE)
    clock.seconds += after
    rate.ask(MINE, FREE)


def test_only_so_many_environments_are_remembered() -> None:
    rate = EventRate(most=10)
    for n in range(50):
        rate.count(EnvironmentId(UUID(int=n)), FREE, 1)
    assert len(rate._paid_at) == 10


def test_the_usage_says_how_many_may_come_at_once_how_many_still_may_and_when_there_is_more() -> None:
    clock = Clock()
    rate = EventRate(now=clock)
    assert FREE.event_rate is not None
    assert FREE.event_burst is not None
    assert rate.usage(MINE, PLANS["self_hosted"]) is None
    assert rate.usage(MINE, FREE) == Usage(FREE.event_burst, FREE.event_burst, 1)
    rate.count(MINE, FREE, 50)
    assert rate.usage(MINE, FREE) == Usage(FREE.event_burst, FREE.event_burst - 50, 1)
    rate.count(MINE, FREE, FREE.event_burst - 50 + 5 * FREE.event_rate)
    assert rate.usage(MINE, FREE) == Usage(FREE.event_burst, 0, 5)
    assert rate.usage(OTHER, FREE) == Usage(FREE.event_burst, FREE.event_burst, 1)
    clock.seconds += 6
    assert rate.usage(MINE, FREE) == Usage(FREE.event_burst, FREE.event_rate, 1)
