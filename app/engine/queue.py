"""Station 3: due items are leased, lane by lane, the lane served longest ago first.

A lease is the right to make the call of ONE item and to settle it; it is no lock on the run. Leasing and rescue change
items only, never runs (architecture 5, rule 1).

    lanes due ──► items due in them ──► flow keys (sorted, only of limited lanes) ──► leased, slots taken
                                             └─ no room: the key is marked as waited for, the lane as blocked

Who is authoritative for what
- `items.fence` says who may settle an item; it grows with every lease and rescue.
- `slots` rows are the only count of what runs under a limit; they are inserted under the lock of their flow key.
- `lanes.next_due` is a hint that is never later than the truth for longer than a second (the sweep corrects it).
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.ids import LeaseId, RunId, WorkerId
from app.domain.run.state import CALLS, ItemKind
from app.engine import pause_points
from app.engine.hot import LeasedItem
from app.store.db import Pool
from app.store.named import fetch, named

#: Lanes looked at in one round, and items taken from each (D10: a few items per lane).
_LANES = 16
_PER_LANE = 16


@dataclass(frozen=True, slots=True)
class Leased:
    """An item leased from the queue, with the run it belongs to (not loaded yet)."""

    run_id: RunId
    function_id: UUID
    item: LeasedItem


async def lease(
    pool: Pool, worker_id: WorkerId, room: int, hints: Iterable[UUID]
) -> tuple[list[Leased], datetime | None]:
    """Lease up to `room` due items; `hints` are lanes known to have work whatever their clock says.

    Returns the items and the database's time (None when nothing was leased).
    """
    hint_list = list(hints)
    async with pool.acquire(timeout=10) as connection:
        rows = await fetch(
            connection,
            named("lease", "lease_free"),
            worker=worker_id,
            hints=hint_list,
            lanes=min(_LANES, room),
            per_lane=_PER_LANE,
            room=room,
        )
        room -= len(rows)
        if room > 0:
            rows += await _lease_limited(connection, worker_id, room, hint_list)
    if rows:
        await pause_points.reached("queue.leased", [row["run_id"] for row in rows])
    return [_leased(row) for row in rows], rows[0]["now"] if rows else None


async def _lease_limited(connection: Any, worker_id: WorkerId, room: int, hints: list[UUID]) -> list[Any]:
    """Lanes with limits: candidates locked, keys locked in order, capacity counted, the rest refused with a mark."""
    async with connection.transaction():
        found = await fetch(
            connection,
            named("lease", "limited_lanes"),
            hints=hints,
            lanes=min(_LANES, room),
            per_lane=_PER_LANE,
            room=room,
        )
        if not found:
            return []
        await pause_points.reached("lease.picked", [row["id"] for row in found])
        key_ids = sorted({key for row in found for key in row["flow_key_ids"]})
        keys = {
            row["id"]: row["cap"] - row["live"]
            for row in await fetch(connection, named("lease", "lock_flow_keys"), ids=key_ids)
        }
        item_ids: list[UUID] = []
        lease_ids: list[UUID] = []
        slots: list[tuple[UUID, UUID]] = []
        refused: set[UUID] = set()
        lanes: dict[UUID, UUID | None] = {}
        for row in found:
            lanes.setdefault(row["lane_id"], None)
            if row["id"] is None:
                continue
            is_call = ItemKind(row["kind"]) in CALLS
            full = [key for key in row["flow_key_ids"] if keys.get(key, 0) <= 0] if is_call else []
            if full:
                refused.update(full)
                lanes[row["lane_id"]] = full[0]
                continue
            lease_id = uuid.uuid4()
            item_ids.append(row["id"])
            lease_ids.append(lease_id)
            if is_call:
                for key in row["flow_key_ids"]:
                    keys[key] -= 1
                    slots.append((key, lease_id))
        return await fetch(
            connection,
            named("lease", "lease_limited"),
            worker=worker_id,
            item_ids=item_ids,
            lease_ids=lease_ids,
            slot_keys=[k for k, _ in slots],
            slot_leases=[s for _, s in slots],
            refused=list(refused),
            locked=key_ids,
            lane_ids=list(lanes),
            lane_blocked_by=list(lanes.values()),
        )


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
        ),
    )
