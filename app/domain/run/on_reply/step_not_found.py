"""`StepNotFound`: the app does not know the step it was called for."""

from app.domain.protocol.opcodes import Op
from app.domain.run.turn import Turn


def step_not_found(turn: Turn, _op: Op) -> None:
    """A retriable error (protocol 12.2): an app in the middle of a deploy may know the step again."""
    turn.is_unreadable = True
