"""Effects become rows of a batch: one case per effect, no decision about run state.

Reads an entry from `transition`, writes tuples into `store.commit.Batch`. History is written here, from the same
effects as the state, so the two cannot disagree (D16).
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

import msgspec

from app.domain.errors import Bug
from app.domain.ids import ItemId, LeaseId, WorkerId, derive_item_id
from app.domain.matching import stored_wait
from app.domain.run import effects as fx
from app.domain.run.fold import Sheet
from app.domain.run.state import CALLS, SETTLED, ItemKind, Run, StepKind
from app.domain.scope import Scope
from app.engine.hot import Facts, LeasedItem
from app.engine.lifecycle import InternalEvent, event_of_defer, event_of_invoke, events_of_end
from app.store.commit import Batch

_encode = msgspec.json.encode
_REQUESTS = (StepKind.GATEWAY, StepKind.AI)


@dataclass(frozen=True, slots=True)
class Told:
    """A history row that no effect implies: an answered call, a late answer."""

    kind: str
    step_key: str | None = None
    item_key: str | None = None
    attempt: int | None = None
    started_at: datetime | None = None
    detail: bytes | None = None


@dataclass(slots=True)
class Entry:
    """One run's change: what was expected, what is to be written, and who goes on."""

    run: Run
    facts: Facts
    effects: list[fx.Effect]
    #: Items whose fences guard the entry; their leases end with it unless one is handed over.
    leases: Sequence[LeasedItem] = ()
    told: Sequence[Told] = ()
    #: The worker that wants the successors; None leaves them ready for anyone.
    worker_id: WorkerId | None = None
    #: How many successors that worker may take.
    room: int = 0
    expects_version: bool = True
    #: When the engine heard of what happened: waits count from then (rule 15). None: from the commit.
    heard_at: datetime | None = None
    #: Whether calls of the function take slots, as far as the run or the process knows.
    is_limited: bool = False
    #: Seals what may hold credentials, for one tenant; only workers, whose answers open gateway steps, have one.
    seal: Callable[[str, Scope], bytes] | None = None
    #: Filled by `write`: the state after, and the items now leased to `worker_id`.
    after: Run | None = None
    successors: list[LeasedItem] = field(default_factory=list)
    emits: bool = False
    readies: bool = False


def write(batch: Batch, n: int, entry: Entry, now: datetime) -> None:
    """Turn the entry into rows number `n` of the batch; `now` only dates the events that an end publishes."""
    _Writer(batch, n, entry, now).write()


class _Writer:
    def __init__(self, batch: Batch, n: int, entry: Entry, now: datetime) -> None:
        self.batch, self.n, self.entry, self.now = batch, n, entry, now
        #: The run as it was, and what has become of it so far.
        self.run = entry.run
        self.sheet = Sheet(entry.run)
        self.position = 0
        self.place = 0
        self.bytes = 0
        self.starts = False
        self.finish: fx.FinishRun | None = None
        self.steps: dict[str, tuple[Any, ...]] = {}
        self.items: list[fx.EnqueueItem] = []
        self.retries: dict[str, fx.RetryItem | fx.ResetAttempt] = {}
        self.settled: set[str] = set()
        self.pauses: list[tuple[object, ...]] = []
        self.requests: list[tuple[object, ...]] = []
        self.defers: dict[str, fx.AddDefer] = {}

    def write(self) -> None:
        entry, n = self.entry, self.n
        for told in entry.told:
            self.tell(told.kind, told.step_key, told.item_key, told.attempt, told.started_at, told.detail)
        for effect in entry.effects:
            self.apply(effect)
            self.sheet.write(effect)
        entry.after = self.sheet.read()
        self.batch.steps.extend((n, *row) for row in self.steps.values())
        if self.finish is None:
            self.retry()
            self.enqueue()
            # What is opened and ended in one entry is never written: the statement's deletes do not see its inserts.
            self.batch.open_pauses.extend(self.pauses)
            self.batch.store_requests.extend(self.requests)
        before, after = entry.run, entry.after
        if after.defers:
            self.defer()
        error_name, error_message = _name_and_message(self.finish)
        self.batch.entries.append(
            (
                n,
                before.id,
                before.version if entry.expects_version else None,
                str(after.status) if after.status != before.status else None,
                after.request_version if after.request_version != before.request_version else None,
                after.is_planned if after.is_planned != before.is_planned else None,
                after.pending if (after.pending, after.group) != (before.pending, before.group) else None,
                after.group,
                after.discoveries if after.discoveries != before.discoveries else None,
                self.bytes,
                self.starts,
                self.finish is not None,
                self.finish.code if self.finish else None,
                error_name,
                error_message,
            )
        )
        self.batch.guards.extend((n, lease.id, lease.fence) for lease in entry.leases)
        if self.finish is not None:
            self.batch.has_ends = True

    def tell(
        self,
        kind: str,
        step_key: str | None = None,
        item_key: str | None = None,
        attempt: int | None = None,
        started_at: datetime | None = None,
        detail: bytes | None = None,
    ) -> None:
        self.position += 1
        self.batch.history.append(
            (
                self.n,
                self.position,
                kind,
                step_key,
                item_key,
                attempt,
                started_at,
                detail.decode() if detail else None,
            )
        )

    def emit(self, event: InternalEvent) -> None:
        self.entry.emits = True
        self.batch.emit.append(
            (
                self.n,
                event.id,
                event.name,
                event.client_id,
                event.ts,
                event.payload.decode(),
                event.correlation,
            )
        )

    def item_id(self, key: str) -> ItemId:
        return derive_item_id(self.run.id, key)

    def apply(self, effect: fx.Effect) -> None:
        match effect:
            case fx.StartRun():
                self.starts = True
                self.tell("run.started")
            case fx.SaveStep() | fx.OpenStep() | fx.RetryStep():
                self.step(effect)
            case fx.EnqueueItem():
                self.items.append(effect)
            case fx.RetryItem():
                self.retries[effect.key] = effect
            case fx.ResetAttempt():
                self.retries[effect.key] = effect
            case fx.SettleItem():
                self.settled.add(effect.key)
                self.batch.settle.append((self.n, self.item_id(effect.key)))
            case fx.OpenPause():
                bound = stored_wait(effect.expression, self.entry.facts.event) if effect.expression else None
                self.pauses.append(
                    (
                        self.n,
                        effect.step_key,
                        str(effect.kind),
                        effect.event,
                        bound.expression if bound else None,
                        bound.path if bound else None,
                        bound.value if bound else None,
                        effect.signal,
                        effect.correlation,
                        self.entry.heard_at,
                    )
                )
            case fx.ClosePause():
                self.batch.close_pauses.append((self.n, effect.step_key))
                self.tell(f"wait.{effect.outcome}", effect.step_key)
            case fx.AddDefer():
                self.defers[effect.key] = effect
            case fx.AbortDefer():
                if effect.key not in self.defers:
                    self.batch.abort_defers.append((self.n, effect.key))
            case fx.StoreRequest():
                if self.entry.seal is None:
                    raise Bug("a gateway step was opened where nothing can be sealed", run_id=self.run.id)
                sealed = self.entry.seal(effect.opts.decode(), self.entry.facts.scope)
                self.requests.append((self.n, effect.step_key, sealed))
            case fx.InvokeFunction():
                self.emit(event_of_invoke(self.run, self.entry.facts, effect, self.now))
            case fx.FinishRun():
                self.end(effect)
            case fx.Ignore():
                self.tell("late", detail=_encode({"reason": effect.reason}))
            case fx.LeaveGroup():
                step = self.sheet.steps[effect.step_key]
                self.put_step(
                    step.key, step.kind, "", None, str(step.state), False, step.is_race, None, None, None, None
                )
            case fx.SetRequestVersion() | fx.SetPlanned() | fx.OpenGroup() | fx.CloseGroup():
                pass  # columns of the run row, written from the folded state
            case _:
                assert_never(effect)

    def step(self, effect: fx.SaveStep | fx.OpenStep | fx.RetryStep) -> None:
        """A step is settled, opened, or will be tried again."""
        match effect:
            case fx.SaveStep():
                self.place += 1
                self.forget_request(effect.step_key)
                self.bytes += fx.state_bytes_of(effect)
                self.put_step(
                    effect.step_key,
                    effect.kind,
                    effect.name,
                    effect.step_type,
                    str(effect.state),
                    False,
                    False,
                    effect.memo,
                    effect.input,
                    None,
                    None,
                )
                self.tell(f"step.{effect.state}", effect.step_key)
            case fx.OpenStep():
                self.bytes += fx.state_bytes_of(effect)
                self.put_step(
                    effect.step_key,
                    effect.kind,
                    effect.name,
                    effect.step_type,
                    str(effect.state),
                    effect.is_member,
                    effect.is_race,
                    None,
                    None,
                    effect.opts,
                    None,
                )
                self.tell("step.opened", effect.step_key)
            case fx.RetryStep():
                # A member of the pending set that is tried again is still one.
                before = self.sheet.steps.get(effect.step_key)
                self.put_step(
                    effect.step_key,
                    effect.kind,
                    effect.name,
                    None,
                    "retrying",
                    before is not None and before.is_member,
                    before is not None and before.is_race,
                    None,
                    None,
                    None,
                    effect.error,
                )

    def end(self, effect: fx.FinishRun) -> None:
        """The run is over: what is open in it is closed, and others hear of it."""
        self.finish = effect
        for step in self.sheet.steps.values():
            if step.state not in SETTLED:
                self.forget_request(step.key)
                self.put_step(step.key, step.kind, "", None, "cancelled", False, step.is_race, None, None, None, None)
        self.tell(f"run.{effect.status}", detail=_end_detail(effect))
        for event in events_of_end(self.run, self.entry.facts, effect, self.now):
            self.emit(event)

    def defer(self) -> None:
        """Write the defers said in this entry, and start all that are pending when the run ends with it."""
        states = self.sheet.defers
        for key, said in self.defers.items():
            event = event_of_defer(self.run, self.entry.facts, said, self.now)
            state = "pending" if states[key].is_pending else "aborted" if said.defer.is_pending else "rejected"
            if self.finish is not None and state == "pending":
                state = "scheduled"
                self.emit(event)
            # What follows the time is always the same.
            opening = event.payload[: event.payload.rindex(b'"ts":') + 5]
            self.batch.add_defers.append(
                (self.n, key, said.function, said.input.decode(), opening.decode(), event.id, state)
            )
        if self.finish is not None:
            started = [key for key, one in states.items() if one.is_pending and key not in self.defers]
            self.batch.start_defers.extend((self.n, key) for key in started)
            self.entry.emits = self.entry.emits or bool(started)

    def put_step(
        self,
        key: str,
        kind: str,
        name: str,
        step_type: str | None,
        state: str,
        is_member: bool,
        is_race: bool,
        memo: bytes | None,
        inp: bytes | None,
        opts: bytes | None,
        error: bytes | None,
    ) -> None:
        """One row per step and entry: a statement may touch a row once, so the later state wins. What only the earlier one
        knew is kept, as the statement keeps what the row knew.
        """
        texts: tuple[str | None, ...] = (_str(inp), _str(opts), _str(error))
        if (before := self.steps.get(key)) is not None:
            name, step_type = name or before[3], step_type or before[4]
            texts = tuple(new if new is not None else old for new, old in zip(texts, before[9:], strict=True))
        self.steps[key] = (self.place, key, str(kind), name, step_type, state, is_member, is_race, _str(memo), *texts)

    def forget_request(self, step_key: str) -> None:
        """A gateway step is settled: what it asked for goes, and the credentials in it."""
        step = self.sheet.steps.get(step_key)
        if step is not None and step.kind in _REQUESTS:
            self.batch.drop_requests.append((self.n, step_key))
            self.requests = [request for request in self.requests if request[1] != step_key]

    def retry(self) -> None:
        """Write the items that are called again. A statement may change a row once: an item that one answer of the entry
        wants called again and another one settles is settled.
        """
        for key, effect in self.retries.items():
            if key in self.settled:
                continue
            if isinstance(effect, fx.ResetAttempt):
                self.batch.retry.append((self.n, self.item_id(key), 0, None))
                continue
            self.batch.retry.append((self.n, self.item_id(key), effect.attempt, effect.after))
            self.batch.wake.append((self.n, None, effect.after, None))
            self.free(key)

    def free(self, item_key: str) -> None:
        """The lease of an item ends here, and with it the slots it holds."""
        if self.entry.is_limited:
            for lease in self.entry.leases:
                if lease.key == item_key:
                    self.batch.free_slots.append((self.n, lease.lease_id))

    def enqueue(self) -> None:
        """Write new items; calls due now go to the worker that asked, the first under the lease it already has (rule 12)."""
        entry = self.entry
        # Only the leases of calls hold slots: under another one no call may go on.
        spare = [lease.lease_id for lease in entry.leases if lease.key in self.settled and lease.kind in CALLS]
        # What is made and settled in one entry is never written: the statement's deletes do not see its inserts.
        items = [item for item in self.items if item.key not in self.settled]
        now_calls = [q for q in items if q.kind in CALLS and q.at is None and not q.after]
        may_take = entry.room if entry.worker_id else 0
        if entry.is_limited:
            may_take = min(may_take, 1) if len(now_calls) == 1 and len(spare) == 1 else 0
        for item in items:
            item_id = self.item_id(item.key)
            lease_id: LeaseId | None = None
            if may_take > 0 and item.kind in CALLS and item.at is None and not item.after:
                may_take -= 1
                lease_id = spare.pop(0) if spare else LeaseId(uuid.uuid4())
                if entry.is_limited:
                    self.batch.hand_over.append((self.n, lease_id))
                entry.successors.append(
                    LeasedItem(item_id, item.key, ItemKind(item.kind), item.step_key, 0, 1, lease_id, due_at=self.now)
                )
            else:
                entry.readies = True
            self.batch.enqueue.append(
                (
                    self.n,
                    item_id,
                    item.key,
                    str(item.kind),
                    item.step_key,
                    item.at,
                    item.after,
                    lease_id,
                    entry.worker_id if lease_id else None,
                )
            )
            if lease_id is None or entry.is_limited:
                self.batch.wake.append((self.n, item.at, item.after, lease_id))
        if entry.is_limited:
            self.batch.free_slots.extend((self.n, lease_id) for lease_id in spare)


def _str(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _end_detail(finish: fx.FinishRun) -> bytes:
    if finish.output is None:
        return _encode({"code": finish.code})
    key = b"error" if finish.status == "failed" else b"output"
    return b'{"code":' + _encode(finish.code) + b',"' + key + b'":' + finish.output + b"}"


def _name_and_message(finish: fx.FinishRun | None) -> tuple[str | None, str | None]:
    """Short texts for lists; the whole error is in the history row."""
    if finish is None or finish.status != "failed" or finish.output is None:
        return None, None
    try:
        error = msgspec.json.decode(finish.output)
    except msgspec.DecodeError:
        return "Error", None
    if not isinstance(error, dict):
        return "Error", str(error)[:500]
    return _short(error.get("name") or "Error", 200), _short(error.get("message") or "", 2000)


def _short(value: object, limit: int) -> str:
    # Postgres text cannot hold NUL; payload columns keep it as the JSON escape.
    return str(value)[:limit].replace("\x00", "\ufffd")
