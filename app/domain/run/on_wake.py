"""What a step waited for is there: its time, its event, its signal, its child."""

from app.domain.protocol.error_object import as_memo, made_error
from app.domain.run.effects import ClosePause, Effect, Ignore, SaveStep
from app.domain.run.finish import conclude
from app.domain.run.happenings import Resumed, TimerDue
from app.domain.run.state import TIMERS, Step, StepKind, StepState
from app.domain.run.turn import Turn

_PAUSED = frozenset({StepState.WAITING, StepState.INVOKING})
_ASLEEP = _PAUSED | {StepState.SLEEPING}
_TOO_LATE = "Timed out waiting for invoked function to complete"


def on_timer(turn: Turn, happening: TimerDue) -> list[Effect]:
    """A sleep ends, or a wait expires: its memo is null, an invoke's is the timeout error (protocol 10.3)."""
    item = turn.sheet.items.get(happening.item_key)
    if item is None or item.kind not in TIMERS:
        return [Ignore("late")]
    turn.item = item
    step = turn.sheet.steps.get(item.step_key or "")
    if step is not None and step.state in _ASLEEP and turn.save(_expired(step)) and step.state in _PAUSED:
        turn.add(ClosePause(step.key, "timed_out"))
    return conclude(turn)


def on_resumed(turn: Turn, happening: Resumed) -> list[Effect]:
    """The wait is won; its timeout goes with it, so exactly one of the two counts (I15)."""
    step = turn.sheet.steps.get(happening.step_key)
    if step is None or step.state not in _PAUSED:
        return [Ignore("known" if step is not None else "late")]
    state = StepState.FAILED if happening.is_error else StepState.COMPLETED
    if turn.save(SaveStep(step.key, step.kind, "", state, happening.memo)):
        turn.add(ClosePause(step.key, "resumed"))
    return conclude(turn)


def _expired(step: Step) -> SaveStep:
    if step.kind is not StepKind.INVOKE:
        return SaveStep(step.key, step.kind, "", StepState.COMPLETED, b"null")
    error = made_error("InngestInvokeTimeoutError", _TOO_LATE, error=_TOO_LATE)
    return SaveStep(step.key, step.kind, "", StepState.FAILED, as_memo(error))
