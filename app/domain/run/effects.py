"""What to do, in the imperative. `engine/apply.py` writes them, `fold.py` is their model.

A closed union: `match` over it ends in `assert_never`. All delays are relative to the database time of the commit,
so no process clock decides when something is due.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.run.state import Defer, ItemKind, RunStatus, StepKind, StepState


@dataclass(frozen=True, slots=True)
class StartRun:
    """First answer arrived: queued becomes running."""


@dataclass(frozen=True, slots=True)
class SaveStep:
    """A step is settled for good with `memo` (protocol 10.3), once. Its place in the memo order is given at the commit.

    `state` is COMPLETED or FAILED. A step that already has a memo keeps it. An empty `name` and a None `input` or
    `step_type` keep what the step was opened with (a timer or an event knows only the key). A member of the pending
    set leaves it by this: `pending` falls by one, `completed` grows by one.
    """

    step_key: str
    kind: StepKind
    name: str
    state: StepState
    memo: bytes
    input: bytes | None = None
    step_type: str | None = None


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step is known but not settled: planned, sleeping, waiting, invoking.

    It replaces what is known of a step without a memo (one that was retrying); an empty `name` keeps the name.
    """

    step_key: str
    kind: StepKind
    name: str
    state: StepState
    is_member: bool = False
    is_race: bool = False
    step_type: str | None = None
    opts: bytes | None = None


@dataclass(frozen=True, slots=True)
class RetryStep:
    """An inline or planned step failed and will be tried again: shown as retrying. The item's retry is its own effect."""

    step_key: str
    kind: StepKind
    name: str
    error: bytes


@dataclass(frozen=True, slots=True)
class EnqueueItem:
    """Work in the future or now. At most one of `after` and `at` is set; neither means now.

    A key that exists stays as it is. Every one of kind DISCOVER adds one to the run's `discoveries`.
    """

    key: str
    kind: ItemKind
    step_key: str | None = None
    after: timedelta | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RetryItem:
    """The same item again, `attempt` one higher, after `after`."""

    key: str
    attempt: int
    after: timedelta
    error: bytes


@dataclass(frozen=True, slots=True)
class ResetAttempt:
    """A checkpoint saved progress: the item's attempts count from 0 again (17.2)."""

    key: str


@dataclass(frozen=True, slots=True)
class SettleItem:
    """The item is done and goes."""

    key: str


@dataclass(frozen=True, slots=True)
class OpenPause:
    """Wait for an event (or a signal, or a child). Its timeout is an item of its own (I13).

    `conflict`: what a signal does when another run waits for the same name, `fail` (also None) or `replace` (23.2).
    """

    step_key: str
    kind: StepKind
    event: str | None = None
    expression: str | None = None
    signal: str | None = None
    correlation: str | None = None
    conflict: str | None = None


@dataclass(frozen=True, slots=True)
class ClosePause:
    """The wait has its outcome: `resumed`, `timed_out` or `cancelled`."""

    step_key: str
    outcome: str


@dataclass(frozen=True, slots=True)
class InvokeFunction:
    """Publish the invoked event of a child (23.3). `function` is a slug or a function's UUID."""

    step_key: str
    name: str
    function: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """Keep the request of a gateway step until the step is settled. `opts` may hold credentials: stored sealed only."""

    step_key: str
    opts: bytes


@dataclass(frozen=True, slots=True)
class AddDefer:
    """Start `function` (a slug) with `input` when the run has ended; kept only for people when `defer` is not pending."""

    key: str
    function: str
    input: bytes
    meta: bytes | None
    defer: Defer


@dataclass(frozen=True, slots=True)
class AbortDefer:
    """Do not start it after all."""

    key: str


@dataclass(frozen=True, slots=True)
class SetRequestVersion:
    """The first 206 said which version of the protocol the run speaks, for good (10.4)."""

    version: int


@dataclass(frozen=True, slots=True)
class SetPlanned:
    """Set or clear `disable_immediate_execution`."""

    is_planned: bool


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """A pending set of `size` open members begins (13.4); its steps follow as `OpenStep` with `is_member`."""

    group: str
    size: int


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """An open step is no member any more: `pending` falls by one. A discovery follows its own end.

    Comes before `OpenGroup` when a younger group takes the place of one that still has open members.
    """

    step_key: str


@dataclass(frozen=True, slots=True)
class CloseGroup:
    """No member is open: `group` is none again, `pending` 0."""


@dataclass(frozen=True, slots=True)
class FinishRun:
    """The run ends. `output` is the result, or the error object of a failed run; None when cancelled.

    Apply deletes every item, pause and slot of the run, marks its open steps as cancelled, clears `group` and `pending`,
    emits the lifecycle events (section 6) unless the run is quiet, and starts the
    pending defers.
    """

    status: RunStatus
    output: bytes | None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing changes; journalled so that people see why.

    `ended`: the run is over. `late`: the item or the wait is no longer open. `known`: nothing new was said.
    `unsupported`: a checkpoint holds an op that cannot be saved.
    """

    reason: str


def state_bytes_of(effect: SaveStep | OpenStep) -> int:
    """What an effect adds to the size of its run's state: memos, inputs and options of steps (`Run.state_bytes`)."""
    if isinstance(effect, OpenStep):
        return len(effect.opts or b"")
    return len(effect.memo) + len(effect.input or b"")


Effect = (
    StartRun
    | SaveStep
    | OpenStep
    | RetryStep
    | EnqueueItem
    | RetryItem
    | ResetAttempt
    | SettleItem
    | OpenPause
    | ClosePause
    | InvokeFunction
    | StoreRequest
    | AddDefer
    | AbortDefer
    | SetRequestVersion
    | SetPlanned
    | OpenGroup
    | LeaveGroup
    | CloseGroup
    | FinishRun
    | Ignore
)
