"""`WaitForEvent`: wait until an event matches, or time runs out (protocol 23.1)."""

from app.domain.expressions import ExpressionRefused, compile_expression
from app.domain.protocol.opcodes import Op
from app.domain.run import keys
from app.domain.run.effects import OpenPause, OpenStep
from app.domain.run.on_reply.timing import timer
from app.domain.run.state import ItemKind, StepKind, StepState
from app.domain.run.turn import Turn


def wait_for_event(turn: Turn, op: Op) -> None:
    """Open the pause and its timeout together (I13). A wait that names no time expires at once (12.3)."""
    if not turn.is_new(op.id):
        return
    if not op.event:
        turn.is_unreadable = True
        return
    if op.expression and not _compiles(turn, op.expression):
        return
    end = timer(turn, op, keys.timeout(op.id), ItemKind.TIMEOUT)
    kind, is_member = StepKind.WAIT_FOR_EVENT, op.id in turn.members
    step = OpenStep(op.id, kind, op.name, StepState.WAITING, is_member, op.is_race, op.step_type, op.raw_opts)
    if end is not None and turn.open(step):
        turn.add(OpenPause(op.id, kind, event=op.event, expression=op.expression), end)


def _compiles(turn: Turn, expression: str) -> bool:
    """Whether the wait can be judged at all; if not, the run fails at once (protocol 14.4): no event would ever end it."""
    try:
        compile_expression(expression, ("event", "async"))
    except ExpressionRefused as refused:
        return turn.fail(
            "invalid_expression", "InvalidExpression", f"The wait's expression is refused: {refused.message}"
        )
    return True
