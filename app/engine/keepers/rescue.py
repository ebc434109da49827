"""Gives the items of dead workers back to the queue (architecture 5, rule 10; G4).

The keeper locks the worker's row, so the worker cannot renew meanwhile, and acts only if it is still expired. Fences of
its items rise, so whatever the dead worker still writes is late; slots are freed; redeliveries are counted, attempts
are not (I8).
"""

import logging
from datetime import timedelta

from app.engine import pause_points
from app.store.db import Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Items of one worker in one transaction.
_SLICE = 500


async def run_once(pool: Pool, grace: timedelta = timedelta(0)) -> int:
    """Rescue the items of one expired worker; returns how many. `grace` is waited beyond the lease."""
    async with pool.acquire(timeout=10) as connection, connection.transaction():
        dead = await fetch(connection, named("workers", "expired"), grace=grace)
        if not dead:
            return 0
        worker = dead[0]
        await pause_points.reached("rescue.locked", [worker["id"]])
        saved = await fetch(connection, named("workers", "rescue"), worker=worker["id"], room=_SLICE)
        if len(saved) < _SLICE:
            await fetch(connection, named("workers", "forget"), worker=worker["id"])
    if saved:
        log.warning(
            "rescued the items of a dead worker",
            extra={"worker": worker["name"] or str(worker["id"]), "pid": worker["pid"], "items": len(saved)},
        )
    return len(saved)
