"""The model of what the store writes: a run and its effects in, the run afterwards out.

A test reads runs back from Postgres and compares them with this. `version` is not an effect's business: one commit is
one step of it, whatever the commit holds (`committed`). Times are the database's, so `started_at` stays as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import assert_never

from app.domain.run.effects import (
    AbortDefer,
    AddDefer,
    CloseGroup,
    ClosePause,
    Effect,
    EnqueueItem,
    FinishRun,
    Ignore,
    InvokeFunction,
    LeaveGroup,
    OpenGroup,
    OpenPause,
    OpenStep,
    ResetAttempt,
    RetryItem,
    RetryStep,
    SaveStep,
    SetPlanned,
    SetRequestVersion,
    SettleItem,
    StartRun,
    StoreRequest,
    state_bytes_of,
)
from app.domain.run.state import DEADLINES, SETTLED, Defer, Item, ItemKind, Run, RunStatus, Step, StepState


def fold(run: Run, effect: Effect) -> Run:
    """The run after one effect."""
    return fold_all(run, (effect,))


def fold_all(run: Run, effects: Iterable[Effect]) -> Run:
    """The run after all effects, in order."""
    sheet = Sheet(run)
    for effect in effects:
        sheet.write(effect)
    return sheet.read()


def committed(run: Run, effects: Iterable[Effect]) -> Run:
    """The run after a commit of these effects: they are folded and the version is one higher."""
    sheet = Sheet(run)
    for effect in effects:
        sheet.write(effect)
    sheet.version += 1
    return sheet.read()


def at_version(run: Run, version: int) -> Run:
    """The run as a commit left it, which answered with this version."""
    sheet = Sheet(run)
    sheet.version = version
    return sheet.read()


class Sheet:
    """A run being rewritten: copies its maps once, however many effects follow.

    The handlers read the same sheet while they decide, so a count can never differ from what will be written.
    """

    __slots__ = (
        "_run",
        "completed",
        "defers",
        "discoveries",
        "group",
        "is_planned",
        "items",
        "pending",
        "request_version",
        "state_bytes",
        "status",
        "steps",
        "version",
    )

    def __init__(self, run: Run) -> None:
        self._run = run
        self.version = run.version
        self.status = run.status
        self.request_version = run.request_version
        self.is_planned = run.is_planned
        self.completed = run.completed
        self.pending = run.pending
        self.group = run.group
        self.discoveries = run.discoveries
        self.state_bytes = run.state_bytes
        self.steps: dict[str, Step] = dict(run.steps)
        self.items: dict[str, Item] = dict(run.items)
        self.defers: Mapping[str, Defer] = run.defers

    def read(self) -> Run:
        """The run as written so far."""
        run = self._run
        # Every field by hand, because `replace` takes twice as long and this is done several times for each step.
        return Run(
            run.id,
            run.function_id,
            self.status,
            self.version,
            self.request_version,
            self.is_planned,
            self.completed,
            self.pending,
            self.group,
            self.discoveries,
            self.state_bytes,
            run.retry,
            run.started_at,
            run.max_steps,
            run.max_sleep,
            run.finish_within,
            run.is_quiet,
            self.steps,
            self.items,
            self.defers,
        )

    def write(self, effect: Effect) -> None:
        """Do to the sheet what the store does to the rows."""
        match effect:
            case StartRun():
                self.status = RunStatus.RUNNING
            case SaveStep():
                self._save(effect)
            case OpenStep():
                if not self.is_settled(effect.step_key):
                    self.state_bytes += state_bytes_of(effect)
                    self.steps[effect.step_key] = Step(
                        effect.step_key, effect.kind, effect.state, effect.is_member, effect.is_race
                    )
            case RetryStep():
                self._retry(effect)
            case EnqueueItem():
                if effect.key not in self.items and effect.kind not in DEADLINES:
                    self.items[effect.key] = Item(effect.key, effect.kind, effect.step_key)
                    self.discoveries += effect.kind is ItemKind.DISCOVER
            case RetryItem():
                self.items[effect.key] = replace(self.items[effect.key], attempt=effect.attempt)
            case ResetAttempt():
                self.items[effect.key] = replace(self.items[effect.key], attempt=0)
            case SettleItem():
                self.items.pop(effect.key, None)
            case SetRequestVersion():
                self.request_version = effect.version
            case SetPlanned():
                self.is_planned = effect.is_planned
            case OpenGroup():
                self.group, self.pending = effect.group, effect.size
            case LeaveGroup():
                self.steps[effect.step_key] = replace(self.steps[effect.step_key], is_member=False)
                self.pending -= 1
            case CloseGroup():
                self.group, self.pending = None, 0
            case FinishRun():
                self._finish(effect)
            case AddDefer():
                self.defers = {**self.defers, effect.key: effect.defer}
            case AbortDefer():
                self.defers = {**self.defers, effect.key: replace(self.defers[effect.key], is_pending=False)}
            case OpenPause() | ClosePause() | InvokeFunction() | StoreRequest() | Ignore():
                pass  # rows of their own; the run does not show them
            case _:
                assert_never(effect)

    def is_settled(self, step_key: str) -> bool:
        """Whether the step has its memo, which no effect can change any more."""
        step = self.steps.get(step_key)
        return step is not None and step.state in SETTLED

    def _save(self, effect: SaveStep) -> None:
        if self.is_settled(effect.step_key):
            return
        before = self.steps.get(effect.step_key)
        self.completed += 1
        self.state_bytes += state_bytes_of(effect)
        self.pending -= before is not None and before.is_member
        is_race = before is not None and before.is_race
        self.steps[effect.step_key] = Step(effect.step_key, effect.kind, effect.state, is_race=is_race)

    def _retry(self, effect: RetryStep) -> None:
        if self.is_settled(effect.step_key):
            return
        before = self.steps.get(effect.step_key) or Step(effect.step_key, effect.kind, StepState.RETRYING)
        self.steps[effect.step_key] = replace(before, state=StepState.RETRYING)

    def _finish(self, effect: FinishRun) -> None:
        self.status = effect.status
        self.items.clear()
        self.group, self.pending = None, 0
        for key, step in self.steps.items():
            if step.state not in SETTLED:
                self.steps[key] = replace(step, state=StepState.CANCELLED, is_member=False)
