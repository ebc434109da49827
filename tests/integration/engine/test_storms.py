"""Many events at once through debounces, batches, rate limits and throttles, with workers that die in between."""

import asyncio
import json
import os
import random
from datetime import timedelta

from app.domain.event import NewEvent
from app.domain.limits import PLANS
from tests.integration.engine.world import Call, Gate, World, ops, planned, result

IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
EVENTS = 10_000 if IS_FULL else 400
KEYS = 100 if IS_FULL else 10


async def ended(world: World) -> None:
    """No event, timer or run is left."""
    await world.until(
        lambda: world.value(
            "select not exists (select from inbox) and not exists (select from gates where due_at is not null)"
            " and not exists (select from runs where ended_at is null)"
        )
    )


async def storm(world: World, name: str, seed: int) -> dict[int, int]:
    """Send the events in requests of different sizes while two workers are killed; gives each event's key."""
    dice = random.Random(seed)
    keys = {n: dice.randrange(KEYS) for n in range(EVENTS)}
    engines = [await world.engine() for _ in range(3)]
    numbers = list(keys)
    sent = 0
    while numbers:
        size = dice.randrange(1, 60)
        await world.send_many([(name, {"k": keys[n], "n": n}) for n in numbers[:size]])
        numbers = numbers[size:]
        sent += size
        if len(engines) > 1 and sent > EVENTS * (4 - len(engines)) // 3:
            await world.kill(engines.pop())
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    return keys


async def test_each_event_of_a_batch_storm_is_in_exactly_one_batch(world: World) -> None:
    await world.function(
        "order", lambda _c: result(), batchEvents={"maxSize": 25, "timeout": "60s", "key": "event.data.k"}
    )
    keys = await storm(world, "order/sent", 1)
    await world.owner.execute("update gates set due_at = clock() where due_at is not null")
    world.wake()
    await ended(world)
    seen: dict[int, int] = {}
    runs: dict[object, list[int]] = {}
    for call in world.apps.calls:
        runs[call.run_id] = [event["data"]["n"] for event in call.body["events"]]
    for numbers in runs.values():
        assert len(numbers) <= 25
        assert len({keys[n] for n in numbers}) == 1
        for n in numbers:
            seen[n] = seen.get(n, 0) + 1
    assert seen == dict.fromkeys(keys, 1)


async def test_a_debounce_storm_runs_the_last_event_of_each_key_and_answers_the_others(world: World) -> None:
    await world.function("order", lambda _c: result(), debounce={"period": "1h", "key": "event.data.k"})
    keys = await storm(world, "order/sent", 2)
    await world.owner.execute("update gates set due_at = clock() where due_at is not null")
    world.wake()
    await ended(world)
    ran = {call.body["event"]["data"]["k"]: call.body["event"]["data"]["n"] for call in world.apps.calls}
    assert len({call.run_id for call in world.apps.calls}) == len(set(keys.values()))
    # All have the same `ts`, so the one that was reacted to last is the newest; each key has exactly one.
    assert set(ran) == set(keys.values())
    answers = await world.value("select count(*) from dispositions where outcome = 'debounced'")
    assert answers == len(keys)
    superseded = await world.value("select count(*) from dispositions where detail = 'superseded by a newer event'")
    assert superseded == len(keys) - len(ran)


async def test_a_rate_limit_starts_what_its_model_allows_in_a_storm(world: World) -> None:
    await world.function("order", lambda _c: result(), rateLimit={"limit": 20, "period": "24h", "key": "event.data.k"})
    keys = await storm(world, "order/sent", 3)
    await ended(world)
    count = await world.rows(
        "select e.payload::jsonb -> 'data' ->> 'k' as k, count(*) as n from runs r join events e on e.id = r.event_id group by 1"
    )
    # One and a tenth at once; the next would come after more than an hour.
    sent = {k: sum(1 for each in keys.values() if each == k) for k in set(keys.values())}
    assert {int(row["k"]): row["n"] for row in count} == {k: min(3, n) for k, n in sent.items()}
    refused = await world.value("select count(*) from dispositions where outcome = 'rate_limited'")
    assert refused == len(keys) - sum(row["n"] for row in count)


async def test_a_throttle_drops_nothing_and_keeps_its_pace_through_a_storm(world: World) -> None:
    await world.function(
        "order", lambda _c: result(), throttle={"limit": 60, "period": "1s", "burst": 3, "key": "event.data.k"}
    )
    await storm(world, "order/sent", 4)
    await ended(world)
    assert await world.value("select count(*) from runs where status = 'completed'") == EVENTS
    starts = await world.rows(
        "select e.payload::jsonb -> 'data' ->> 'k' as k, min(h.started_at) as at from history h join runs r on r.id = h.run_id"
        " join events e on e.id = r.event_id where h.kind = 'call' group by r.id, 1 order by 2"
    )
    window = timedelta(seconds=1)
    for key in {row["k"] for row in starts}:
        times = [row["at"] for row in starts if row["k"] == key]
        # Leases are paced by the database; a call goes out a little later, so windows of calls are a little wider.
        for first in times:
            assert sum(first <= at < first + window * 0.5 for at in times) <= 30 + 3 + 15


async def test_the_newest_event_by_its_own_time_wins_a_debounce_whatever_order_events_come_in(world: World) -> None:
    await world.function("order", lambda _c: result(), debounce={"period": "1h", "key": "event.data.k"})
    engines = [await world.engine() for _ in range(3)]
    dice = random.Random(5)
    stamps = dice.sample(range(1_700_000_000_000, 1_700_000_900_000), EVENTS)
    newest: dict[int, int] = {}
    for start in range(0, EVENTS, 100):
        events = []
        for n, ts in enumerate(stamps[start : start + 100]):
            key = n % KEYS
            newest[key] = max(newest.get(key, 0), ts)
            data = json.dumps({"k": key, "ts": ts}, sort_keys=True, separators=(",", ":")).encode()
            events.append(NewEvent("order/sent", data, ts))
        await world.ingest.add(world.mine, events, body=repr(start).encode())
        if len(engines) > 1 and start > EVENTS * (4 - len(engines)) // 3:
            await world.kill(engines.pop())
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    await world.owner.execute("update gates set due_at = clock() where due_at is not null")
    world.wake()
    await ended(world)
    ran = {call.body["event"]["data"]["k"]: call.body["event"]["data"]["ts"] for call in world.apps.calls}
    assert ran == newest
    answered = await world.value("select count(distinct event_id) from dispositions where outcome = 'debounced'")
    assert answered == EVENTS


async def test_a_plan_limits_the_calls_of_an_account_over_all_its_functions(world: World) -> None:
    await world.owner.execute("update accounts set plan = 'free' where id = $1", world.mine.account_id)
    gate = Gate()
    await world.function("one", gate)
    await world.function("two", gate)
    await world.function("one", gate, scope=world.theirs)
    await world.engine()
    await world.send_many([(f"{name}/sent", {}) for name in ("one", "two") for _ in range(6)])
    await world.send_many([("one/sent", {}) for _ in range(6)], scope=world.theirs)
    most = PLANS["free"].concurrency
    assert most == 5
    held = [await gate.next() for _ in range(most + 6)]
    await world.until(lambda: world.value("select count(*) = 18 from items"))
    assert gate.waiting == 0
    assert await world.value("select count(*) from slots") == most
    for _, answer in held:
        answer.set_result(result())
    for _ in range(7):
        (await gate.next())[1].set_result(result())
    await ended(world)


async def test_parallel_steps_obey_a_limit_of_calls(world: World) -> None:
    names = [f"s{n}" for n in range(12)]

    async def answer(call: Call) -> object:
        await asyncio.sleep(0.001)
        if call.target:
            return ops({"op": "StepRun", "id": call.target, "name": call.target, "data": 1})
        return result() if call.done >= set(names) else ops(*(planned(name) for name in names))

    await world.function("order", answer, concurrency=3)  # type: ignore[arg-type]
    await world.engine()
    await world.begin("order")
    await ended(world)
    assert world.apps.most_at_once["order"] <= 3
    assert len(world.apps.calls) == 14
