"""Gives items that nobody works on back to the queue (architecture 5, rule 10; G4).

    a worker's lease ran out          `run_once`     all its items
    a worker is on no list any more   `run_once`     a commit of it that was under way while it was given up
    a living worker forgot an item    `give_back`    its answer got lost, its task failed: the lease alone would last for ever

The keeper locks the worker's row, so the worker cannot renew meanwhile, and acts only if it is still expired. Fences of
its items rise, so whatever the dead worker still writes is late; slots are freed; redeliveries are counted, attempts
are not (I8).
"""

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.domain.ids import WorkerId
from app.engine import pause_points
from app.store.db import Connection, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Items of one worker in one transaction.
_SLICE = 500


async def run_once(pool: Pool, grace: timedelta = timedelta(0)) -> int:
    """Rescue the items of one expired worker; returns how many. `grace` is waited beyond the lease."""
    async with pool.acquire(timeout=10) as connection, connection.transaction():
        dead = await fetch(connection, named("workers", "expired"), grace=grace)
        if not dead:
            orphans = await fetch(connection, named("workers", "orphans"), room=10)
            return sum([len(await _rescue(connection, row["id"])) for row in orphans])
        worker = dead[0]
        await pause_points.reached("rescue.locked", [worker["id"]])
        saved = await _rescue(connection, worker["id"])
        if len(saved) < _SLICE:
            await fetch(connection, named("workers", "forget"), worker=worker["id"])
    if saved:
        log.warning(
            "rescued the items of a dead worker",
            extra={"worker": worker["name"] or str(worker["id"]), "pid": worker["pid"], "items": len(saved)},
        )
    return len(saved)


async def give_back(
    pool: Pool, worker_id: WorkerId, held: Iterable[UUID], busy: Iterable[UUID], older: timedelta
) -> int:
    """Give back items leased to a living worker at least `older` ago that it does not hold; returns how many.

    `held` are the items in its memory, `busy` the runs it is writing, both taken before this is called. `older` is
    longer than any statement may take, so that no lease on its way to the worker is mistaken for a forgotten one.
    """
    async with pool.acquire(timeout=10) as connection:
        saved = await _rescue(connection, worker_id, held, busy, older)
    if saved:
        log.warning(
            "gave back items that were leased and forgotten", extra={"worker_id": str(worker_id), "items": len(saved)}
        )
    return len(saved)


async def _rescue(
    connection: Connection,
    worker_id: UUID,
    held: Iterable[UUID] = (),
    busy: Iterable[UUID] = (),
    older: timedelta = timedelta(0),
) -> list[Any]:
    return await fetch(
        connection,
        named("workers", "rescue"),
        worker=worker_id,
        held=list(held),
        busy=list(busy),
        older=older,
        room=_SLICE,
    )
