"""`None`, `DeferAdd`, `DeferAbort`: nothing the run waits for."""

from app.domain.protocol.opcodes import Op
from app.domain.run.turn import Turn


def lazy(_turn: Turn, _op: Op) -> None:
    """No effect. An answer of nothing else settles its item if the run has another; else it is tried again."""
