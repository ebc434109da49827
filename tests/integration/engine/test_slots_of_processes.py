"""Limits of every scope with workers in processes of their own that are killed, while limits change: what the log of slots says.

Full size: four processes, three of them killed, 2,400 runs. The figures are printed (`-s`).
"""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engine import slot_log
from tests.integration.engine.worker_process import BEAT_S, LEASE_S
from tests.integration.engine.workers import Workers
from tests.integration.engine.world import World, result

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
PROCESSES = 4 if IS_FULL else 2
EACH = 400 if IS_FULL else 20
#: Seconds that a slot may be free while work for it waits, and that a dead holder may keep one beyond its lease, as workers count.
IDLE_S, DEAD_S = 1.0, 5.0
#: Looks of one worker at a free slot that somebody else is just about to take.
LOOKS = 4
RULES: dict[str, Any] = {
    "all": {"limit": 3},
    "keyed": {"limit": 2, "key": "event.data.user"},
    "two-limits": [{"limit": 4}, {"limit": 1, "key": "event.data.user"}],
    "env-a": {"limit": 3, "key": "'shared'", "scope": "env"},
    "env-b": {"limit": 2, "key": "'shared'", "scope": "env"},
    "two-account": {"limit": 3, "key": "'everybody'", "scope": "account"},
    "two-runs": {"fn": [{"limit": 2}]},
}
#: Functions whose free slots always have work: one limit each, which changes on the way or is this. Of a shared key, the lower.
ALWAYS = {"all": None, "keyed": None, "env-a": 2, "two-account": 3, "two-runs": 2}
_KEYS = "select distinct k from lanes l join functions f on f.id = l.function_id, unnest(l.flow_key_ids) k where f.slug = $1"


@pytest.mark.timeout(900)
async def test_no_key_ever_has_more_slots_than_its_limit_and_none_stays_free_while_work_waits(
    world: World, redis_url: str, tmp_path: Path
) -> None:
    await slot_log.install(world.owner)
    for slug, rule in RULES.items():
        await world.function(slug, lambda _c: result(), concurrency=rule)
    await world.owner.execute("truncate slot_log")
    total = EACH * len(RULES)
    await world.send_many([(f"{slug}/sent", {"user": n % 4}) for n in range(EACH) for slug in RULES])
    workers = Workers(world.url, redis_url, tmp_path)
    caps = [(await world.value("select clock()"), 3)]
    try:
        for _ in range(PROCESSES):
            workers.start()
        changes = [(0.2, 5), (0.4, 1), (0.6, 4)] if IS_FULL else [(0.3, 5), (0.6, 1)]
        for part, limit in changes:
            await _ended(world, int(total * part))
            workers.kill()
            workers.start()
            await world.function("all", lambda _c: result(), concurrency={"limit": limit})
            await world.function("keyed", lambda _c: result(), concurrency={"limit": limit, "key": "event.data.user"})
            caps.append((await world.value("select clock()"), limit))
        await _ended(world, total)
    finally:
        workers.end()
    befores = [(at, before) for (at, _), (_, before) in zip(caps[1:], caps, strict=False)]
    assert await slot_log.breaches(world.owner, befores) == []
    assert (
        await world.value(
            "select count(*) from slots where lease_id not in (select lease_id from items where lease_id is not null)"
        )
        == 0
    )
    most = await slot_log.most_at_once(world.owner)
    assert max(most.values()) <= max(limit for _, limit in caps)
    diaries = [slot_log.Diary.read(path) for path in workers.diaries]
    free, longest = 0.0, 0.0
    for slug, fixed in ALWAYS.items():
        for key in await world.column(_KEYS, slug):
            first = RULES[slug].get("limit", fixed)
            limits = [(at.timestamp(), limit if n else first) for n, (at, limit) in enumerate(caps)]
            for gap in await slot_log.gaps(world.owner, key, limits if fixed is None else [(0.0, fixed)]):
                free = max(free, gap.seconds)
                for diary in diaries:
                    longest = max(longest, diary.idle(gap))
                    assert diary.looks(gap, IDLE_S) <= LOOKS, (slug, gap, diary.name)
    dead, kept = 0.0, 0.0
    for slot in await slot_log.held(world.owner):
        kept = max(kept, slot.seconds)
        late = slot_log.Gap(slot.key, slot.since + LEASE_S, slot.until)
        dead = max([dead, *(diary.alive(late) for diary in diaries)])
    taken = await world.owner.fetchval("select count(*) from slot_log where change = 1")
    print(f"\n{taken} slots of {len(most)} keys, {workers.count} processes; free while work waited at most {free:.2f} s,"
          f" of which a worker idled {longest:.2f} s; of dead holders kept at most {kept:.2f} s")  # fmt: skip
    assert longest <= IDLE_S + BEAT_S
    assert dead <= DEAD_S


async def _ended(world: World, count: int) -> None:
    """So many runs have ended; processes that were killed need their lease to run out first."""
    for _ in range(30):
        try:
            await world.until(
                lambda: world.value("select count(*) from runs where ended_at is not null"), lambda n: bool(n >= count)
            )
        except TimeoutError:
            continue
        return
    raise TimeoutError(f"{count} runs never ended")
