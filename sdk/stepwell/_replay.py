"""The replay core: decides what one call does, knowing neither threads nor event loops.

    user code ── wish ──► discover ──► Slot ──► known already? its outcome goes back to user code, in stack order
                                         │ no
                                   user code stands still (the shell notices)
                                         ▼
                                      decide ──► Release   another saved outcome may go back
                                             ├─► Execute   the shell runs the step ──► settle ──► Save | Answer
                                             ├─► Answer    the call ends here; user code is unwound
                                             ├─► Missing   the step this call is for has not turned up
                                             └─► None      nothing asked for: user code is busy with something else

A function runs from its start on every call. Steps it asks for are recognised by a hash of their id and the number of
times that id was used before, so the order of asking must not depend on anything that changes from call to call.

Who is authoritative for what: the server for results and the order in which steps finished (`stack`); this module for what
is reported; the shells (`_async_shell`, `_sync_shell`) for noticing that user code stands still.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell import _answer, _json
from stepwell._answer import Answer
from stepwell._call import Call
from stepwell._errors import NonRetriableError, StepError, UnserializableError


@dataclass(frozen=True)
class Wish:
    """A step user code asks for."""

    id: str
    op: str
    """`StepRun` for code to execute here, otherwise what the server shall do: `Sleep`, `WaitForEvent`, `InvokeFunction`."""
    name: str | None = None
    opts: Mapping[str, Any] = field(default_factory=dict)
    work: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    wants_key: bool = False
    """Call `work` with the hashed step id, which is the same on every attempt, instead of `args`."""
    shape: Callable[[Any], Any] | None = None
    """Turns the memo into what user code gets; left out: the memo as it is."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended: a value, or the error to raise in user code."""

    value: Any = None
    error: BaseException | None = None

    def unwrap(self) -> Any:
        """Give the value, or raise a fresh copy of the stored error, so that its traceback starts in user code."""
        if isinstance(self.error, StepError):
            raise StepError(self.error.details)
        if self.error is not None:
            raise self.error
        return self.value


class Slot:
    """One use of one step id in this call."""

    def __init__(self, wish: Wish, hashed_id: str, index: int, race: bool) -> None:
        self.wish = wish
        self.hashed_id = hashed_id
        self.index = index
        self.race = race
        self.memo: Outcome | None = None
        self.outcome: Outcome | None = None
        self.args = (hashed_id,) if wish.wants_key else wish.args

    @property
    def is_run(self) -> bool:
        """Whether its work is done by this SDK."""
        return self.wish.op == "StepRun"

    def settle_from(self, memo: Any) -> None:
        """Read a memo (protocol 10.3): exactly `data`, `error` or `input` is unwrapped, all else is the value itself."""
        if isinstance(memo, dict) and len(memo) == 1:
            if "data" in memo:
                memo = memo["data"]
            elif "error" in memo:
                details = memo["error"] if isinstance(memo["error"], dict) else {"message": str(memo["error"])}
                self.memo = Outcome(error=StepError(details))
                return
            elif isinstance(memo.get("input"), list):
                self.args = tuple(memo["input"])
                return
        self.memo = Outcome(self.wish.shape(memo) if self.wish.shape else memo)

    def to_op(self, op: str, **content: Any) -> dict[str, Any]:
        """Write the step as an op (protocol 12.1)."""
        userland: dict[str, Any] = {"id": self.wish.id}
        if self.index:
            userland["index"] = self.index
        opts = dict(self.wish.opts)
        if self.race and op == "StepPlanned":
            opts["parallelMode"] = "race"
        written: dict[str, Any] = {
            "id": self.hashed_id,
            "op": op,
            "name": self.wish.name or self.wish.id,
            "displayName": self.wish.id,
            "userland": userland,
            "opts": opts,
            "data": None,
        }
        return {**written, **content}

    def to_plan(self) -> dict[str, Any]:
        """Report the step without executing it."""
        return self.to_op("StepPlanned" if self.is_run else self.wish.op)


@dataclass(frozen=True)
class Release:
    """The slot's outcome is set; wake the user code that waits for it."""

    slot: Slot


@dataclass(frozen=True)
class Execute:
    """Run the step's work, then call `settle` with how it ended."""

    slot: Slot


@dataclass(frozen=True)
class Save:
    """Checkpoint these ops, then call `saved` if the server took them."""

    slot: Slot
    ops: list[dict[str, Any]]


@dataclass(frozen=True)
class Missing:
    """The targeted step was not found among those user code asks for; `answer` says so, to be tried again."""

    answer: Answer


def hash_step_id(step_id: str, index: int) -> str:
    """The id of the n-th use (from 0) of a step id (protocol 4.6)."""
    text = f"{step_id}:{index}" if index else step_id
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Replay:
    """The state of one call. Not safe for threads: one caller at a time."""

    def __init__(self, call: Call, *, checkpointing: bool = False) -> None:
        self._call = call
        self._checkpointing = checkpointing and call.may_checkpoint
        self._uses: Counter[str] = Counter()
        self._open: dict[str, Slot] = {}
        self._seen: set[str] = set()
        self._order = {step: place for place, step in enumerate(call.stack)}
        self._next = 0
        self.attempt = call.attempt
        self.changes = 0
        """Grows with every discovery and release; a shell that sees it stand still may ask `decide`."""

    @property
    def is_waiting(self) -> bool:
        """Whether user code waits for any step."""
        return bool(self._open)

    def discover(self, wish: Wish, *, race: bool = False) -> Slot:
        """Take in a step user code asks for; `race` when it stands in a race group."""
        index = self._uses[wish.id]
        self._uses[wish.id] += 1
        slot = Slot(wish, hash_step_id(wish.id, index), index, race)
        if slot.hashed_id in self._seen:
            raise NonRetriableError(
                f"The step id {wish.id!r} collides with another use of {wish.id.partition(':')[0]!r}: "
                "do not end step ids with a colon and a number."
            )
        self._seen.add(slot.hashed_id)
        if slot.hashed_id in self._call.steps:
            slot.settle_from(self._call.steps[slot.hashed_id])
        self._open[slot.hashed_id] = slot
        self.changes += 1
        return slot

    def withdraw(self, slot: Slot) -> None:
        """User code no longer waits for this step (it lost a race, or was cancelled)."""
        if self._open.get(slot.hashed_id) is slot:
            del self._open[slot.hashed_id]
            self.changes += 1

    def release_ready(self) -> list[Slot]:
        """Release every slot whose turn it is: those next in stack order, overtaken, or without a place in it."""
        ready = [slot for slot in self._open.values() if slot.memo and self._place(slot) < self._next]
        for slot in ready:
            self._release(slot)
        while self._next < len(self._call.stack):
            slot_or_none = self._open.get(self._call.stack[self._next])
            if slot_or_none is None or slot_or_none.memo is None:
                break
            self._release(slot_or_none)
            ready.append(slot_or_none)
        return ready

    def decide(self, *, expired: bool = False) -> Release | Execute | Answer | Missing | None:
        """Say what to do while user code stands still; `expired` when the call has checkpointed for long enough."""
        known = [slot for slot in self._open.values() if slot.memo]
        if known:
            first = min(known, key=self._place)
            self._release(first)
            return Release(first)
        fresh = list(self._open.values())
        if not fresh:
            return None
        if self._call.target is not None:
            return self._decide_targeted(fresh)
        if len(fresh) == 1 and fresh[0].is_run and not self._call.plan_only and not expired:
            return Execute(fresh[0])
        return _answer.report([slot.to_plan() for slot in fresh])

    def settle(self, slot: Slot, outcome: Outcome, started_ns: int) -> Save | Answer:
        """Take the end of a step's work; `started_ns` is unix time in nanoseconds."""
        timing = {"a": started_ns, "b": max(0, time.time_ns() - started_ns)}
        if outcome.error is not None:
            return self._report_error(slot, outcome.error, timing)
        try:
            body = _json.encode(outcome.value)
        except UnserializableError as error:
            return self._report_error(slot, error, timing)
        op = slot.to_op("StepRun", data=_json.raw(body), timing=timing, **self._input(slot))
        # User code gets the value as every later call will see it: written as JSON and read again.
        value = _json.decode(body)
        slot.memo = Outcome(slot.wish.shape(value) if slot.wish.shape else value)
        return Save(slot, [op]) if self._checkpointing else _answer.report([op])

    def saved(self, slot: Slot) -> None:
        """The server has kept the step's result, so user code may have it. The next step starts at attempt 0 (17.2)."""
        self.attempt = 0
        self._release(slot)

    def _decide_targeted(self, fresh: Sequence[Slot]) -> Execute | Answer | Missing:
        for slot in fresh:
            if slot.hashed_id == self._call.target:
                return Execute(slot) if slot.is_run else _answer.report([slot.to_plan()])
        names = ", ".join(repr(slot.wish.id) for slot in fresh)
        return Missing(
            _answer.refusal(
                500,
                "StepNotFound",
                f"The call is for step {self._call.target}, but the function asks for {names}. Was its code changed while "
                "the run was going on? Then give changed steps new ids.",
                retry=True,
            )
        )

    def _report_error(self, slot: Slot, error: BaseException, timing: Mapping[str, int]) -> Answer:
        last = self._call.max_attempts is not None and self.attempt + 1 >= self._call.max_attempts
        final = last or isinstance(error, (NonRetriableError, StepError))
        _answer.tell(f"Step {slot.wish.id!r}", error)
        op = slot.to_op("StepFailed" if final else "StepError", error=_answer.describe(error), timing=timing)
        return _answer.report([op], _answer.retry_headers(error, final=final))

    def _input(self, slot: Slot) -> dict[str, Any]:
        """Report the arguments, for the run's page, where they have a JSON form."""
        if slot.wish.wants_key or not slot.args:
            return {}
        try:
            return {"opts": {**slot.wish.opts, "input": _json.raw(_json.encode(list(slot.args)))}}
        except UnserializableError:
            return {}

    def _place(self, slot: Slot) -> int:
        return self._order.get(slot.hashed_id, -1)

    def _release(self, slot: Slot) -> None:
        self._next = max(self._next, self._place(slot) + 1)
        self._open.pop(slot.hashed_id, None)  # It is gone when user code stopped waiting while the step was executed.
        slot.outcome = slot.memo
        self.changes += 1
