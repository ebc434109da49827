"""The laws of the run, over thousands of random histories. `STEPWELL_TEST_HISTORIES` raises their number."""

import os
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.domain.run import finish
from app.domain.run.turn import Turn
from tests.unit.domain.run.programs import STYLES, Act, Do, Fork, Node, Style, programs
from tests.unit.domain.run.world import Breach, World

HISTORIES = int(os.environ.get("STEPWELL_TEST_HISTORIES", "3000"))
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # not `explain`, which drowns the history
_UNHURRIED = settings(
    deadline=None,
    phases=_PHASES,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
)


#: A history takes about 6 ms of an idle core; a loaded machine may take ten times that.
_PATIENCE = pytest.mark.timeout(max(HISTORIES * 0.1, 60))


@_PATIENCE
@settings(_UNHURRIED, max_examples=HISTORIES)
@given(program=programs(), style=STYLES, seed=st.integers(0, 2**32))
def test_every_history_keeps_the_laws(program: tuple[Node, ...], style: Style, seed: int) -> None:
    World(program, style, seed).live()


@_PATIENCE
@settings(_UNHURRIED, max_examples=max(HISTORIES // 15, 20))
@given(program=programs(), style=STYLES, seeds=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)))
def test_the_order_of_completions_does_not_change_the_outcome(
    program: tuple[Node, ...], style: Style, seeds: tuple[int, int]
) -> None:
    if _has_race_or_throws(program):
        return
    first, second = (World(program, style, seed, faults=0).live() for seed in seeds)
    assert first.status == second.status
    assert set(first.steps) == set(second.steps)


def _has_race_or_throws(nodes: tuple[Node, ...]) -> bool:
    """Programs whose outcome may depend on the order: who wins a race, who throws first."""
    for node in nodes:
        if isinstance(node, Do):
            if node.is_uncaught:
                return True
        elif node.is_race or any(map(_has_race_or_throws, node.branches)):
            return True
    return False


def _always_new(_turn: Turn, _step_key: str) -> bool:
    return True


def _stop_quietly(_turn: Turn) -> None:
    return None


def _forget_the_group(discovery: Callable[[Turn, bool], str | None]) -> Callable[[Turn, bool], str | None]:
    return lambda turn, closes: None if closes else discovery(turn, closes)


#: A group that opens and closes beside a sleep, so that the sleep's item is there to hide a stranded group.
_PROGRAM: tuple[Node, ...] = (
    Fork(((Do("a"),), (Do("b"),), (Do("c", Act.SLEEP),))),
    Fork(((Do("d", Act.SLEEP), Fork(((Do("e"),), (Do("f"),)))), (Do("g", Act.SLEEP),))),
    Do("h"),
)


def _first_breach() -> str:
    for seed in range(300):
        style = Style(version=Random(seed).choice((1, 2)), junk=30)
        try:
            World(_PROGRAM, style, seed).live()
        except Breach as breach:
            return str(breach)
    return ""


def test_an_unbroken_machine_keeps_the_laws_where_the_broken_ones_fail() -> None:
    assert _first_breach() == ""


def test_a_machine_that_plans_known_siblings_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turn, "is_new", _always_new)
    assert _first_breach().startswith("law 3")


def test_a_machine_that_lets_an_empty_reply_settle_the_only_item_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "_refuse_to_stop", _stop_quietly)
    assert _first_breach().startswith("law 2")


def test_a_machine_whose_last_member_forgets_the_discovery_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "_discovery", _forget_the_group(finish._discovery))
    assert _first_breach().startswith("law 4")


def test_a_breach_tells_the_whole_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "_refuse_to_stop", _stop_quietly)
    told = _first_breach()
    for part in ("law 2", "program", "style", "seed", "call start attempt 0", "Replied(item_key="):
        assert part in told
