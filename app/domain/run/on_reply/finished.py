"""A 200: the function returned. Any call may bring it, a targeted one too (protocol 13.5)."""

from app.domain.protocol.reply import Finished
from app.domain.run.effects import Effect, FinishRun
from app.domain.run.finish import conclude, start
from app.domain.run.state import ItemKind, RunStatus
from app.domain.run.turn import Turn


def on_finished(turn: Turn, reply: Finished) -> list[Effect]:
    """Finish with the result, unless it is go's way of saying that it did not find the step."""
    start(turn)
    if not _is_not_found(turn, reply):
        turn.finish = FinishRun(RunStatus.COMPLETED, reply.data)
    elif turn.item is not None and turn.is_settled(turn.item.step_key or ""):
        turn.asks_again = True  # go checkpointed the step and then said null (10.1): the run goes on behind it
    else:
        turn.is_unreadable = True
    return conclude(turn)


def _is_not_found(turn: Turn, reply: Finished) -> bool:
    """200 `null` of go on a targeted call (protocol 14.5); it ends the run only for the loser of a race.

    A step that is settled while its own item lives was saved by a checkpoint of this very call.
    """
    item = turn.item
    if item is None or item.kind is not ItemKind.STEP or reply.data != b"null" or not reply.sdk.startswith("go:"):
        return False
    target = turn.sheet.steps.get(item.step_key or "")
    return target is None or not target.is_race or turn.is_settled(target.key)
