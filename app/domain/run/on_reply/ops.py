"""A 206: a list of ops (protocol 12.4, 13.2). Checks the list as a whole, then hands each op to its handler."""

from collections.abc import Callable, Iterable, Mapping

from app.domain import limits
from app.domain.protocol.opcodes import ENDS, LAZY, Op, OpCode
from app.domain.protocol.reply import Ops
from app.domain.run.effects import Effect, SetRequestVersion
from app.domain.run.finish import conclude, start
from app.domain.run.on_reply import parallel
from app.domain.run.on_reply.discovery_request import discovery_request
from app.domain.run.on_reply.gateway import gateway
from app.domain.run.on_reply.invoke import invoke
from app.domain.run.on_reply.lazy import defer_abort, defer_add, lazy
from app.domain.run.on_reply.run_complete import run_complete
from app.domain.run.on_reply.sleep import sleep
from app.domain.run.on_reply.step_error import step_error, step_failed
from app.domain.run.on_reply.step_not_found import step_not_found
from app.domain.run.on_reply.step_planned import step_planned
from app.domain.run.on_reply.step_run import step_run
from app.domain.run.on_reply.wait_for_event import wait_for_event
from app.domain.run.on_reply.wait_for_signal import wait_for_signal
from app.domain.run.turn import Turn

HANDLERS: Mapping[OpCode, Callable[[Turn, Op], None]] = {
    OpCode.NONE: lazy,
    OpCode.STEP: step_run,
    OpCode.STEP_RUN: step_run,
    OpCode.STEP_ERROR: step_error,
    OpCode.STEP_FAILED: step_failed,
    OpCode.STEP_PLANNED: step_planned,
    OpCode.SLEEP: sleep,
    OpCode.WAIT_FOR_EVENT: wait_for_event,
    OpCode.WAIT_FOR_SIGNAL: wait_for_signal,
    OpCode.INVOKE_FUNCTION: invoke,
    OpCode.AI_GATEWAY: gateway,
    OpCode.GATEWAY: gateway,
    OpCode.RUN_COMPLETE: run_complete,
    OpCode.SYNC_RUN_COMPLETE: run_complete,
    OpCode.DISCOVERY_REQUEST: discovery_request,
    OpCode.DEFER_ADD: defer_add,
    OpCode.DEFER_ABORT: defer_abort,
    OpCode.STEP_NOT_FOUND: step_not_found,
}

#: Ops whose id names no step.
_NO_STEP = LAZY | ENDS | {OpCode.DISCOVERY_REQUEST, OpCode.STEP_NOT_FOUND}
_RESULTS = frozenset({OpCode.STEP, OpCode.STEP_RUN, OpCode.STEP_FAILED, OpCode.DEFER_ADD, OpCode.DEFER_ABORT})


def on_ops(turn: Turn, reply: Ops) -> list[Effect]:
    """The effects of a 206."""
    start(turn)
    if reply.request_version is not None and turn.sheet.request_version == -1:
        turn.add(SetRequestVersion(reply.request_version))
    if _is_sound(turn, reply.ops):
        ops = _in_order(reply.ops)
        parallel.prepare(turn, ops)
        for op in ops:
            HANDLERS[op.code](turn, op)
            if turn.finish is not None or turn.is_unreadable:
                break
    return conclude(turn)


def _is_sound(turn: Turn, ops: tuple[Op, ...]) -> bool:
    if len(ops) > limits.MAX_OPS_PER_ANSWER:
        message = f"The answer holds {len(ops)} ops; at most {limits.MAX_OPS_PER_ANSWER} are allowed."
        return turn.fail("too_many_steps", "InngestErrFunctionOverflowed", message)
    named = [op.id for op in ops if op.code not in _NO_STEP]
    if len(set(named)) < len(named):
        return turn.fail("duplicate_step", "duplicate_step", "The answer names the same step twice.")
    return True


def _in_order(ops: Iterable[Op]) -> list[Op]:
    """Waits for events first, so that no work of this answer can send an event before its wait exists (23.1).

    Of a list that ends the run only the results before the end count.
    """
    listed = list(ops)
    ends = [at for at, op in enumerate(listed) if op.code in ENDS]
    if ends:
        return [op for op in listed[: ends[0]] if op.code in _RESULTS] + [listed[ends[0]]]
    return sorted(listed, key=lambda op: op.code is not OpCode.WAIT_FOR_EVENT)
