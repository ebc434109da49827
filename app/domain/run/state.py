"""A run as the state machine sees it. Payloads stay outside: only keys, states and counters are here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.ids import FunctionId, RunId
from app.domain.limits import MAX_SLEEP
from app.domain.settings import Backoff


class RunStatus(StrEnum):
    """Where a run is in its life; legal changes are in `RUN_ARROWS`."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


ENDED = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.SKIPPED})


class StepState(StrEnum):
    """What is known of a step; legal changes are in `STEP_ARROWS`."""

    PLANNED = "planned"
    RETRYING = "retrying"
    SLEEPING = "sleeping"
    WAITING = "waiting"
    INVOKING = "invoking"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


SETTLED = frozenset({StepState.COMPLETED, StepState.FAILED, StepState.CANCELLED})


#: Legal arrows of a run. The machine takes no other; a skipped run is made as skipped and never moves.
RUN_ARROWS: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.RUNNING: frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}),
}

_OPENED = frozenset({StepState.PLANNED, StepState.SLEEPING, StepState.WAITING, StepState.INVOKING})
_RESULTS = frozenset({StepState.COMPLETED, StepState.FAILED})

#: Legal arrows of a step; None is a step nobody has heard of. A step is cancelled only by the end of its run.
#: From retrying a step may be opened anew: an inline step that failed can be planned, or be another op after a deploy.
STEP_ARROWS: Mapping[StepState | None, frozenset[StepState]] = {
    None: _OPENED | _RESULTS | {StepState.RETRYING},
    StepState.PLANNED: _RESULTS | {StepState.RETRYING, StepState.CANCELLED},
    StepState.RETRYING: _OPENED | _RESULTS | {StepState.CANCELLED},
    StepState.SLEEPING: frozenset({StepState.COMPLETED, StepState.CANCELLED}),
    StepState.WAITING: _RESULTS | {StepState.CANCELLED},
    StepState.INVOKING: _RESULTS | {StepState.CANCELLED},
}


class StepKind(StrEnum):
    """What the step is, for people; the op that opened it."""

    RUN = "run"
    SLEEP = "sleep"
    WAIT_FOR_EVENT = "wait_for_event"
    WAIT_FOR_SIGNAL = "wait_for_signal"
    INVOKE = "invoke"
    GATEWAY = "gateway"
    AI = "ai"


class ItemKind(StrEnum):
    """What to do when a queue item is leased.

    `DISCOVER` and `STEP` call the app (they take capacity); the timers only make a happening; a gateway item calls
    somebody else and takes no capacity of the function.
    """

    DISCOVER = "discover"  #: call with stepId=step
    STEP = "step"  #: call with stepId=<hash>
    SLEEP = "sleep"  #: a sleep ends: TimerDue
    TIMEOUT = "timeout"  #: a wait expires: TimerDue
    START_TIMEOUT = "start_timeout"  #: the run must have started: DeadlineDue
    FINISH_TIMEOUT = "finish_timeout"  #: the run must have ended: DeadlineDue
    GATEWAY = "gateway"  #: the worker makes a request for a step: Fetched


CALLS = frozenset({ItemKind.DISCOVER, ItemKind.STEP})
TIMERS = frozenset({ItemKind.SLEEP, ItemKind.TIMEOUT})
#: Items that end the run and move no step. They are no reason for a run to go on, so `Run.items` does not show them.
DEADLINES = frozenset({ItemKind.START_TIMEOUT, ItemKind.FINISH_TIMEOUT})


@dataclass(frozen=True, slots=True)
class Step:
    """One step, known by its hashed id.

    `is_member`: belongs to the current pending set (protocol 13.4) and is not settled yet.
    `is_race`: a discovery follows its completion even while siblings are open.
    """

    key: str
    kind: StepKind
    state: StepState
    is_member: bool = False
    is_race: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """A live queue item of the run. `key` is unique in the run's whole life; `attempt` counts from 0 (10.5)."""

    key: str
    kind: ItemKind
    step_key: str | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Defer:
    """A function to be started at the run's end; not pending any more when aborted or rejected. `size` is its input's."""

    is_pending: bool
    size: int = 0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` = retries + 1, 1 … 21. `fixed_delay` replaces every other wait (dev and tests), `backoff` is the
    function's own instead of the table of protocol 14.2.
    """

    max_attempts: int = 5
    fixed_delay: timedelta | None = None
    backoff: Backoff | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The state `advance` decides on.

    `version` grows by one with every committed entry (architecture 5, rule 1); `request_version` is -1 until the
    first 206 (10.4). `is_planned` is the flag `disable_immediate_execution`. `completed` counts settled steps and
    names discoveries; `pending` counts open members of the pending set whose key is `group`. `discoveries` counts the
    discovery items ever enqueued, the first one included, and names those that follow no settled step.
    `steps` and `items` hold everything known, `state_bytes` the sum of the events, and of the memos, inputs and
    options of steps.
    """

    id: RunId
    function_id: FunctionId
    status: RunStatus = RunStatus.QUEUED
    version: int = 0
    request_version: int = -1
    is_planned: bool = False
    completed: int = 0
    pending: int = 0
    group: str | None = None
    discoveries: int = 0
    state_bytes: int = 0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    started_at: datetime | None = None
    max_steps: int = 1000
    #: The longest sleep or wait of the account's plan.
    max_sleep: timedelta = MAX_SLEEP
    #: How long after its start the run is cancelled, None for never.
    finish_within: timedelta | None = None
    #: True for runs of `inngest/function.finished` and `.failed`: they emit no such events (section 6).
    is_quiet: bool = False
    steps: Mapping[str, Step] = field(default_factory=dict)
    items: Mapping[str, Item] = field(default_factory=dict)
    defers: Mapping[str, Defer] = field(default_factory=dict)

    @property
    def is_ended(self) -> bool:
        """Whether nothing can move the run any more."""
        return self.status in ENDED
