"""Ends that do not come from the app: somebody cancels, or a call cannot be made without losing its worker."""

from app.domain.run.effects import Effect, FinishRun, Ignore, SettleItem
from app.domain.run.finish import conclude
from app.domain.run.happenings import CancelRequested, DeadlineDue, Poisoned
from app.domain.run.state import ItemKind, RunStatus
from app.domain.run.turn import Turn


def on_cancel(turn: Turn, happening: CancelRequested) -> list[Effect]:
    """End the run; the cause is its code. A call in flight is not stopped, its answer comes too late (I22)."""
    turn.finish = FinishRun(RunStatus.CANCELLED, None, happening.cause)
    return conclude(turn)


def on_deadline(turn: Turn, happening: DeadlineDue) -> list[Effect]:
    """End the run that is late; one that has started in time only loses the item."""
    has_started = happening.is_calling or turn.sheet.status is not RunStatus.QUEUED
    if happening.kind is ItemKind.START_TIMEOUT and has_started:
        return [SettleItem(happening.item_key)]
    turn.finish = FinishRun(RunStatus.CANCELLED, None, str(happening.kind))
    return conclude(turn)


def on_poisoned(turn: Turn, happening: Poisoned) -> list[Effect]:
    """Fail the run whose item was set aside, so that it does not wait for ever (F17)."""
    if happening.item_key not in turn.sheet.items:
        return [Ignore("late")]
    turn.fail("poison_work", "poison_work", "The call took its worker down too often and is not made again.")
    return conclude(turn)
