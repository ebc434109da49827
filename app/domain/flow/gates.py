"""The gates before a run, in order: batch, rate limit, debounce, singleton (protocol 21).

Paused functions and repeated event ids never come this far, the backlog comes after. A gate either lets the event on, or
keeps it with an answer that people can read. States are rows held by the caller; here they are changed in memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.domain.flow import batch, debounce, rate_limit, singleton
from app.domain.flow.gcra import arrive
from app.domain.flow.keys import key_bytes, key_of, key_or_bypass
from app.domain.function import Function
from app.domain.ids import EventId, FunctionId, RunId, derive_uuid
from app.domain.settings import Batch, Debounce, RateLimit, Singleton


class GateKind(StrEnum):
    """Which rule a gate's row belongs to."""

    BATCH = "batch"
    RATE_LIMIT = "rate_limit"
    DEBOUNCE = "debounce"
    SINGLETON = "singleton"


class Outcome(StrEnum):
    """What became of an event at the gates; all but `START` are words of the dispositions table."""

    START = "start"
    BATCHED = "batched"
    RATE_LIMITED = "rate_limited"
    DUPLICATE = "duplicate"
    DEBOUNCED = "debounced"
    SINGLETON = "singleton"


@dataclass(frozen=True, slots=True)
class EventRef:
    """A stored event."""

    id: EventId
    received_at: datetime


@dataclass(slots=True)
class GateState:
    """One row of `gates`. `run_id`: a singleton's holder, or the run that an open batch will be."""

    id: UUID
    kind: GateKind
    key: str
    tat: datetime | None = None
    run_id: RunId | None = None
    event: EventRef | None = None
    event_ts: int | None = None
    opened_at: datetime | None = None
    due_at: datetime | None = None
    size: int = 0
    bytes: int = 0
    is_changed: bool = False

    def close(self) -> None:
        """The open debounce or batch is over."""
        self.run_id = self.event = self.event_ts = self.opened_at = self.due_at = None
        self.size = self.bytes = 0
        self.is_changed = True


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event at the gates of a function. `run_id` is the run it would be."""

    ref: EventRef
    ts: int
    bytes: int
    run_id: RunId
    is_cron: bool = False


@dataclass(slots=True)
class Verdict:
    """What happens to the event.

    `run_id`: of `batched` the run to come, of `singleton` the run that is there. `position`: the event's place in its
    batch, from 0. `superseded`: an event a debounce no longer runs with. `starts_batch`: the open batch has to start
    before the event is added (`before`) or with it (`after`). `cancels`: the run whose place a singleton takes.
    """

    outcome: Outcome
    detail: str = ""
    run_id: RunId | None = None
    position: int = 0
    superseded: EventRef | None = None
    starts_batch: str | None = None
    cancels: RunId | None = None


@dataclass(frozen=True, slots=True)
class Gates:
    """The gates of a function."""

    function_id: FunctionId
    batch: Batch | None = None
    rate_limit: RateLimit | None = None
    debounce: Debounce | None = None
    singleton: Singleton | None = None

    def keys(self, event: Mapping[str, Any], *, is_cron: bool = False) -> "Keys":
        """The rows this event needs; crons pass batch, rate limit and debounce by (protocol 21.2)."""
        found: dict[GateKind, str] = {}
        if not is_cron:
            if self.batch is not None and (key := batch.key_of_batch(self.batch, event)) is not None:
                found[GateKind.BATCH] = key
            if self.rate_limit is not None and (key := key_or_bypass(self.rate_limit.key, event)) is not None:
                found[GateKind.RATE_LIMIT] = key
            if self.debounce is not None:
                found[GateKind.DEBOUNCE] = key_of(self.debounce.key, event)
        if self.singleton is not None and (key := singleton.key_of_singleton(self.singleton, event)) is not None:
            found[GateKind.SINGLETON] = key
        return Keys({kind: (gate_id(self.function_id, kind, key), key) for kind, key in found.items()})

    def pass_through(
        self, keys: "Keys", states: Mapping[UUID, GateState], arrival: Arrival, live: set[RunId], now: datetime
    ) -> Verdict:
        """Take an event through the gates. `live` are the runs that are not over; the starting run is added."""
        if (state := keys.state(GateKind.BATCH, states)) is not None and self.batch is not None:
            return self._into_batch(self.batch, state, arrival, now)
        if (state := keys.state(GateKind.RATE_LIMIT, states)) is not None and self.rate_limit is not None:
            answer = arrive(rate_limit.pace(self.rate_limit), state.tat, now)
            if not answer.is_admitted:
                return Verdict(*_rate_limited(self.rate_limit, state.key, answer.at))
            state.tat, state.is_changed = answer.tat, True
        if (state := keys.state(GateKind.DEBOUNCE, states)) is not None and self.debounce is not None:
            return self._into_debounce(self.debounce, state, arrival, now)
        return self.take_place(keys, states, arrival.run_id, live)

    def take_place(self, keys: "Keys", states: Mapping[UUID, GateState], run_id: RunId, live: set[RunId]) -> Verdict:
        """The last gate, which also a debounced event passes when its time has come."""
        state = keys.state(GateKind.SINGLETON, states)
        cancels: RunId | None = None
        if state is not None and self.singleton is not None:
            holder = state.run_id
            if holder is not None and holder in live and holder != run_id:
                if singleton.skips_newcomer(self.singleton):
                    return Verdict(Outcome.SINGLETON, f"key {state.key!r}" if state.key else "", holder)
                cancels = holder
                live.discard(holder)
            state.run_id, state.is_changed = run_id, True
            live.add(run_id)
        return Verdict(Outcome.START, cancels=cancels)

    @staticmethod
    def _into_batch(rule: Batch, state: GateState, arrival: Arrival, now: datetime) -> Verdict:
        found = _open_batch(state)
        verdict = Verdict(Outcome.BATCHED, f"key {state.key!r}" if state.key else "")
        if batch.overflows(found, arrival.bytes):
            # The caller starts it as it stands, closes the state and brings the event again.
            verdict.starts_batch = "before"
            return verdict
        after = batch.arrive(rule, found, arrival.bytes, now)
        if found is None:
            state.run_id, state.event, state.event_ts = arrival.run_id, arrival.ref, arrival.ts
        state.opened_at, state.due_at, state.size, state.bytes = after.opened_at, after.due_at, after.size, after.bytes
        state.is_changed = True
        verdict.run_id, verdict.position = state.run_id, after.size - 1
        if after.due_at <= now:
            verdict.starts_batch = "after"
        return verdict

    @staticmethod
    def _into_debounce(rule: Debounce, state: GateState, arrival: Arrival, now: datetime) -> Verdict:
        found = None
        if state.opened_at is not None and state.due_at is not None and state.event_ts is not None:
            found = debounce.Open(state.opened_at, state.due_at, state.event_ts)
        after, is_newest = debounce.arrive(rule, found, arrival.ts, now)
        superseded = state.event if is_newest else arrival.ref
        state.opened_at, state.due_at, state.event_ts = after.opened_at, after.due_at, after.event_ts
        state.is_changed = True
        state.size += 1
        if is_newest:
            state.event = arrival.ref
        return Verdict(Outcome.DEBOUNCED, f"key {state.key!r}" if state.key else "", superseded=superseded)


@dataclass(frozen=True, slots=True)
class Keys:
    """The rows an event needs at the gates: kind → (row id, key)."""

    by_kind: Mapping[GateKind, tuple[UUID, str]] = field(default_factory=dict)

    def state(self, kind: GateKind, states: Mapping[UUID, GateState]) -> GateState | None:
        """The held row of a kind; None when the event has nothing to do with it."""
        found = self.by_kind.get(kind)
        return states[found[0]] if found is not None else None

    def only(self, kind: GateKind) -> "Keys":
        """The row of one kind alone."""
        return Keys({k: found for k, found in self.by_kind.items() if k is kind})

    def __iter__(self) -> Iterator[tuple[GateKind, UUID, str]]:
        for kind, (row_id, key) in self.by_kind.items():
            yield kind, row_id, key


def gates_of(function: Function) -> Gates | None:
    """The gates of a function; None when every event passes."""
    if function.batch or function.rate_limit or function.debounce or function.singleton:
        return Gates(function.id, function.batch, function.rate_limit, function.debounce, function.singleton)
    return None


def gate_id(function_id: FunctionId, kind: GateKind, key: str) -> UUID:
    """The id of a gate's row."""
    return derive_uuid("gate", function_id.bytes, kind, key_bytes(key))


def _open_batch(state: GateState) -> batch.Open | None:
    if state.opened_at is None or state.due_at is None:
        return None
    return batch.Open(state.opened_at, state.due_at, state.size, state.bytes)


def _rate_limited(rule: RateLimit, key: str, at: datetime) -> tuple[Outcome, str]:
    said = f"key {key!r}, again from {at.isoformat(timespec='milliseconds')}" if key else f"again from {at.isoformat()}"
    return (Outcome.DUPLICATE if rate_limit.is_idempotency(rule) else Outcome.RATE_LIMITED), said
