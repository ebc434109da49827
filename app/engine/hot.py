"""A run in memory: its state, its payloads, and the facts about it that the state machine does not decide on.

Truth is the row. What is here is a copy that is trusted only with the version that a commit or a lease answered
(architecture 5, rule 3); whoever finds it stale reloads it.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.domain.backoff import read_backoff
from app.domain.ids import AppId, EventId, FunctionId, ItemId, LaneId, LeaseId, RunId
from app.domain.limits import plan_of
from app.domain.run.effects import Effect, SaveStep
from app.domain.run.fold import at_version
from app.domain.run.state import SETTLED, Defer, Item, ItemKind, RetryPolicy, Run, RunStatus, Step, StepKind, StepState
from app.domain.scope import Scope


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays the same during the whole run."""

    scope: Scope
    app_id: AppId
    function_id: FunctionId
    function_slug: str
    environment_name: str
    lane_id: LaneId
    event_id: EventId
    #: Canonical JSON of the event as apps receive it; `events` holds all of a batch, the first included.
    event: bytes
    events: tuple[bytes, ...]
    queued_at: datetime
    is_limited: bool = False
    parent_run_id: RunId | None = None
    parent_step_key: str | None = None


@dataclass(frozen=True, slots=True)
class LeasedItem:
    """The right to make the call of one item and to settle it, until the worker's lease ends."""

    id: ItemId
    key: str
    kind: ItemKind
    step_key: str | None
    attempt: int
    fence: int
    lease_id: LeaseId
    redeliveries: int = 0
    #: When it came due, for the queue time people see.
    due_at: datetime | None = None
    #: When it came due at first, if it was put aside since because its app did not answer.
    held_due: datetime | None = None


@dataclass(slots=True)
class HotRun:
    """A run this process holds a lease of. `memos` keeps the settled steps in memo order.

    `inputs` are the edited arguments of steps that are still to run, JSON lists by step key (replays only).
    """

    run: Run
    facts: Facts
    memos: dict[str, bytes] = field(default_factory=dict)
    inputs: dict[str, bytes] = field(default_factory=dict)
    #: The database's time of the newest commit or read: everything that the run has seen came in before it.
    seen_at: datetime | None = None

    def heard(self, now: datetime) -> datetime:
        """When an answer that is here now was heard. `now` is a guess that may lag; it never reaches behind what the
        run has seen, or a wait could be ended by the event that ended the one before it.
        """
        return now if self.seen_at is None else max(now, self.seen_at)

    def remember(self, run: Run, effects: list[Effect], version: int, now: datetime) -> None:
        """Take over what a commit has written: only after it answered "won" (rule 3)."""
        self.seen_at = now
        for effect in effects:
            if isinstance(effect, SaveStep):
                self.memos.setdefault(effect.step_key, effect.memo)
        self.run = at_version(run, version)

    def told_steps(self) -> list[tuple[str, bytes]]:
        """What a call says about steps: the memos, and the edited inputs of steps that have none yet (protocol 10.3)."""
        edited = [(key, b'{"input":' + given + b"}") for key, given in self.inputs.items() if key not in self.memos]
        return [*self.memos.items(), *edited]


def hot_run(row: Any, retry_delay: timedelta | None) -> HotRun:
    """Build it from a row of `load` (sql/lease.sql). `retry_delay` is the fixed delay of dev and tests, or None."""
    steps: dict[str, Step] = {}
    memos: dict[str, bytes] = {}
    inputs: dict[str, bytes] = {}
    for key, kind, state, member, race, memo, given in zip(
        row["keys"] or (),
        row["kinds"] or (),
        row["states"] or (),
        row["members"] or (),
        row["races"] or (),
        row["memos"] or (),
        row["inputs"] or (),
        strict=True,
    ):
        steps[key] = Step(key, StepKind(kind), StepState(state), member and StepState(state) not in SETTLED, race)
        if memo is not None:
            memos[key] = memo.encode()
        if given is not None:
            inputs[key] = given.encode()
    items = {
        key: Item(key, ItemKind(kind), step, attempt)
        for key, kind, step, attempt in zip(
            row["item_keys"] or (),
            row["item_kinds"] or (),
            row["item_steps"] or (),
            row["item_attempts"] or (),
            strict=True,
        )
    }
    plan = plan_of(row["plan"])
    run = Run(
        id=row["id"],
        function_id=row["function_id"],
        status=RunStatus(row["status"]),
        version=row["version"],
        request_version=row["request_version"],
        is_planned=row["is_planned"],
        completed=row["completed"],
        pending=row["pending"],
        group=row["group_key"],
        discoveries=row["discoveries"],
        state_bytes=row["state_bytes"],
        retry=RetryPolicy(row["max_attempts"], retry_delay, read_backoff(row["backoff"])),
        started_at=row["started_at"],
        max_steps=plan.steps_per_run,
        max_sleep=plan.max_sleep,
        is_quiet=row["is_quiet"],
        finish_within=row["finish_within"],
        steps=steps,
        items=items,
        defers={
            key: Defer(state == "pending", 0 if state == "rejected" else size)
            for key, state, size in zip(
                row["defer_keys"] or (), row["defer_states"] or (), row["defer_sizes"] or (), strict=True
            )
        },
    )
    event: bytes = (row["event"] or "{}").encode()
    facts = Facts(
        scope=Scope(row["account_id"], row["environment_id"]),
        app_id=row["app_id"],
        function_id=row["function_id"],
        function_slug=row["slug"],
        environment_name=row["environment_name"],
        lane_id=row["lane_id"],
        event_id=row["event_id"],
        event=event,
        events=(event, *(more.encode() for more in row["more_events"] or ())),
        queued_at=row["queued_at"],
        # From the lane, not from what this process has seen of functions: a worker that just started knows nothing.
        is_limited=row["is_limited"],
        parent_run_id=row["parent_run_id"],
        parent_step_key=row["parent_step_key"],
    )
    return HotRun(run, facts, memos, inputs, row["now"])
