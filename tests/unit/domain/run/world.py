"""A pretended engine around the state machine: queue, leases, lost and doubled answers; and the laws it watches.

The laws are those of the house style, chapter 5. After every commit each is checked; a breach raises `Breach` with the
whole history, one line per happening.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from app.domain.ids import FunctionId, RunId
from app.domain.protocol.opcodes import Op
from app.domain.protocol.reply import Failed, Reply
from app.domain.run.advance import advance
from app.domain.run.begin import begin
from app.domain.run.effects import (
    ClosePause,
    Effect,
    EnqueueItem,
    FinishRun,
    Ignore,
    OpenPause,
    RetryItem,
    SaveStep,
)
from app.domain.run.fold import committed, fold
from app.domain.run.happenings import (
    CancelRequested,
    Checkpointed,
    Fetched,
    Happening,
    Poisoned,
    Replied,
    Resumed,
    TimerDue,
)
from app.domain.run.keys import of_step
from app.domain.run.state import (
    RUN_ARROWS,
    SETTLED,
    STEP_ARROWS,
    TIMERS,
    ItemKind,
    RetryPolicy,
    Run,
    RunStatus,
    StepState,
)
from tests.unit.domain.run.programs import ERROR, App, Node, Style, needed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RUN_ID = RunId(UUID(int=0x0195_4F00_0000_0000_0000_0000_0000_0001))
FUNCTION_ID = FunctionId(UUID(int=2))
Advance = Callable[[Run, Happening, datetime], list[Effect]]
Arrow = tuple[str, str]

_LONGEST = timedelta(hours=24)
_RESULTS = (StepState.COMPLETED, StepState.FAILED)


class Breach(AssertionError):
    """A law is broken."""


@dataclass
class Call:
    """A call in flight: its item as leased, and what the app will still say."""

    item_key: str
    fence: int
    is_discovery: bool
    script: Iterator[tuple[Op, ...] | Reply]


@dataclass
class World:
    """One run with its app. `faults` is how many happenings may be faulty before everything works as it should."""

    program: tuple[Node, ...]
    style: Style
    seed: int
    faults: int = 40
    decide: Advance | None = None
    arrows: set[Arrow] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.app = App(self.program, self.style if self.faults else _honest(self.style), self.rng)
        policy = RetryPolicy(max_attempts=self.rng.randrange(1, 5) if self.faults else 3)
        self.run = Run(RUN_ID, FUNCTION_ID, retry=policy)
        self.calls: list[Call] = []
        self.fences: dict[str, int] = {}
        self.lines: list[str] = []
        self.keys: set[str] = set()
        self.seen: set[str] = set()
        self.memos: dict[str, bytes] = {}
        self.open_pauses: set[str] = set()
        self.past: list[Happening] = []
        self.finishes = 0

    # ---- the life of the run

    def live(self) -> Run:
        """From the first item to the end; raises `Breach`."""
        self._commit(begin(self.run))
        for turn in range(1_500):
            if self.run.is_ended:
                self._check_after_the_end()
                return self.run
            if turn >= self.faults:
                self.app.style = _honest(self.style)
            if turn < self.faults and self.rng.random() < 0.35:
                self._fault()
            else:
                self._step()
        raise self._breach("law 2: the run does not come to an end")

    def _step(self) -> None:
        """One thing that goes as it should, in any order."""
        leased = {call.item_key for call in self.calls}
        choices: list[Callable[[], None]] = [lambda c=call: self._hear(c) for call in self.calls]  # type: ignore[misc]
        for key, item in self.run.items.items():
            if item.kind in TIMERS:
                choices.append(lambda k=key: self._wake(k))  # type: ignore[misc]
            elif item.kind is ItemKind.GATEWAY:
                choices.append(lambda k=key: self._fetch(k))  # type: ignore[misc]
            elif key not in leased:
                choices.append(lambda k=key: self._call(k))  # type: ignore[misc]
        if not choices:
            raise self._breach("law 2: nothing can move the run")
        self.rng.choice(choices)()

    def _wake(self, key: str) -> None:
        item = self.run.items[key]
        if item.kind is ItemKind.TIMEOUT and item.step_key is not None and self.rng.random() < 0.6:
            is_error = self.run.steps[item.step_key].state is StepState.INVOKING and self.rng.random() < 0.3
            memo = b'{"error":' + ERROR + b"}" if is_error else b'{"data":2}'
            self._happen(Resumed(item.step_key, memo, is_error))
        else:
            self._happen(TimerDue(key))

    def _fetch(self, key: str) -> None:
        if self.rng.random() < 0.4:
            self._happen(Fetched(key, None, ERROR, is_final=self.rng.random() < 0.2))
        else:
            self._happen(Fetched(key, b'{"data":3}'))

    def _call(self, key: str) -> None:
        item = self.run.items[key]
        target = item.step_key if item.kind is ItemKind.STEP else None
        if target is not None and key not in self._checkpointed_targets():
            self._must(target not in self.memos, f"I7: {target} has its outcome and is called again")
        settled = {k: s.state is StepState.COMPLETED for k, s in self.run.steps.items() if s.state in SETTLED}
        self.fences[key] = self.fences.get(key, 0) + 1
        if target is None:
            self.seen |= set(settled)
        is_last = item.attempt + 1 >= self.run.retry.max_attempts
        script = self.app.answer(target, settled, self.run.is_planned, is_last)
        self.calls.append(Call(key, self.fences[key], target is None, script))
        self.lines.append(f"  call {key} attempt {item.attempt}{' planned' if self.run.is_planned else ''}")

    def _hear(self, call: Call) -> None:
        said = next(call.script)
        is_held = call.item_key in self.run.items and self.fences[call.item_key] == call.fence
        if isinstance(said, tuple):
            if not is_held:
                self.calls.remove(call)  # 409: the app stops at once
                return
            if call.is_discovery:
                self.seen |= {op.id for op in said}  # this call has gone past them already
            self._happen(Checkpointed(call.item_key, said))
            return
        self.calls.remove(call)
        # The fence keeps answers of an older lease away from an item that is still there.
        if is_held or call.item_key not in self.run.items:
            self._happen(Replied(call.item_key, said))

    def _fault(self) -> None:
        match self.rng.choices(("lost", "repeat", "late", "early", "cancel", "poison"), (50, 40, 4, 4, 1, 1))[0]:
            case "lost" if self.calls:
                self._lose(self.rng.choice(self.calls))
            case "repeat" if self.past:
                self._repeat(self.rng.choice(self.past))
            case "late":
                self._happen(Replied("nobody", Failed(ERROR, "app_error")))
            case "early" if self.run.steps:
                self._happen(Resumed(self.rng.choice(list(self.run.steps)), b"null"))
            case "cancel":
                self._happen(CancelRequested("api"))
            case "poison":
                self._happen(Poisoned(self.rng.choice(list(self.run.items))))
            case _:
                self._step()

    def _lose(self, call: Call) -> None:
        """The worker died and its lease runs out; or it is only frozen, and will speak later."""
        self.fences[call.item_key] += 1
        self.lines.append(f"  lost {call.item_key}")
        if self.rng.random() < 0.5:
            self.calls.remove(call)
        else:
            self._take_over(call)

    def _take_over(self, zombie: Call) -> None:
        """Another worker calls while the first one, frozen, still holds its answer."""
        if zombie.item_key in self.run.items:
            self._call(zombie.item_key)

    def _repeat(self, happening: Happening) -> None:
        """The same news again, later. What is about a live item is kept away by the fence."""
        if isinstance(happening, (Replied, Checkpointed, Fetched, TimerDue)) and happening.item_key in self.run.items:
            return
        self._happen(happening, is_repeat=True)

    # ---- committing and judging

    def _happen(self, happening: Happening, *, is_repeat: bool = False) -> None:
        decide = self.decide or advance
        self.lines.append(f"{'again ' if is_repeat else ''}{_brief(happening)}")
        effects = decide(self.run, happening, NOW)
        self._must(bool(effects), "every happening has an answer")
        if is_repeat:
            self._must(_is_nothing(effects), "law 3: the same news twice changed something")
        before = self.run
        self._commit(effects)
        self.past.append(happening)
        is_over = isinstance(happening, Replied | Fetched) and happening.item_key not in self.run.items
        if is_over or isinstance(happening, (Resumed, TimerDue)):
            again = decide(self.run, happening, NOW)
            self._must(_is_nothing(again), "law 3: the same news twice in a row changed something")
        if before.is_ended:
            self._must(_is_nothing(effects), "law 1: an ended run moved")

    def _commit(self, effects: list[Effect]) -> None:
        self.lines.extend(f"    {_brief(effect)}" for effect in effects)
        for effect in effects:
            self._check_effect(effect, effects)
            after = fold(self.run, effect)
            self._check_arrows(self.run, after)
            self.run = after
        self.run = committed(self.run, ())
        self._check_run()

    def _check_effect(self, effect: Effect, effects: list[Effect]) -> None:
        match effect:
            case FinishRun():
                self.finishes += 1
                self._must(effect is effects[-1] and self.finishes == 1, "law 1: FinishRun is once, and last")
                self.open_pauses.clear()
            case EnqueueItem():
                self._must(effect.key not in self.keys, f"law 3: the key {effect.key} is used again")
                self._must(not any(isinstance(e, FinishRun) for e in effects), "law 1: no work after the end")
                self.keys.add(effect.key)
            case SaveStep():
                self._must(effect.step_key not in self.memos, f"I6: {effect.step_key} is settled twice")
                self.memos[effect.step_key] = effect.memo
            case RetryItem():
                self._must(0 < effect.attempt < self.run.retry.max_attempts, "law 5: too many attempts")
                self._must(timedelta(seconds=1) <= effect.after <= _LONGEST, "law 5: a delay out of bounds")
            case OpenPause():
                timeouts = [e for e in effects if isinstance(e, EnqueueItem) and e.step_key == effect.step_key]
                self._must(len(timeouts) == 1, "I13: a wait has one timeout")
                self.open_pauses.add(effect.step_key)
            case ClosePause():
                self._must(effect.step_key in self.open_pauses, "I15: a wait has one outcome")
                self.open_pauses.remove(effect.step_key)
            case _:
                pass

    def _check_arrows(self, before: Run, after: Run) -> None:
        if before.status is not after.status:
            self._must(after.status in RUN_ARROWS.get(before.status, ()), f"no arrow {before.status}->{after.status}")
            self.arrows.add((before.status, after.status))
        if before.steps is after.steps:
            return
        for key, step in after.steps.items():
            old = before.steps.get(key)
            if old is None or old.state is not step.state:
                was = None if old is None else old.state
                self._must(step.state in STEP_ARROWS.get(was, ()), f"{key}: no arrow {was}->{step.state}")
                self.arrows.add((str(was), step.state))

    def _check_run(self) -> None:
        run = self.run
        steps = run.steps.values()
        self._must(run.completed == sum(s.state in _RESULTS for s in steps), "completed counts settled steps")
        self._must(run.pending == sum(s.is_member for s in steps), "pending counts open members")
        self._must((run.pending > 0) == (run.group is not None), "a group is open while members are")
        self._must(run.state_bytes >= sum(map(len, self.memos.values())), "state_bytes counts memos")
        if run.is_ended:
            self._must(not run.items, "I22: an ended run has no items")
            return
        self._must(bool(run.items), "law 2: an unfinished run has no live item")
        for step in steps:
            can_wait = step.state is StepState.RETRYING or step.is_race
            if step.state not in SETTLED and not can_wait:
                has_item = any(key in run.items for key in of_step(step.key))
                self._must(has_item, f"law 2: nothing moves {step.key}")
        waiting = {s.key for s in steps if s.state in (StepState.WAITING, StepState.INVOKING)}
        self._must(waiting == self.open_pauses, "I13: open waits have open pauses")
        self._check_seen()

    def _check_seen(self) -> None:
        """Law 4: a settled step is seen by a discovery that starts after it, or one is still to come."""
        unseen = set(self.memos) - self.seen
        if not unseen or self.run.pending > 0:
            return
        leased = {call.item_key for call in self.calls if self.fences[call.item_key] == call.fence}
        to_come = any(i.kind is ItemKind.DISCOVER and k not in leased for k, i in self.run.items.items())
        self._must(to_come or bool(self._checkpointed_targets()), f"law 4: no discovery will see {sorted(unseen)}")

    def _checkpointed_targets(self) -> set[str]:
        """Items of targeted calls that saved their step before answering: their answer is still to come."""
        items = self.run.items.items()
        return {key for key, item in items if item.kind is ItemKind.STEP and item.step_key in self.memos}

    def _check_after_the_end(self) -> None:
        for happening in (*self.past[-20:], CancelRequested("api"), TimerDue("start"), Checkpointed("start", ())):
            effects = (self.decide or advance)(self.run, happening, NOW)
            self._must(effects == [Ignore("ended")], "law 1: an ended run moved")
        if self.run.status is RunStatus.COMPLETED:
            missing = needed(self.program) - set(self.memos)
            self._must(not missing, f"law 4: the function returned without {sorted(missing)}")

    def _must(self, holds: bool, law: str) -> None:
        if not holds:
            raise self._breach(law)

    def _breach(self, law: str) -> Breach:
        history = "\n".join(self.lines)
        return Breach(f"{law}\nprogram {self.program}\nstyle {self.style}\nseed {self.seed}\n{history}")


def _honest(style: Style) -> Style:
    return Style(style.version, style.checkpoints, style.reports_losers, style.is_go, style.flushes)


def _is_nothing(effects: list[Effect]) -> bool:
    return all(isinstance(effect, Ignore) for effect in effects)


def _brief(thing: object) -> str:
    """A dataclass without its unset fields."""
    fields = getattr(thing, "__dataclass_fields__", {})
    if not fields:
        return str(thing)
    shown = []
    for name in fields:
        value = getattr(thing, name)
        if value not in (None, "", False, ()):
            inner = ", ".join(map(_brief, value)) if isinstance(value, tuple) else _brief(value)
            shown.append(f"{name}={inner}")
    return f"{type(thing).__name__}({' '.join(shown)})"
