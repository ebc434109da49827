"""`Sleep`: come back later."""

from app.domain.protocol.opcodes import Op
from app.domain.run import keys
from app.domain.run.effects import OpenStep
from app.domain.run.on_reply.timing import timer
from app.domain.run.state import ItemKind, StepKind, StepState
from app.domain.run.turn import Turn


def sleep(turn: Turn, op: Op) -> None:
    """Enqueue the end of the sleep, once: py reports it again with a later time, and the first one wins (13.3)."""
    if not turn.is_new(op.id):
        return
    end = timer(turn, op, keys.sleep(op.id), ItemKind.SLEEP)
    is_member = op.id in turn.members
    step = OpenStep(
        op.id, StepKind.SLEEP, op.name, StepState.SLEEPING, is_member, op.is_race, op.step_type, op.raw_opts
    )
    if end is not None and turn.open(step):
        turn.add(end)
