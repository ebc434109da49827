"""A running call reports steps it has done, and goes on (protocol 17.2)."""

from app.domain.protocol.opcodes import LAZY, OpCode
from app.domain.run.effects import AbortDefer, AddDefer, CloseGroup, Effect, Ignore, ResetAttempt, SaveStep
from app.domain.run.finish import conclude, start
from app.domain.run.happenings import Checkpointed
from app.domain.run.on_reply.lazy import defer_abort, defer_add, lazy
from app.domain.run.state import CALLS, StepKind, StepState
from app.domain.run.turn import Turn

_LAZY = {OpCode.NONE: lazy, OpCode.DEFER_ADD: defer_add, OpCode.DEFER_ABORT: defer_abort}
_SAVED = frozenset({OpCode.STEP, OpCode.STEP_RUN})
_ALLOWED = _SAVED | LAZY | {OpCode.STEP_PLANNED}  # a plan is only for display here


def on_checkpoint(turn: Turn, happening: Checkpointed) -> list[Effect]:
    """Save what is new and count attempts from 0 again. No item is settled and no discovery follows: the call is open.

    A result above a limit ends the run; the endpoint finds that out from the effects.
    """
    item = turn.sheet.items.get(happening.item_key)
    if item is None or item.kind not in CALLS:
        return [Ignore("late")]
    if any(op.code not in _ALLOWED for op in happening.ops):
        return [Ignore("unsupported")]
    turn.item = item
    start(turn)
    for op in happening.ops:
        if op.code in _SAVED and turn.takes_result(op.id):
            memo = b'{"data":null}' if op.memo is None else op.memo
            turn.save(SaveStep(op.id, StepKind.RUN, op.name, StepState.COMPLETED, memo, op.input, op.step_type))
        elif op.code in LAZY:
            _LAZY[op.code](turn, op)
        if turn.finish is not None:
            return conclude(turn)
    if not turn.settled and not any(isinstance(effect, AddDefer | AbortDefer) for effect in turn.effects):
        return [Ignore("known")]
    if turn.sheet.group is not None and turn.sheet.pending <= 0:
        turn.add(CloseGroup())
    turn.add(ResetAttempt(item.key))
    return turn.effects
