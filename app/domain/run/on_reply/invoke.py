"""`InvokeFunction`: start another function and wait for its end (protocol 23.3)."""

from app.domain import limits
from app.domain.ids import to_ulid
from app.domain.protocol.opcodes import Op
from app.domain.run import keys
from app.domain.run.effects import InvokeFunction, OpenPause, OpenStep
from app.domain.run.on_reply.timing import timer
from app.domain.run.state import ItemKind, StepKind, StepState
from app.domain.run.turn import Turn


def invoke(turn: Turn, op: Op) -> None:
    """Open the pause and its timeout, then publish the child's event. An invoke that names no time waits a year."""
    if not turn.is_new(op.id):
        return
    if not op.function:
        turn.is_unreadable = True
        return
    end = timer(turn, op, keys.timeout(op.id), ItemKind.TIMEOUT, otherwise=limits.DEFAULT_LONG_WAIT)
    kind, is_member = StepKind.INVOKE, op.id in turn.members
    step = OpenStep(op.id, kind, op.name, StepState.INVOKING, is_member, op.is_race, op.step_type, op.raw_opts)
    if end is not None and turn.open(step):
        correlation = f"{to_ulid(turn.run.id)}.{op.id}"
        child = InvokeFunction(op.id, op.name, op.function, b"{}" if op.payload is None else op.payload)
        turn.add(OpenPause(op.id, kind, correlation=correlation), end, child)
