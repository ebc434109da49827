"""A stop takes at most thirty seconds in all (F5): the grace of everybody who is waited for adds up to it."""

import inspect
import re

import pytest

from app.cli import demo, house
from app.config import KNOWN, load
from app.supervise import postgres, valkey
from workers.main import CLOSE_S, HAND_BACK_S, calls_may_take

ALL_S = 30.0
GIVEN = {
    "DATABASE_URL": "postgresql://u@127.0.0.1/d",
    "REDIS_URL": "redis://127.0.0.1",
    "STEPWELL_SECRET_KEY": "x" * 64,
}


def grace_in(module: object) -> float:
    """The grace that a module gives its child."""
    (found,) = re.findall(r"grace=([\d.]+)", inspect.getsource(module))  # type: ignore[arg-type]
    return float(found)


def test_the_grace_of_all_ranks_of_a_house_adds_up_to_thirty_seconds() -> None:
    worker = house.WORKER_STOP + house.WORKER_SPARE
    assert worker + grace_in(demo) + house.WEB_GRACE + grace_in(valkey) + grace_in(postgres) <= ALL_S


@pytest.mark.parametrize("seconds", ["", str(house.WORKER_STOP), "8", "7200"])
def test_a_worker_ends_within_what_it_was_given_and_calls_get_most_of_it(seconds: str) -> None:
    settings = load(GIVEN | {"STEPWELL_STOP_SECONDS": seconds})
    within = settings.stop_within.total_seconds()
    assert calls_may_take(settings) + HAND_BACK_S + CLOSE_S == within
    assert calls_may_take(settings) >= 1


def test_a_worker_that_stands_alone_ends_within_thirty_seconds() -> None:
    assert load(GIVEN).stop_within.total_seconds() <= ALL_S
    assert any(known.name == "STEPWELL_STOP_SECONDS" for known in KNOWN)
