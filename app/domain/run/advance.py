"""What happens next: every state and every happening has an answer. This module only chooses who gives it.

Before: `state.py`, `happenings.py`, `effects.py`. After: a handler in `on_reply/`, then `finish.py`, where all turns end.
"""

from datetime import datetime
from typing import assert_never

from app.domain.protocol.reply import Failed, Finished, Ops
from app.domain.run.effects import Effect, Ignore
from app.domain.run.happenings import (
    CancelRequested,
    Checkpointed,
    DeadlineDue,
    Fetched,
    Happening,
    Poisoned,
    Replied,
    Resumed,
    TimerDue,
)
from app.domain.run.on_cancel import on_cancel, on_deadline, on_poisoned
from app.domain.run.on_checkpoint import on_checkpoint
from app.domain.run.on_gateway import on_fetched
from app.domain.run.on_reply.failed import on_failed
from app.domain.run.on_reply.finished import on_finished
from app.domain.run.on_reply.ops import on_ops
from app.domain.run.on_wake import on_resumed, on_timer
from app.domain.run.state import CALLS, Run
from app.domain.run.turn import Turn


def advance(run: Run, happening: Happening, now: datetime) -> list[Effect]:
    """The effects to commit, never an empty list. `now` is the transaction's database time.

    `FinishRun`, where there is one, is the last; an answer that changes nothing is a single `Ignore`.
    """
    if run.is_ended:
        return [Ignore("ended")]
    turn = Turn(run, now)
    match happening:
        case Replied():
            return _on_replied(turn, happening)
        case Checkpointed():
            return on_checkpoint(turn, happening)
        case TimerDue():
            return on_timer(turn, happening)
        case Resumed():
            return on_resumed(turn, happening)
        case CancelRequested():
            return on_cancel(turn, happening)
        case DeadlineDue():
            return on_deadline(turn, happening)
        case Poisoned():
            return on_poisoned(turn, happening)
        case Fetched():
            return on_fetched(turn, happening)
        case _:
            assert_never(happening)


def _on_replied(turn: Turn, happening: Replied) -> list[Effect]:
    item = turn.run.items.get(happening.item_key)
    if item is None or item.kind not in CALLS:
        return [Ignore("late")]
    turn.item = item
    match happening.reply:
        case Ops() as reply:
            turn.no_retry, turn.retry_after = reply.no_retry, reply.retry_after
            return on_ops(turn, reply)
        case Finished() as reply:
            return on_finished(turn, reply)
        case Failed() as reply:
            turn.no_retry, turn.retry_after = reply.no_retry, reply.retry_after
            return on_failed(turn, reply)
        case _:
            assert_never(happening.reply)
