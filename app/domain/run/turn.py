"""One happening being answered: what came in, what has been decided so far, and the run as it would then be.

Handlers get a turn, look at `turn.sheet` and call `add`, `open`, `save`, `fail`. How a turn ends (settle or retry the
item, close the group, enqueue a discovery, finish) is decided once, in `finish.py`, for all of them.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.domain import limits
from app.domain.protocol.error_object import made_error
from app.domain.run import keys
from app.domain.run.effects import (
    Effect,
    FinishRun,
    OpenStep,
    RetryItem,
    RetryStep,
    SaveStep,
    SettleItem,
    state_bytes_of,
)
from app.domain.run.fold import Sheet
from app.domain.run.state import SETTLED, Item, Run, RunStatus, Step, StepState

#: States in which a result reported by the app is news; a timer or an event ends the others.
_AWAITS_RESULT = frozenset({StepState.PLANNED, StepState.RETRYING})

_WAITS = frozenset({StepState.WAITING, StepState.INVOKING})
_WRAPPER = len(b'{"error":}')  # what a memo adds to the output the limit is about


@dataclass(slots=True)
class Turn:
    """`item` is the queue item this turn settles or retries; None when nothing of the kind is due (a checkpoint).

    `no_retry` and `retry_after` are what the answer said about retries. `members` are the steps of the group this answer
    opens. `settled` are the steps that got their memo in this turn, as they were before (None: unknown until now).
    `asks_again`: a discovery is wanted although no step may have settled. `is_unreadable`: the answer makes no sense.
    """

    run: Run
    now: datetime
    item: Item | None = None
    no_retry: bool | None = None
    retry_after: timedelta | None = None
    members: frozenset[str] = frozenset()
    asks_again: bool = False
    is_unreadable: bool = False
    retry: RetryItem | None = None
    finish: FinishRun | None = None
    effects: list[Effect] = field(default_factory=list)
    settled: dict[str, Step | None] = field(default_factory=dict)
    sheet: Sheet = field(init=False)

    def __post_init__(self) -> None:
        self.sheet = Sheet(self.run)

    def add(self, *effects: Effect) -> None:
        """Decide on these: the sheet shows them at once."""
        for effect in effects:
            self.sheet.write(effect)
            self.effects.append(effect)

    def is_new(self, step_key: str) -> bool:
        """Whether an op may open this step.

        True for a step nobody has heard of, and for one that failed inline: its discovery is called again, perhaps
        under the plan flag, and then the step is reported as any other new one. Everything else is a repeated report
        (protocol 13.3), and the first one counts.
        """
        step = self.sheet.steps.get(step_key)
        if step is None:
            return True
        inline = step.state is StepState.RETRYING and not step.is_race
        return inline and not any(key in self.sheet.items for key in keys.of_step(step_key))

    def takes_result(self, step_key: str) -> bool:
        """Whether a result for this step is the first one."""
        step = self.sheet.steps.get(step_key)
        return step is None or step.state in _AWAITS_RESULT

    def is_settled(self, step_key: str) -> bool:
        """Whether the step has its memo, those of this turn included."""
        return self.sheet.is_settled(step_key)

    def open(self, effect: OpenStep) -> bool:
        """Make a step known; False when that ends the run."""
        if not self._admit(effect.step_key) or not self._has_room(effect) or not self._may_wait(effect):
            return False
        self.add(effect)
        return True

    def save(self, effect: SaveStep) -> bool:
        """Settle a step for good, and the items it has of its own: it is not called again (I7). False: the run ends."""
        if not self._admit(effect.step_key):
            return False
        if len(effect.memo) > limits.MAX_OUTPUT_BYTES + _WRAPPER:
            return self.fail("output_too_large", "output_too_large", "A step's result is larger than 4 MiB.")
        if not self._has_room(effect):
            return False
        self.settled[effect.step_key] = self.sheet.steps.get(effect.step_key)
        self.add(effect)
        for key in keys.of_step(effect.step_key):
            if key in self.sheet.items and (self.item is None or key != self.item.key):
                self.add(SettleItem(key))
        return True

    def show_retry(self, step_key: str, effect: RetryStep) -> bool:
        """Show a step as failed for now; False when making it known ends the run."""
        if not self._admit(step_key):
            return False
        self.add(effect)
        return True

    def fail(self, code: str, name: str, message: str) -> bool:
        """End the run as failed with an error of our own. Returns False, so that a handler can return it."""
        self.finish = FinishRun(RunStatus.FAILED, made_error(name, message), code)
        return False

    def _may_wait(self, effect: OpenStep) -> bool:
        most = limits.MAX_OPEN_WAITS_PER_RUN
        if effect.state not in _WAITS or len(self.sheet.steps) < most:
            return True
        if sum(step.state in _WAITS for step in self.sheet.steps.values()) < most:
            return True
        return self.fail("too_many_waits", "too_many_waits", f"A run may have {most} open waits at once.")

    def _has_room(self, effect: SaveStep | OpenStep) -> bool:
        if self.sheet.state_bytes + state_bytes_of(effect) <= limits.MAX_STATE_BYTES:
            return True
        message = "The state of the run is larger than 32 MiB."
        return self.fail("state_too_large", "InngestErrStateOverflowed", message)

    def _admit(self, step_key: str) -> bool:
        if step_key in self.sheet.steps or len(self.sheet.steps) < self.run.max_steps:
            return True
        message = f"The function run exceeded the step limit of {self.run.max_steps} steps."
        return self.fail("too_many_steps", "InngestErrFunctionOverflowed", message)


def open_members(sheet: Sheet) -> list[str]:
    """Steps the pending set still waits for."""
    return [key for key, step in sheet.steps.items() if step.is_member and step.state not in SETTLED]
