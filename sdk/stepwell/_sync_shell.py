"""Drives a plain `def` function through one call.

The function runs in the caller's thread, each branch of a parallel group in a thread of its own, but only one of these
strands runs at a time: who holds the baton. A strand that waits for a step hands the baton to the next one that can go on;
if there is none, user code stands still, and whoever holds the baton carries out what the replay core decides. So branches
meet their steps in the same order on every call, and nothing here needs a lock.
"""

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from stepwell import _answer
from stepwell._answer import Answer
from stepwell._errors import Interrupted, NestedStepError, NonRetriableError
from stepwell._execute import Budget, Checkpoint, attempt, conclude
from stepwell._replay import Execute, Missing, Outcome, Release, Replay, Slot, Wish
from stepwell._step import Mode
from stepwell._wishes import in_race, inside_step


class _Strand:
    """A thread of user code that may hold the baton."""

    def __init__(self) -> None:
        self.turn = threading.Event()
        self.slot: Slot | None = None
        self.branches: list[_Strand] = []
        self.outcome: Outcome | None = None
        self.is_cut = False


class SyncShell:
    """One call of one plain function."""

    def __init__(self, replay: Replay, checkpoint: Checkpoint) -> None:
        self._replay = replay
        self._checkpoint = checkpoint
        self._budget = Budget()
        self._runnable: deque[_Strand] = deque()
        self._waiting: dict[Slot, _Strand] = {}
        self._contexts: dict[Slot, contextvars.Context] = {}
        self._holder = _Strand()
        self._answer: Answer | None = None

    def run(self, function: Callable[[], Any]) -> Answer:
        """Run user code until the answer to the call is known; blocks the thread."""
        try:
            value = function()
            if hasattr(value, "__await__"):
                raise NonRetriableError(
                    "The function returned a coroutine but was not declared with `async def`: a decorator hides it."
                )
            return self._answer or _answer.result(value)
        except Interrupted:
            assert self._answer is not None
            return self._answer
        except Exception as error:  # noqa: BLE001  a failure of user code is the answer
            return self._answer or _answer.failure(error)

    def ask(self, wish: Wish) -> Any:
        """Serve a step to user code; see `SyncStep`."""
        if inside_step.get():
            raise NestedStepError
        me = self._holder
        self._check(me)
        slot = self._replay.discover(wish, race=in_race.get())
        me.slot = slot
        self._waiting[slot] = me
        self._contexts[slot] = contextvars.copy_context()
        self._pass_baton(me)
        me.slot = None
        self._check(me)
        assert slot.outcome is not None
        return slot.outcome.unwrap()

    def parallel(self, branches: Sequence[Callable[[], Any]], mode: Mode) -> Any:
        """Serve a group to user code; see `Step.parallel`."""
        if not branches:
            return ()
        me = self._holder
        self._check(me)
        ended: list[_Strand] = []
        me.branches = [_Strand() for _ in branches]
        for strand, branch in zip(me.branches, branches, strict=True):
            args = (strand, me, branch, mode, ended)
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._run_branch, *args), daemon=True).start()
        strands = me.branches
        self._runnable.extend(strands)
        self._pass_baton(me)
        me.branches = []
        self._check(me)
        outcomes = [strand.outcome or Outcome() for strand in (ended[:1] if mode == "race" else strands)]
        values = tuple(outcome.unwrap() for outcome in outcomes)
        return values[0] if mode == "race" else values

    def _run_branch(
        self, me: _Strand, parent: _Strand, branch: Callable[[], Any], mode: Mode, ended: list[_Strand]
    ) -> None:
        me.turn.wait()
        me.turn.clear()
        in_race.set(in_race.get() or mode == "race")
        try:
            self._check(me)
            me.outcome = Outcome(branch())
        except BaseException as error:  # noqa: BLE001  handed to the strand that waits for the group
            me.outcome = Outcome(error=error)
        ended.append(me)
        if len(ended) == len(parent.branches):
            self._runnable.append(parent)
        elif mode == "race":
            for other in parent.branches:
                self._cut(other)
        self._pass_baton(None)

    def _cut(self, strand: _Strand) -> None:
        """End a strand that lost a race; the steps it waits for are no longer wanted."""
        strand.is_cut = True
        if strand.slot is not None and strand.slot in self._waiting:
            del self._waiting[strand.slot]
            self._replay.withdraw(strand.slot)
            self._runnable.append(strand)
        for branch in strand.branches:
            self._cut(branch)

    def _check(self, strand: _Strand) -> None:
        if self._answer is not None or strand.is_cut:
            raise Interrupted

    def _pass_baton(self, me: _Strand | None) -> None:
        """Let the next strand run; comes back when it is this one's turn again (`None`: this strand has ended)."""
        while not self._runnable:
            self._act()
        following = self._runnable.popleft()
        self._holder = following
        if following is me:
            return
        following.turn.set()
        if me is not None:
            me.turn.wait()
            me.turn.clear()

    def _act(self) -> None:
        """User code stands still: carry out what the core decides."""
        try:
            decision = self._replay.decide(expired=self._budget.is_spent)
            match decision:
                case Release(slot):
                    self._wake(slot)
                case Execute(slot):
                    self._execute(slot)
                case Missing(answer):
                    self._stop(answer)
                case Answer():
                    self._stop(decision)
                case None:
                    raise RuntimeError("user code stands still without waiting for a step")
        except Exception as error:  # noqa: BLE001  whatever goes wrong here, waiting strands must be let go
            self._stop(_answer.refusal(500, "InternalError", f"The SDK failed: {error}", retry=True))

    def _execute(self, slot: Slot) -> None:
        started_ns = time.time_ns()
        work = slot.wish.work
        assert work is not None
        outcome = self._contexts.pop(slot).run(attempt, work, slot.args)
        if hasattr(outcome.value, "__await__"):
            close = getattr(outcome.value, "close", None)
            if close is not None:
                close()
            outcome = Outcome(
                error=TypeError("A step of a plain function returned a coroutine. Use `async def` for both.")
            )
        following = self._replay.settle(slot, outcome, started_ns)
        if not isinstance(following, Answer):
            concluded = conclude(self._replay, following, self._checkpoint(following.ops))
            if isinstance(concluded, Slot):
                self._wake(concluded)
                return
            following = concluded
        self._stop(following)

    def _wake(self, slot: Slot) -> None:
        self._contexts.pop(slot, None)
        self._runnable.append(self._waiting.pop(slot))

    def _stop(self, answer: Answer) -> None:
        """The answer is known: let every waiting strand unwind."""
        self._answer = answer
        self._runnable.extend(self._waiting.values())
        self._waiting.clear()
