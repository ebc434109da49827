"""`RunComplete`: the function returned, said as an op (ts4 with checkpointing, protocol 17.3); `SyncRunComplete`: a durable
endpoint answered, with the status, headers and body it gave (protocol 18).
"""

from app.domain.protocol.opcodes import Op
from app.domain.run.effects import FinishRun
from app.domain.run.state import RunStatus
from app.domain.run.turn import Turn


def run_complete(turn: Turn, op: Op) -> None:
    """Finish with the op's result, its `payload`; the step results listed before it are saved by then."""
    result = b"null" if op.payload is None else op.payload
    turn.finish = FinishRun(RunStatus.COMPLETED, result)
