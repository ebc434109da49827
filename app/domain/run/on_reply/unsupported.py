"""Ops that cannot be carried out: `SyncRunComplete`. The one place that says so."""

from app.domain.protocol.opcodes import Op
from app.domain.run.turn import Turn


def unsupported(turn: Turn, op: Op) -> None:
    """End the run with a clear code: trying again would not help."""
    turn.fail("op_unsupported", "UnsupportedOp", f"The op {op.code.value} is not supported.")
