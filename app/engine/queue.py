"""Station 3: due items are leased, lane by lane: round robin over environments, then functions, then keys.

A lease is the right to make the call of ONE item and to settle it; it is no lock on the run. Leasing and rescue change
items only, never runs (architecture 5, rule 1).

    lanes due ─┬─ free ───► items due ──────────────────────────────────────────────────────────► leased
               └─ gated ──► items due ─► flow keys locked (sorted) ─► used? ─► domain/flow/capacity ─┬─► leased, slots taken
                                                                                                     └─ no: key marked as
                                                                    waited for, lane blocked by it, with the time if known

Who is authoritative for what
- `items.fence` says who may settle an item; it grows with every lease and rescue.
- `slots` rows are the only count of what runs under a limit; they are inserted under the lock of their flow key. A slot of a
  call has its lease's id, a slot of a whole run the run's.
- `flow_limits` says what a limit allows now, with what people set for a time (overrides.py), `flow_keys.cap` what they set
  for one key, `flow_keys.tat` the pace of starts.
- `lanes.next_due` is a hint that is never later than the truth for longer than a second (the sweep corrects it).
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.flow.capacity import Candidate, Gate, KeyState, admit
from app.domain.flow.concurrency import Kind
from app.domain.ids import LeaseId, RunId, WorkerId
from app.domain.run import keys
from app.domain.run.state import CALLS, ItemKind
from app.engine import pause_points
from app.engine.hot import LeasedItem
from app.store.db import Pool
from app.store.named import fetch, named

#: Lanes looked at in one round, and items taken from each (D10: a few items per lane).
_LANES = 16
_PER_LANE = 16
#: One part in this many of the room is for gated lanes while some are due.
_KEPT_FOR_GATED = 4


@dataclass(frozen=True, slots=True)
class Leased:
    """An item leased from the queue, with the run it belongs to (not loaded yet)."""

    run_id: RunId
    function_id: UUID
    item: LeasedItem


@dataclass(slots=True)
class Looks:
    """A worker's looks for work: how many there were, and whether the last one saw gated lanes that were due."""

    count: int = 0
    had_gated: bool = False

    def kept(self, room: int) -> int:
        """How much of the room the next look keeps for gated lanes."""
        turn = self.count % _KEPT_FOR_GATED if self.had_gated else 0
        self.count += 1
        return (room + turn) // _KEPT_FOR_GATED


async def lease(
    pool: Pool, worker_id: WorkerId, room: int, hints: Iterable[UUID], looks: Looks | None = None
) -> tuple[list[Leased], datetime | None]:
    """Lease up to `room` due items; `hints` are lanes known to have work whatever their clock says.

    Returns the items and the database's time. A quarter of the room is kept for gated lanes while some are due; what does
    not divide by four is so in one look of four, which the worker counts in `looks`.
    """
    hint_list = list(hints)
    looks = looks or Looks()
    quota = room - looks.kept(room)
    async with pool.acquire(timeout=10) as connection:
        rows, now, has_gated = await _lease_free(connection, worker_id, quota, hint_list)
        looks.had_gated = has_gated
        is_more = len(rows) == quota
        if has_gated:
            rows += await _lease_limited(connection, worker_id, room - len(rows), hint_list)
        if is_more and len(rows) < room:
            more, now, _ = await _lease_free(connection, worker_id, room - len(rows), hint_list)
            rows += more
    if rows:
        await pause_points.reached("queue.leased", [row["run_id"] for row in rows])
    return [_leased(row) for row in rows], now


async def _lease_free(
    connection: Any, worker_id: WorkerId, room: int, hints: list[UUID]
) -> tuple[list[Any], datetime, bool]:
    rows = await fetch(
        connection,
        named("lease", "lease_free"),
        worker=worker_id,
        hints=hints,
        lanes=min(_LANES, room),
        per_lane=_PER_LANE,
        room=room,
    )
    return [row for row in rows if row["id"] is not None], rows[0]["now"], rows[0]["has_gated"]


async def _lease_limited(connection: Any, worker_id: WorkerId, room: int, hints: list[UUID]) -> list[Any]:
    """Gated lanes: candidates locked, keys locked in order, capacity counted, the rest refused with a mark."""
    if room <= 0:
        return []
    async with connection.transaction():
        found = await fetch(
            connection,
            named("lease", "limited_lanes"),
            hints=hints,
            # However little room there is: lanes that are refused take none of it, and may not stand before others.
            lanes=_LANES,
            per_lane=_PER_LANE,
            room=max(_LANES, room),
        )
        if not found:
            return []
        await pause_points.reached("lease.picked", [row["id"] for row in found])
        lanes = {row["lane_id"]: row for row in found}
        gates, states = await _held(connection, lanes, [row["run_id"] for row in found if row["id"] is not None])
        await pause_points.reached("lease.counted", list(lanes))
        candidates = [
            Candidate(
                row["id"],
                row["run_id"],
                row["lane_id"],
                is_call=ItemKind(row["kind"]) in CALLS,
                starts=row["key"] == keys.START and row["fence"] == 0,
                gates=gates[row["lane_id"]],
            )
            for row in found
            if row["id"] is not None
        ]
        admission = admit(candidates, states, found[0]["now"], room)
        # Lanes whose turn did not come for want of room stay as they are, and come first next time.
        passed_by = {c.lane_id for c in candidates} - admission.looked
        lanes = {lane_id: lane for lane_id, lane in lanes.items() if lane_id not in passed_by}
        looked_at = {key for lane in lanes.values() for key in lane["flow_key_ids"]}
        lease_ids = {c.item_id: uuid.uuid4() for c in admission.admitted}
        slots = [(key, lease_ids[c.item_id], False) for key, c in admission.call_slots]
        slots += [(key, lease_ids[c.item_id], True) for key, c in admission.run_slots]
        refused = {lane_id: admission.refused.get(lane_id) for lane_id in lanes}
        served = {c.lane_id for c in admission.admitted}
        return await fetch(
            connection,
            named("lease", "lease_limited"),
            worker=worker_id,
            item_ids=list(lease_ids),
            lease_ids=list(lease_ids.values()),
            slot_keys=[key for key, _, _ in slots],
            slot_leases=[lease_id for _, lease_id, _ in slots],
            slot_whole=[whole for _, _, whole in slots],
            refused=list({r.key_id for r in refused.values() if r is not None}),
            key_ids=list(looked_at),
            key_tats=[states[key].tat for key in looked_at],
            lane_ids=list(lanes),
            lane_blocked_by=[r.key_id if r else None for r in refused.values()],
            lane_until=[r.at if r else None for r in refused.values()],
            # A lane that got something had its turn, also if what came next was refused.
            lane_served=[r is None or lane_id in served for lane_id, r in refused.items()],
        )


async def _held(
    connection: Any, lanes: dict[UUID, Any], run_ids: list[UUID]
) -> tuple[dict[UUID, tuple[Gate, ...]], dict[UUID, KeyState]]:
    """Lock the keys of lanes and read what they allow and what is used of them.

    A limit that is gone limits nothing. Of a shared key every lane compares the count with the limit of its own function.
    """
    key_ids = sorted({key for lane in lanes.values() for key in lane["flow_key_ids"]})
    if not key_ids:
        return dict.fromkeys(lanes, ()), {}
    held = await fetch(connection, named("lease", "lock_flow_keys"), ids=key_ids)
    if len(held) < len(key_ids):
        missing = list(set(key_ids) - {row["id"] for row in held})
        await fetch(connection, named("lease", "make_flow_keys"), lanes=list(lanes), ids=missing)
        await fetch(connection, named("lease", "lock_flow_keys"), ids=key_ids)
    await pause_points.reached("lease.locked", key_ids)
    used = {r["id"]: r for r in await fetch(connection, named("lease", "flow_states"), ids=key_ids, runs=run_ids)}
    limit_ids = list({limit for lane in lanes.values() for limit in lane["limit_ids"]})
    limits = {r["id"]: r for r in await fetch(connection, named("lease", "limits"), ids=limit_ids)}
    gates: dict[UUID, tuple[Gate, ...]] = {}
    for lane_id, lane in lanes.items():
        of_lane = []
        for key_id, limit_id in zip(lane["flow_key_ids"], lane["limit_ids"], strict=True):
            limit, key = limits.get(limit_id), used[key_id]
            if limit is not None:
                kind = Kind(limit["kind"])
                is_own = key["cap"] is not None and kind is not Kind.THROTTLE
                is_held = key["cap"] == 0
                of_lane.append(Gate(key_id, kind, key["cap"] if is_own else limit["cap"], limit["every"], is_held))
        gates[lane_id] = tuple(of_lane)
    states = {key_id: KeyState(row["live"], row["tat"], set(row["runs"])) for key_id, row in used.items()}
    return gates, states


def _leased(row: Any) -> Leased:
    return Leased(
        row["run_id"],
        row["function_id"],
        LeasedItem(
            row["id"],
            row["key"],
            ItemKind(row["kind"]),
            row["step_key"],
            row["attempt"],
            row["fence"],
            LeaseId(row["lease_id"]),
            row["redeliveries"],
            row["due_at"],
            row["held_due"],
        ),
    )
