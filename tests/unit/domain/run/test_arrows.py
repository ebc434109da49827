"""Which legal arrows the machine really takes: one that no history takes is dead, or untested."""

from random import Random

import pytest

from app.domain.run.happenings import CancelRequested, Poisoned
from app.domain.run.state import ENDED, RUN_ARROWS, SETTLED, STEP_ARROWS, RunStatus, StepState
from tests.unit.domain.run.programs import Act, Do, Fork, Node, Style
from tests.unit.domain.run.scene import Scene, failed_step, planned, sleeping, waiting
from tests.unit.domain.run.world import World

_PROGRAM: tuple[Node, ...] = (
    Do("a", fails=1),
    Fork(((Do("b", fails=1), Do("c")), (Do("d", Act.SLEEP),), (Do("e", Act.EVENT),)), is_race=True),
    Fork(((Do("f", fails=99),), (Do("g", Act.INVOKE),), (Do("h", Act.SIGNAL), Do("i")))),
    Do("j", fails=99, is_uncaught=True),
)


def _taken() -> set[tuple[str, str]]:
    arrows: set[tuple[str, str]] = set()
    for seed in range(250):
        style = Style(version=Random(seed).choice((1, 2)), checkpoints=seed % 3 == 0, junk=10)
        World(_PROGRAM[seed % 4 : 3 + seed % 2], style, seed, arrows=arrows).live()
    for reported in (
        planned("x"),
        sleeping("x"),
        waiting("x"),
        waiting("x", "invoke"),
        failed_step("x", is_final=True),
    ):
        scene = Scene(arrows=arrows)
        scene.reply("start", failed_step("x"))
        scene.reply("start", reported)
        scene.finish("start" if "start" in scene.run.items else next(iter(scene.run.items)))
    Scene(arrows=arrows).happen(CancelRequested("api"))
    Scene(arrows=arrows).happen(Poisoned("start"))
    scene = Scene(arrows=arrows)
    scene.reply("start", waiting("w"))
    scene.resume("w", is_error=True)
    return arrows


def test_no_legal_arrow_is_left_untaken() -> None:
    legal = {(str(old), str(new)) for old, states in STEP_ARROWS.items() for new in states}
    legal |= {(str(old), str(new)) for old, statuses in RUN_ARROWS.items() for new in statuses}
    taken = _taken()
    assert sorted(legal - taken) == []
    assert sorted(taken - legal) == []


@pytest.mark.parametrize("status", sorted(ENDED))
def test_no_arrow_leaves_the_end_of_a_run(status: RunStatus) -> None:
    assert status not in RUN_ARROWS


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_no_arrow_leaves_a_settled_step(state: StepState) -> None:
    assert state not in STEP_ARROWS
