"""The ops by which an SDK reports steps (protocol section 12), as values the state machine can read."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class OpCode(StrEnum):
    """Names on the wire. `StepNotFound` is never sent over HTTP by the exercised SDKs (12.2)."""

    NONE = "None"
    STEP = "Step"
    STEP_RUN = "StepRun"
    STEP_ERROR = "StepError"
    STEP_FAILED = "StepFailed"
    STEP_PLANNED = "StepPlanned"
    SLEEP = "Sleep"
    WAIT_FOR_EVENT = "WaitForEvent"
    WAIT_FOR_SIGNAL = "WaitForSignal"
    INVOKE_FUNCTION = "InvokeFunction"
    AI_GATEWAY = "AIGateway"
    GATEWAY = "Gateway"
    RUN_COMPLETE = "RunComplete"
    SYNC_RUN_COMPLETE = "SyncRunComplete"
    DISCOVERY_REQUEST = "DiscoveryRequest"
    DEFER_ADD = "DeferAdd"
    DEFER_ABORT = "DeferAbort"
    STEP_NOT_FOUND = "StepNotFound"


#: Ops that never count as a step and never make a list parallel (12.4).
LAZY = frozenset({OpCode.NONE, OpCode.DEFER_ADD, OpCode.DEFER_ABORT})


@dataclass(frozen=True, slots=True)
class Op:
    """One decoded op. Payload fields are canonical JSON bytes, spliced later and never decoded again.

    `wake_at`/`wake_after`: a sleep's end or a wait's expiry, absolute or relative, whichever the SDK sent (12.3);
    both None when the op has none. `memo` is the value the step will have in `steps` (protocol 10.3), already
    wrapped: `{"data":…}` for a result, `{"error":…}` for an error; None for ops that carry no result yet.
    """

    code: OpCode
    id: str
    name: str
    step_type: str | None = None
    memo: bytes | None = None
    input: bytes | None = None
    wake_at: datetime | None = None
    wake_after: timedelta | None = None
    event: str | None = None
    expression: str | None = None
    signal: str | None = None
    conflict: str | None = None
    function: str | None = None
    payload: bytes | None = None
    is_race: bool = False
    raw_opts: bytes | None = None
