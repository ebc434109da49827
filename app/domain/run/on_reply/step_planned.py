"""`StepPlanned`: a step to be run by a call of its own."""

from app.domain.protocol.opcodes import Op
from app.domain.run import keys
from app.domain.run.effects import EnqueueItem, OpenStep
from app.domain.run.state import ItemKind, StepKind, StepState
from app.domain.run.turn import Turn


def step_planned(turn: Turn, op: Op) -> None:
    """Enqueue the targeted call, once: SDKs report unfinished siblings again on every discovery (13.3)."""
    if not turn.is_new(op.id):
        return
    is_member = op.id in turn.members
    step = OpenStep(op.id, StepKind.RUN, op.name, StepState.PLANNED, is_member, op.is_race, op.step_type, op.raw_opts)
    if turn.open(step):
        turn.add(EnqueueItem(keys.step(op.id), ItemKind.STEP, op.id))
