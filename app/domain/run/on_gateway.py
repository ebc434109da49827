"""The request of a gateway step was made: its answer is the step's memo, its failure may be tried again."""

from app.domain.protocol.error_object import as_memo, made_error
from app.domain.run.effects import Effect, Ignore, RetryStep, SaveStep
from app.domain.run.finish import conclude, may_retry, retry_item
from app.domain.run.happenings import Fetched
from app.domain.run.state import ItemKind, StepState
from app.domain.run.turn import Turn


def on_fetched(turn: Turn, happening: Fetched) -> list[Effect]:
    """Settle the step, or try again while the item has attempts left. A step that fails for good does not fail the run."""
    item = turn.sheet.items.get(happening.item_key)
    step = turn.sheet.steps.get(item.step_key or "") if item is not None else None
    if item is None or item.kind is not ItemKind.GATEWAY or step is None:
        return [Ignore("late")]
    turn.item, turn.retry_after = item, happening.retry_after
    if happening.memo is not None:
        turn.save(SaveStep(step.key, step.kind, "", StepState.COMPLETED, happening.memo))
        return conclude(turn)
    error = happening.error or made_error("Error", "The request failed.")
    if happening.is_final or not may_retry(turn):
        turn.save(SaveStep(step.key, step.kind, "", StepState.FAILED, as_memo(error)))
    elif turn.show_retry(step.key, RetryStep(step.key, step.kind, "", error)):
        retry_item(turn, error)
    return conclude(turn)
