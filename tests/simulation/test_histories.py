"""The rules of architecture 5 over many histories; docs/simulation.md says how to see one again."""

import os

import pytest

from tests.simulation.explore import breach_of, explore, report, shrunk
from tests.simulation.house import House
from tests.simulation.laws import Breach
from tests.simulation.plan import draw
from tests.simulation.planted import ALL, planted

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
#: In full size 10,000 histories, in parts that several processes share. One takes about 25 ms of an idle core.
PARTS, HISTORIES = (4, 2500) if IS_FULL else (1, 200)
_PATIENCE = pytest.mark.timeout(1800 if IS_FULL else 300)
#: Within this many histories every planted fault is found.
SOON = 250
#: Paths that a history seldom takes; a part of the full size takes each of them.
RARE = (
    "stale",
    "busy",
    "lost: a fence had moved",
    "late answer",
    "rescued",
    "worker lost its leases",
    "call under a lease that was lost",
    "fence read again before a call",
    "outcome read back",
    "successors looked for after a lost answer",
    "connection cut",
    "waited for a lock",
    "lease not handed on",
    "refused by a limit",
    "forgotten item given back",
    "step executed again",
    "checkpoint saved",
    "checkpoint refused",
    "event sent again",
    "request repeated by its seed",
    "duplicate event id",
    "event batched",
    "event debounced",
    "event rate_limited",
    "event singleton",
    "item parked",
    "signal delivered",
    "settings changed in mid-run",
    "cancelled",
    "ring lost",
    "web crash",
)


@_PATIENCE
@pytest.mark.parametrize("part", range(PARTS))
def test_every_history_keeps_the_laws(part: int) -> None:
    seen = explore(range(part * HISTORIES, (part + 1) * HISTORIES))
    if IS_FULL:
        assert [path for path in RARE if not seen[path]] == []


@pytest.mark.parametrize("seed", [313, 457, 3107])
def test_a_history_that_once_broke_a_law_keeps_them(seed: int) -> None:
    explore([seed])


@_PATIENCE
@pytest.mark.parametrize("fault", ALL)
def test_a_planted_fault_is_found_soon(fault: str) -> None:
    with planted(fault) as faults:
        assert any(breach_of(draw(seed), faults) for seed in range(SOON))


def test_a_seed_is_played_the_same_way_again() -> None:
    for seed in range(11, 31):
        first, second = (House(draw(seed), is_told=True) for _ in range(2))
        first.play()
        second.play()
        assert first.lines and first.lines == second.lines
        assert first.server.seen == second.server.seen


def test_a_breach_is_told_with_its_seed_and_a_plan_made_smaller() -> None:
    with planted("version check dropped") as faults:
        seed, breach = next((s, b) for s in range(SOON) if (b := breach_of(draw(s), faults)))
        small = shrunk(draw(seed), faults)
        told = report(draw(seed), breach, faults)
    assert breach_of(small, faults) is not None
    assert len(small.faults) + len(small.deeds) + len(small.sends) <= len(
        draw(seed).faults + draw(seed).sends + draw(seed).deeds
    )
    assert f"python -m tests.simulation {seed}" in told
    with pytest.raises(Breach), planted("version check dropped") as faults:
        explore([seed], faults)
