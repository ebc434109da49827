"""`Gateway` and `AIGateway`: a request that the worker makes while the app is not running (protocol 12.2)."""

from app.domain.protocol.error_object import as_memo
from app.domain.protocol.gateway import read_request, shown, unpublishable
from app.domain.protocol.opcodes import Op, OpCode
from app.domain.run import keys
from app.domain.run.effects import EnqueueItem, OpenStep, SaveStep, StoreRequest
from app.domain.run.state import ItemKind, StepKind, StepState
from app.domain.run.turn import Turn


def gateway(turn: Turn, op: Op) -> None:
    """Keep the request apart from what people may read, and enqueue it as an item of its own, once.

    One that cannot be made as it was asked for is an error of its step at once, which user code may catch.
    """
    if not turn.is_new(op.id):
        return
    if op.raw_opts is None or read_request(op.code, op.raw_opts) is None:
        turn.is_unreadable = True
        return
    kind = StepKind.AI if op.code is OpCode.AI_GATEWAY else StepKind.GATEWAY
    is_member = op.id in turn.members
    opts = shown(op.raw_opts)
    step = OpenStep(op.id, kind, op.name, StepState.PLANNED, is_member, op.is_race, op.step_type, opts)
    if not turn.open(step):
        return
    refusal = unpublishable(op.code, op.raw_opts)
    if refusal is not None:
        turn.save(SaveStep(op.id, kind, op.name, StepState.FAILED, as_memo(refusal)))
    else:
        turn.add(StoreRequest(op.id, op.raw_opts), EnqueueItem(keys.gateway(op.id), ItemKind.GATEWAY, op.id))
