"""A storm of events through a batch and a debounce, with workers in processes of their own that are killed by signal.

Full size: 10,000 events, 100 keys, three processes. The figures are printed (`-s`).
"""

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from app.domain.event import NewEvent
from tests.integration.engine import world as world_module
from tests.integration.engine.workers import Workers
from tests.integration.engine.world import World, result

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
EVENTS, KEYS, PROCESSES = (10_000, 100, 3) if IS_FULL else (200, 10, 1)
MOST, SENT = 25, 50


@pytest.mark.timeout(900)
async def test_each_event_is_in_one_batch_and_the_newest_of_each_key_wins_though_workers_are_killed(
    world: World, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "PATIENCE_S", 300.0)
    batch = {"maxSize": MOST, "timeout": "60s", "key": "event.data.k"}
    debounce = {"period": "1h", "key": "event.data.k"}
    await world.function("batch", lambda _c: result(), event="storm/sent", batchEvents=batch)
    await world.function("last", lambda _c: result(), event="storm/sent", debounce=debounce)
    dice = random.Random(13)
    stamps = dice.sample(range(1_700_000_000_000, 1_700_009_000_000), EVENTS)
    keys = [dice.randrange(KEYS) for _ in stamps]
    newest = {key: max(ts for ts, k in zip(stamps, keys, strict=True) if k == key) for key in set(keys)}
    began = time.monotonic()
    workers = Workers(world.url, redis_url, tmp_path)
    try:
        for _ in range(PROCESSES):
            workers.start()
        deaths = [EVENTS // 4, EVENTS // 2]
        for start in range(0, EVENTS, SENT):
            events = [
                NewEvent("storm/sent", json.dumps({"k": k, "ts": ts}).encode(), ts)
                for ts, k in zip(stamps[start : start + SENT], keys[start : start + SENT], strict=True)
            ]
            await world.ingest.add(world.mine, events, body=repr(start).encode())
            # Killed in the midst of it: some of what was sent is not reacted to yet.
            await world.until(lambda: world.value("select count(*) < 3 * $1::int from inbox", SENT))
            if deaths and start >= deaths[0]:
                deaths.pop(0)
                workers.kill()
                workers.start()
        await world.until(lambda: world.value("select not exists (select from inbox)"))
        await world.owner.execute("update gates set due_at = clock() where due_at is not null")
        await world.until(lambda: world.value("select not exists (select from gates where due_at is not null)"))
        await world.all_ended()
    finally:
        workers.end()
    took = time.monotonic() - began
    gathered = await world.rows(
        "select x.run_id, e.payload::jsonb -> 'data' as data from"
        " (select r.id as run_id, r.event_id from runs r union all select v.run_id, v.event_id from run_events v) x"
        " join runs r on r.id = x.run_id join functions f on f.id = r.function_id join events e on e.id = x.event_id"
        " where f.slug = 'batch'"
    )
    found = [(row["run_id"], json.loads(row["data"])) for row in gathered]
    assert sorted(data["ts"] for _, data in found) == sorted(stamps)
    sizes = Counter(run_id for run_id, _ in found)
    assert max(sizes.values()) <= MOST
    assert len({(run_id, data["k"]) for run_id, data in found}) == len(sizes)
    winners = await world.rows(
        "select e.payload::jsonb -> 'data' as data from runs r join functions f on f.id = r.function_id"
        " join events e on e.id = r.event_id where f.slug = 'last'"
    )
    assert len(winners) == len(newest)
    assert {data["k"]: data["ts"] for data in (json.loads(row["data"]) for row in winners)} == newest
    answers = "select count(*) from dispositions d join functions f on f.id = d.function_id where f.slug = $1"
    assert await world.value(answers, "last") == EVENTS
    assert await world.value(answers + " and d.detail = 'superseded by a newer event'", "last") == EVENTS - len(newest)
    assert await world.value("select count(*) from runs where status <> 'completed'") == 0
    print(f"\n{EVENTS} events of {KEYS} keys in {took:.1f} s: {len(sizes)} batches of at most {max(sizes.values())},"
          f" {len(winners)} debounced runs; {workers.count} processes, 2 of them killed")  # fmt: skip
