"""Whether an answer opens parallel work: the plan flag and the pending set (protocol 13.4)."""

from collections.abc import Sequence

from app.domain.protocol.opcodes import ENDS, LAZY, Op, OpCode
from app.domain.run import keys
from app.domain.run.effects import LeaveGroup, OpenGroup, SetPlanned
from app.domain.run.turn import Turn, open_members

#: Results alone are a flush of what ran in sequence (protocol 28, 35). An SDK that sees several new steps runs none.
_RESULTS = frozenset({OpCode.STEP, OpCode.STEP_RUN, OpCode.STEP_ERROR, OpCode.STEP_FAILED})
_SILENT = LAZY | {OpCode.DISCOVERY_REQUEST}
_GROUPING_VERSION = 2


def prepare(turn: Turn, ops: Sequence[Op]) -> None:
    """Set the plan flag and begin a group where the list asks for it; runs before the ops themselves.

    Members are the steps this answer makes known. Siblings reported again are not: they belong to an older group or to
    none, and the new branch need not wait for them.
    """
    told = [op for op in ops if op.code not in _SILENT and not turn.is_settled(op.id)]
    if len(told) < 2 or all(op.code in _RESULTS for op in told) or any(op.code in ENDS for op in told):
        return
    if not turn.sheet.is_planned:
        turn.add(SetPlanned(is_planned=True))
    new = [op for op in told if turn.is_new(op.id)]
    is_group = len(new) > 1 and any(op.code is OpCode.STEP_PLANNED for op in new)
    if turn.sheet.request_version >= _GROUPING_VERSION and is_group:
        _begin_group(turn, new)


def _begin_group(turn: Turn, new: Sequence[Op]) -> None:
    """A run has one group; members of an older one that are still open then go on each by itself, as in version 1."""
    turn.add(*(LeaveGroup(key) for key in open_members(turn.sheet)))
    turn.members = frozenset(op.id for op in new if op.code not in _RESULTS)
    turn.add(OpenGroup(keys.group(turn.run.id, [op.id for op in new]), len(turn.members)))
