"""When a storm has come to rest, when it is held to be stuck, and what it says then."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from tests.chaos.storm import rest
from tests.chaos.storm.client import Client
from tests.chaos.storm.rest import EngineClock, Rest
from tests.chaos.storm.yard import Yard

ITEM = {"what": "item", "id": "1", "detail": "discover start of run 2"}


class _Yard:
    """Answers the questions of `Rest` from scripts: each look takes the next of both, the last again and again."""

    def __init__(self, opens: Sequence[list[dict[str, str]] | None], settled: list[int]) -> None:
        self.opens, self.settled = list(opens), settled
        self.children: dict[str, Any] = {}

    async def ask(self, query: str) -> list[dict[str, Any]] | None:
        if query == rest.OPEN:
            return self.opens.pop(0) if len(self.opens) > 1 else self.opens[0]
        if "settled" in query:
            settled = self.settled.pop(0) if len(self.settled) > 1 else self.settled[0]
            return [{"ended": 0, "settled": settled, "inbox": 0}]
        return [{"now": "noon"}]


class _Client:
    """Is done, or waits for something for ever."""

    def __init__(self, *waits_for: str) -> None:
        self.waits_for = list(waits_for)

    async def finish(self) -> None:
        if self.waits_for:
            await asyncio.Event().wait()

    def undone(self) -> list[str]:
        return self.waits_for


class _Clock:
    """Every look takes `step` engine seconds."""

    step = 1.0

    def passed(self, pids: Iterable[int]) -> float:
        return self.step


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_LOOK_S", 0.0)
    monkeypatch.setattr(rest, "EngineClock", _Clock)


def _rest(yard: _Yard, client: _Client, stalled_s: float = 60.0, total_s: float = 180.0) -> Rest:
    return Rest(cast("Yard", yard), cast("Client", client), stalled_s, total_s)


async def test_a_storm_rests_when_nothing_is_open_and_the_client_is_done() -> None:
    found = _rest(_Yard([None, [ITEM], []], [1]), _Client())
    assert await found.wait()
    assert (found.why, found.engine_s) == ([], 3.0)


async def test_what_does_not_move_is_named() -> None:
    found = _rest(_Yard([[ITEM]], [1]), _Client(), stalled_s=5.0)
    assert not await found.wait()
    assert found.why[0].startswith("nothing moved for 6 s")
    assert "1 items" in found.why[0]
    assert "item 1: discover start of run 2" in found.why


async def test_a_client_that_still_waits_is_no_rest_and_says_what_it_waits_for() -> None:
    found = _rest(_Yard([[]], [1]), _Client("insist delete /v1/runs/X"), stalled_s=5.0)
    assert not await found.wait()
    assert "the client is not done: insist delete /v1/runs/X" in found.why


async def test_progress_gives_more_time_but_not_for_ever() -> None:
    found = _rest(_Yard([[ITEM]] * 30 + [[]], list(range(40))), _Client(), stalled_s=5.0)
    assert await found.wait()

    found = _rest(_Yard([[ITEM]], list(range(100))), _Client(), stalled_s=5.0, total_s=30.0)
    assert not await found.wait()
    assert found.why[0].startswith("things moved")


async def test_numbers_that_go_up_and_down_are_no_progress() -> None:
    found = _rest(_Yard([[ITEM]], [1, 2] * 50), _Client(), stalled_s=5.0)
    assert not await found.wait()
    assert found.why[0].startswith("nothing moved")


def test_time_in_which_a_process_had_no_core_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waited = [100.0], {7: 3.0, 8: 50.0}
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(rest, "waited_s", waited.__getitem__)
    clock = EngineClock()
    now[0] = 101.0
    assert clock.passed([7]) == 1.0
    now[0], waited[7] = 103.0, 4.5
    assert clock.passed([7, 8]) == 0.5
    now[0], waited[8] = 104.0, 60.0
    assert clock.passed([7, 8]) == 0.0
