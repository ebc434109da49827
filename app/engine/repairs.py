"""Notes what keepers put right, for the operators' page and the metrics: nothing is repaired in silence."""

from app import telemetry
from app.store.db import Pool
from app.store.named import fetch, named

#: What is repaired, in the words of the operators' page.
KINDS = {
    "rescue": "Items of workers whose lease ran out, given back to the queue",
    "give_back": "Items that were leased and forgotten, given back to the queue",
    "orphan": "Slots whose call or run was gone, freed",
    "sweep": "Lanes whose clock was later than their work",
    "recheck": "Waits that were looked at a second time by a keeper",
}


async def note(pool: Pool, kind: str, count: int) -> None:
    """Remember that `count` things were put right; nothing is written when there were none."""
    if not count:
        return
    telemetry.count("stepwell_repairs_total", count, kind)
    async with pool.acquire(timeout=10) as connection:
        await fetch(connection, named("operations", "note_repair"), kind=kind, count=count)
