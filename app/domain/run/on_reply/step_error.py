"""`StepError` and `StepFailed`: a step threw. A step that fails for good does not fail the run (protocol 14.1)."""

from app.domain.protocol.error_object import as_memo, error_in, made_error
from app.domain.protocol.opcodes import Op
from app.domain.run.effects import RetryStep, SaveStep
from app.domain.run.finish import may_retry, retry_item
from app.domain.run.state import ItemKind, StepKind, StepState
from app.domain.run.turn import Turn


def step_error(turn: Turn, op: Op) -> None:
    """Try the item again while that is allowed, else keep the error as the step's memo."""
    if turn.is_settled(op.id):
        turn.asks_again = True
    elif not turn.takes_result(op.id) or _is_of_another_call(turn, op):
        return
    elif not may_retry(turn):
        _save(turn, op)
    elif turn.show_retry(op.id, RetryStep(op.id, StepKind.RUN, op.name, error_in(_memo(op)))):
        retry_item(turn, error_in(_memo(op)))


def step_failed(turn: Turn, op: Op) -> None:
    """Keep the error as the step's memo, whatever attempts are left."""
    if turn.is_settled(op.id):
        turn.asks_again = True
    elif turn.takes_result(op.id):
        _save(turn, op)


def _save(turn: Turn, op: Op) -> None:
    turn.save(SaveStep(op.id, StepKind.RUN, op.name, StepState.FAILED, _memo(op), op.input, op.step_type))


def _memo(op: Op) -> bytes:
    if op.memo is not None:
        return op.memo
    return as_memo(made_error("Error", "The step failed without saying why."))


def _is_of_another_call(turn: Turn, op: Op) -> bool:
    """A targeted call that reports the failure of another step: that step's own call counts its attempts."""
    item = turn.item
    return item is not None and item.kind is ItemKind.STEP and item.step_key != op.id
