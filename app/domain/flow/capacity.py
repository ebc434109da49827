"""Who may be leased now: items in the order of their lanes against the keys they need, all keys held by the caller.

An item takes all its slots or none. A refusal names the key and the earliest time it could pass, when that is known
(a throttle); otherwise the key's slots have to be given back first. Lanes are independent: a refusal ends the lane's
turn, because what stands behind the refused item may not overtake it, and needs the same keys anyway. Except runs that
have their place under a limit of runs: who was refused waits for their end, so they may not wait behind it. They meet in
one lane when the limit is younger than they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from app.domain.flow.concurrency import Kind
from app.domain.flow.gcra import Pace, arrive


@dataclass(frozen=True, slots=True)
class Gate:
    """A key with the setting it is compared with. `cap` is what counts now, a change by people included.

    `is_held`: people let no run with this key start, whatever its pace.
    """

    key_id: UUID
    kind: Kind
    cap: int
    every: timedelta | None = None
    is_held: bool = False


@dataclass(slots=True)
class KeyState:
    """What is used of a key: live slots, and the state of its pace. Changed while candidates are admitted."""

    live: int = 0
    tat: datetime | None = None
    runs: set[UUID] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due item. `starts`: it is the first item of its run and was never leased, so a throttle counts it."""

    item_id: UUID
    run_id: UUID
    lane_id: UUID
    is_call: bool
    starts: bool
    gates: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a lane's turn ended: the key, and the earliest time when it is known."""

    key_id: UUID
    at: datetime | None = None


@dataclass(slots=True)
class Admission:
    """`call_slots` and `run_slots` are (key, candidate); `refused` one refusal per lane; `paced` keys with a new `tat`.

    `looked` are the lanes that had their turn.
    """

    admitted: list[Candidate] = field(default_factory=list)
    call_slots: list[tuple[UUID, Candidate]] = field(default_factory=list)
    run_slots: list[tuple[UUID, Candidate]] = field(default_factory=list)
    refused: dict[UUID, Refusal] = field(default_factory=dict)
    paced: set[UUID] = field(default_factory=set)
    looked: set[UUID] = field(default_factory=set)


def admit(
    candidates: Sequence[Candidate], keys: dict[UUID, KeyState], now: datetime, room: int | None = None
) -> Admission:
    """Admit what there is room for, at most `room` items; `keys` is brought up to date. The others are not looked at."""
    out = Admission()
    for candidate in candidates:
        if room is not None and len(out.admitted) >= room:
            break
        out.looked.add(candidate.lane_id)
        if not candidate.is_call:
            out.admitted.append(candidate)
        elif candidate.lane_id not in out.refused or _has_its_place(candidate, keys):
            refusal = _refusal(candidate, keys, now)
            if refusal is not None:
                out.refused.setdefault(candidate.lane_id, refusal)
            else:
                _take(candidate, keys, now, out)
    return out


def _has_its_place(candidate: Candidate, keys: dict[UUID, KeyState]) -> bool:
    """Whether the run holds a slot for its whole life."""
    return any(gate.kind is Kind.RUNS and candidate.run_id in keys[gate.key_id].runs for gate in candidate.gates)


def _refusal(candidate: Candidate, keys: dict[UUID, KeyState], now: datetime) -> Refusal | None:
    """The first gate that holds the item; of two the one without a known end, because it may last longer."""
    found: Refusal | None = None
    for gate in candidate.gates:
        state = keys[gate.key_id]
        if gate.kind is Kind.THROTTLE:
            if candidate.starts and gate.is_held:
                return Refusal(gate.key_id)
            if candidate.starts and gate.every is not None:
                answer = arrive(Pace(gate.every, gate.cap), state.tat, now)
                if not answer.is_admitted:
                    found = found or Refusal(gate.key_id, answer.at)
        elif gate.kind is Kind.RUNS and candidate.run_id in state.runs:
            continue
        elif state.live >= gate.cap:
            return Refusal(gate.key_id)
    return found


def _take(candidate: Candidate, keys: dict[UUID, KeyState], now: datetime, out: Admission) -> None:
    out.admitted.append(candidate)
    for gate in candidate.gates:
        state = keys[gate.key_id]
        if gate.kind is Kind.THROTTLE:
            if candidate.starts and gate.every is not None:
                state.tat = arrive(Pace(gate.every, gate.cap), state.tat, now).tat
                out.paced.add(gate.key_id)
        elif gate.kind is Kind.CALLS:
            state.live += 1
            out.call_slots.append((gate.key_id, candidate))
        elif candidate.run_id not in state.runs:
            state.live += 1
            state.runs.add(candidate.run_id)
            out.run_slots.append((gate.key_id, candidate))
