"""When a sleep ends or a wait expires (protocol 12.3), and the bound on both."""

from datetime import timedelta

from app.domain.protocol.opcodes import Op
from app.domain.run.effects import EnqueueItem
from app.domain.run.state import ItemKind
from app.domain.run.turn import Turn


def timer(turn: Turn, op: Op, key: str, kind: ItemKind, *, otherwise: timedelta | None = None) -> EnqueueItem | None:
    """The item that ends the op's step. None after failing a run that wants to wait longer than its plan allows.

    `otherwise` is the wait of an op that names no time; None means at once. Instants of the past mean at once too.
    """
    wait = op.wake_at - turn.now if op.wake_at is not None else op.wake_after
    longest = turn.run.max_sleep
    if wait is not None and wait > longest:
        message = f"The step {op.name!r} would wait longer than {longest.days} days."
        turn.fail("timeout_too_long", "InngestErrTimeoutTooLong", message)
        return None
    if op.wake_at is not None:
        return EnqueueItem(key, kind, op.id, at=op.wake_at)
    after = otherwise if op.wake_after is None else max(op.wake_after, timedelta(0))
    return EnqueueItem(key, kind, op.id, after=after)
