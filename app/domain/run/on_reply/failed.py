"""An error of the function, not of a step; or no usable answer at all (protocol 14.1)."""

from app.domain.protocol.reply import Failed
from app.domain.run.effects import Effect, FinishRun
from app.domain.run.finish import conclude, retry_or_fail, start
from app.domain.run.state import RunStatus
from app.domain.run.turn import Turn


def on_failed(turn: Turn, reply: Failed) -> list[Effect]:
    """Try the item again while attempts remain and nobody forbids it; a fatal error ends the run at once."""
    start(turn)
    if reply.is_fatal:
        turn.finish = FinishRun(RunStatus.FAILED, reply.error, reply.code)
    else:
        retry_or_fail(turn, reply.error, reply.code)
    return conclude(turn)
