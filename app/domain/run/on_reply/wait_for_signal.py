"""`WaitForSignal`: wait for a name of the environment to be signalled (protocol 23.2)."""

from app.domain import limits
from app.domain.protocol.opcodes import Op
from app.domain.run import keys
from app.domain.run.effects import OpenPause, OpenStep
from app.domain.run.on_reply.timing import timer
from app.domain.run.state import ItemKind, StepKind, StepState
from app.domain.run.turn import Turn


def wait_for_signal(turn: Turn, op: Op) -> None:
    """Open the pause and its timeout together (I13). A signal that names no time waits a year (12.3).

    Whether another run waits for the same name is the store's to know: it reads `conflict` off the pause.
    """
    if not turn.is_new(op.id):
        return
    if not op.signal:
        turn.is_unreadable = True
        return
    end = timer(turn, op, keys.timeout(op.id), ItemKind.TIMEOUT, otherwise=limits.DEFAULT_LONG_WAIT)
    kind, is_member = StepKind.WAIT_FOR_SIGNAL, op.id in turn.members
    step = OpenStep(op.id, kind, op.name, StepState.WAITING, is_member, op.is_race, op.step_type, op.raw_opts)
    if end is not None and turn.open(step):
        turn.add(OpenPause(op.id, kind, signal=op.signal, conflict=op.conflict), end)
