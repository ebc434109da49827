"""`StepRun` (and the legacy `Step`): a step has its result."""

from app.domain.protocol.opcodes import Op
from app.domain.run.effects import SaveStep
from app.domain.run.state import StepKind, StepState
from app.domain.run.turn import Turn

_NULL = b'{"data":null}'


def step_run(turn: Turn, op: Op) -> None:
    """Save the first result. A second one changes nothing but still asks for the discovery that follows (13.3)."""
    if turn.is_settled(op.id):
        turn.asks_again = True
    elif turn.takes_result(op.id):
        memo = _NULL if op.memo is None else op.memo
        turn.save(SaveStep(op.id, StepKind.RUN, op.name, StepState.COMPLETED, memo, op.input, op.step_type))
