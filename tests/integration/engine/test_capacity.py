"""Limits on a real database: how many at once, in which order, and that nothing waits for a slot that is free."""

import asyncio
import random
from typing import Any

from app.adapters.http import Answer
from app.engine.queue import lease
from tests.integration.engine import slot_log
from tests.integration.engine.world import Call, Gate, World, in_turn, ops, ran, result, sleeps


class Slow:
    """An app that lets other calls come in between, and counts the most at once by a value of its event."""

    def __init__(self, *steps: str, key: str = "user") -> None:
        self.steps, self.key = steps, key
        self.now: dict[Any, int] = {}
        self.most: dict[Any, int] = {}
        self.order: list[Any] = []

    async def __call__(self, call: Call) -> Answer:
        value = call.body["event"]["data"].get(self.key)
        self.now[value] = self.now.get(value, 0) + 1
        self.most[value] = max(self.most.get(value, 0), self.now[value])
        self.order.append(value)
        for _ in range(3):
            await asyncio.sleep(0)
        self.now[value] -= 1
        for name in self.steps:
            if name not in call.steps:
                return ops(ran(name))
        return result()


async def finish(world: World, count: int) -> None:
    """All runs of this many events have ended."""
    await world.until(
        lambda: world.value("select count(*) from runs where ended_at is not null"), lambda n: bool(n >= count)
    )


async def test_calls_under_a_key_never_pass_its_limit_and_keys_do_not_hold_each_other(world: World) -> None:
    await slot_log.install(world.owner)
    app = Slow("a", "b")
    await world.function("order", app, concurrency={"limit": 2, "key": "event.data.user"})
    for _ in range(3):
        await world.engine()
    await world.send_many([("order/sent", {"user": n % 5}) for n in range(60)])
    await finish(world, 60)
    assert set(app.most) == set(range(5))
    assert max(app.most.values()) <= 2
    assert await slot_log.breaches(world.owner) == []
    assert set((await slot_log.most_at_once(world.owner)).values()) == {2}
    assert await world.value("select count(*) from slots") == 0


async def test_two_limits_hold_together(world: World) -> None:
    app = Slow()
    rules = [{"limit": 3}, {"limit": 1, "key": "event.data.user"}]
    await world.function("order", app, concurrency=rules)
    await world.engine()
    await world.send_many([("order/sent", {"user": n % 6}) for n in range(40)])
    await finish(world, 40)
    assert max(app.most.values()) == 1
    assert world.apps.most_at_once["order"] <= 3


async def test_functions_share_the_count_of_an_account_key_and_other_tenants_do_not(world: World) -> None:
    await slot_log.install(world.owner)
    rule = {"limit": 2, "key": "'all'", "scope": "account"}
    gate = Gate()
    await world.function("one", gate, concurrency=rule)
    await world.function("two", gate, concurrency=rule)
    await world.function("one", gate, scope=world.theirs, concurrency=rule)
    await world.engine()
    await world.send_many([(f"{name}/sent", {}) for name in ("one", "two") for _ in range(3)])
    await world.send_many([("one/sent", {}) for _ in range(3)], scope=world.theirs)
    held = [await gate.next() for _ in range(4)]
    await world.until(lambda: world.value("select count(*) = 9 from items"))
    environments = {c.body["ctx"]["run_id"] for c, _ in held}
    assert len(environments) == 4
    assert gate.waiting == 0
    assert sorted((await slot_log.most_at_once(world.owner)).values()) == [2, 2]
    for _, answer in held:
        answer.set_result(result())
    for _ in range(5):
        (await gate.next())[1].set_result(result())
    await finish(world, 9)
    assert await slot_log.breaches(world.owner) == []


async def test_a_limit_that_changes_holds_for_runs_that_wait_already(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency={"limit": 1, "key": "event.data.user"})
    await world.engine()
    await world.send_many([("order/sent", {"user": "a"}) for _ in range(6)])
    held = [await gate.next()]
    await world.function("order", gate, concurrency={"limit": 3, "key": "event.data.user"})
    world.wake()
    held += [await gate.next(), await gate.next()]
    await world.function("order", gate, concurrency={"limit": 1, "key": "event.data.user"})
    held[0][1].set_result(result())
    held[1][1].set_result(result())
    await finish(world, 2)
    assert await world.value("select count(*) from slots") == 1
    held[2][1].set_result(result())
    for _ in range(3):
        (await gate.next())[1].set_result(result())
    await finish(world, 6)


async def test_a_limit_that_is_taken_away_holds_nobody(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency={"limit": 1, "key": "event.data.user"})
    await world.engine()
    await world.send_many([("order/sent", {"user": "a"}) for _ in range(4)])
    held = [await gate.next()]
    await world.function("order", gate)
    world.wake()
    held += [await gate.next() for _ in range(3)]
    for _, answer in held:
        answer.set_result(result())
    await finish(world, 4)


async def test_a_limit_of_runs_counts_sleeping_runs_and_a_limit_of_calls_does_not(world: World) -> None:
    def answer(call: Call) -> Answer:
        return result() if "nap" in call.steps else ops(sleeps("nap"))

    await world.function("whole", answer, concurrency={"fn": [{"limit": 1}]})
    await world.function("calls", answer, concurrency=1)
    await world.engine()
    await world.send_many([(f"{name}/sent", {}) for name in ("whole", "calls") for _ in range(3)])
    await world.until(lambda: world.value("select count(*) = 4 from steps where state = 'sleeping'"))
    by = await world.rows(
        "select f.slug, count(*) as n from steps s join runs r on r.id = s.run_id join functions f on f.id = r.function_id"
        " group by 1 order by 1"
    )
    assert [tuple(row) for row in by] == [("calls", 3), ("whole", 1)]
    for _ in range(3):
        for run_id in await world.column("select run_id from items where kind = 'sleep'"):
            await world.make_due(run_id, "sleep")
        await asyncio.sleep(0)
        await world.until(
            lambda: world.value(
                "select not exists (select from items where kind = 'sleep' and due_at <= clock()) and not exists"
                " (select from slots s where s.lease_id <> s.run_id)"
            )
        )
        await world.until(
            lambda: world.value(
                "select not exists (select from runs where ended_at is null) or exists (select from steps where state = 'sleeping')"
            )
        )
    await finish(world, 6)
    assert await world.value("select count(*) from slots") == 0


async def test_runs_older_than_a_limit_of_runs_all_come_to_their_end(world: World) -> None:
    async def script(call: Call) -> Answer:
        if "nap" not in call.steps:
            return ops(sleeps("nap"))
        await asyncio.sleep(0.05)  # Long enough for others to be refused meanwhile, and no harm when it is not.
        return result() if "more" in call.steps else ops(sleeps("more", "100ms"))

    await world.function("order", script)
    await world.engine()
    await world.send_many([("order/sent", {"n": n}) for n in range(24)])
    await world.until(lambda: world.value("select count(*) = 24 from steps where state = 'sleeping'"))
    # The run that gets the only slot then calls later than all that wait for it, in the same lane.
    await world.function("order", script, concurrency={"fn": {"limit": 1}})
    for run_id in await world.column("select run_id from items where kind = 'sleep'"):
        await world.make_due(run_id, "sleep")
    await finish(world, 24)


async def test_a_timer_of_a_full_lane_is_not_late(world: World) -> None:
    gate = Gate()

    async def answer(call: Call) -> Answer:
        if call.body["event"]["data"].get("sleeps") and not call.steps:
            return ops(sleeps("nap"))
        return await gate(call)

    await world.function("order", answer, concurrency=1)
    await world.engine()
    sleeper = await world.begin("order", {"sleeps": True})
    await world.quiet(sleeper, "sleeping")
    await world.send_many([("order/sent", {}) for _ in range(30)])
    _, held = await gate.next()
    await world.make_due(sleeper, "sleep")
    await world.until(lambda: world.value("select state = 'completed' from steps where run_id = $1", sleeper))
    held.set_result(result())
    for _ in range(30):
        (await gate.next())[1].set_result(result())
    await finish(world, 31)


async def test_a_throttle_lets_its_burst_start_and_holds_the_rest_in_order(world: World) -> None:
    await world.function("order", in_turn("a"), throttle={"limit": 1, "period": "1h", "burst": 1})
    await world.engine()
    for n in range(5):
        await world.send("order/sent", {"n": n})
    await finish(world, 2)
    assert sorted({c.body["event"]["data"]["n"] for c in world.apps.calls}) == [0, 1]
    lane = await world.row("select * from lanes where blocked_by is not null")
    assert await world.value("select $1 > clock() + interval '50 minutes'", lane["blocked_until"])
    await world.owner.execute("update flow_keys set tat = clock() - interval '1 day'")
    await world.owner.execute("update lanes set next_due = clock(), blocked_until = null where blocked_by is not null")
    world.wake()
    await finish(world, 4)
    assert sorted({c.body["event"]["data"]["n"] for c in world.apps.calls}) == [0, 1, 2, 3]


async def test_a_retried_first_call_does_not_count_against_the_throttle_again(world: World) -> None:
    tries = 0

    def answer(_call: Call) -> Answer:
        nonlocal tries
        tries += 1
        return Answer(500, {}, b"{}", 1.0) if tries < 3 else result()

    await world.function("order", answer, throttle={"limit": 1, "period": "1h"})
    await world.engine()
    assert (await world.ended(await world.begin("order")))["status"] == "completed"
    assert tries == 3


async def test_priority_orders_first_items_and_nothing_else(world: World) -> None:
    app = Slow(key="n")
    await world.function("order", app, priority={"run": "event.data.p"}, concurrency=1)
    engine = await world.engine(starts=False)
    for n, p in enumerate((0, -100, 50, 200, "x")):
        await world.send("order/sent", {"n": n, "p": p})
        await engine.react.round(0)
    await engine.start()
    await finish(world, 5)
    assert app.order == [3, 2, 0, 4, 1]


async def test_slots_of_a_dead_worker_are_free_after_its_lease(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency={"limit": 2, "key": "event.data.user"})
    first = await world.engine()
    await world.send_many([("order/sent", {"user": "a"}) for _ in range(4)])
    for _ in range(2):
        await gate.next()
    await world.kill(first)
    assert await world.value("select count(*) from slots") == 2
    await world.engine()
    for _ in range(4):
        (await gate.next())[1].set_result(result())
    await finish(world, 4)
    assert await world.value("select count(*) from slots") == 0


async def test_no_limit_is_passed_while_workers_die_and_limits_change(world: World) -> None:
    await slot_log.install(world.owner)
    dice = random.Random(7)

    async def answer(call: Call) -> Answer:
        await asyncio.sleep(dice.random() / 100)
        return result() if "a" in call.steps else ops(ran("a"))

    rules = {"limit": 2, "key": "event.data.user"}
    await world.function("order", answer, concurrency=rules)
    engines = [await world.engine() for _ in range(4)]
    await world.send_many([("order/sent", {"user": n % 3}) for n in range(60)])
    for done in (15, 30):
        await finish(world, done)
        await world.kill(engines.pop())
        await world.function("order", answer, concurrency={**rules, "limit": 4 if done == 15 else 1})
    await finish(world, 60)
    assert await slot_log.breaches(world.owner) == []
    assert await world.value("select count(*) from slots") == 0


async def test_a_full_key_is_not_looked_at_again_and_again(world: World) -> None:
    gate = Gate()
    await world.function("order", gate, concurrency={"limit": 1, "key": "event.data.user"})
    engine = await world.engine(starts=False)
    await world.send_many([("order/sent", {"user": n % 4}) for n in range(40)])
    await engine.react.round(0)
    await engine._register(engine.worker_id)
    leased, _ = await lease(engine.pool, engine.worker_id, 100, [])
    assert len(leased) == 4
    blocked = await world.value("select count(*) from lanes where blocked_until > clock() and next_due = blocked_until")
    assert blocked == 4
    again, _ = await lease(engine.pool, engine.worker_id, 100, [])
    assert again == []
    # New work for a blocked lane does not set its clock back, a freed slot does.
    await world.send_many([("order/sent", {"user": n % 4}) for n in range(4)])
    await engine.react.round(0)
    assert await world.value("select count(*) from lanes where next_due <= clock()") == 0
    await world.owner.execute("delete from slots where flow_key_id = (select flow_key_id from slots limit 1)")
    lane = await world.value("select lane_id from items where id = $1", leased[0].item.id)
    more, _ = await lease(engine.pool, engine.worker_id, 100, [lane])
    assert len(more) <= 1
    world.allowed |= {"I17-slots"}


async def test_a_key_freed_by_one_function_wakes_another_that_waits_for_it(world: World) -> None:
    gate = Gate()
    rule = {"limit": 1, "key": "'all'", "scope": "env"}
    await world.function("one", gate, concurrency=rule)
    await world.function("two", gate, concurrency=rule)
    engine = await world.engine(starts=False)
    await world.send("one/sent")
    await engine.react.round(0)
    await world.send("two/sent")
    await engine.react.round(0)
    await engine._register(engine.worker_id)
    held, _ = await lease(engine.pool, engine.worker_id, 100, [])
    assert len(held) == 1
    lane = await world.value("select lane_id from items where id = $1", held[0].item.id)
    await world.owner.execute("delete from slots")
    after, _ = await lease(engine.pool, engine.worker_id, 100, [lane])
    assert len(after) == 1
    assert await world.value("select count(distinct function_id) from items where lease_id is not null") == 2
    world.allowed |= {"I17-slots"}


async def test_one_tenants_many_runs_do_not_stand_in_front_of_anothers(world: World) -> None:
    await world.function("noisy", result_of, concurrency={"limit": 1, "key": "event.data.n"})
    await world.function("noisier", result_of)
    await world.function("quiet", result_of, scope=world.theirs)
    await world.function("limited", result_of, scope=world.theirs, concurrency=1)
    engine = await world.engine(starts=False)
    await world.send_many([("noisy/sent", {"n": n}) for n in range(300)])
    await world.send_many([("noisier/sent", {}) for _ in range(300)])
    for _ in range(4):
        await engine.react.round(0)
    await world.send_many([("quiet/sent", {}), ("limited/sent", {})], scope=world.theirs)
    await engine.react.round(0)
    await engine._register(engine.worker_id)
    first, _ = await lease(engine.pool, engine.worker_id, 16, [])
    theirs = {world.function_id("quiet", world.theirs), world.function_id("limited", world.theirs)}
    assert theirs <= {x.function_id for x in first}


async def test_another_tenants_first_event_is_claimed_before_a_floods_third_batch(world: World) -> None:
    await world.function("noisy", result_of)
    await world.function("quiet", result_of, scope=world.theirs)
    engine = await world.engine(starts=False)
    for _ in range(3):
        await world.send_many([("noisy/sent", {}) for _ in range(300)])
    await world.send("quiet/sent", scope=world.theirs)
    for _ in range(2):
        await engine.react.round(0)
    theirs = world.function_id("quiet", world.theirs)
    assert await world.value("select count(*) from runs where function_id = $1", theirs) == 1
    while await world.value("select exists (select from inbox)"):
        await engine.react.round(0)
    assert await world.value("select count(*) from runs") == 901


async def test_a_tenant_with_more_busy_functions_than_one_look_takes_does_not_hide_another(world: World) -> None:
    await world.function("noisy", result_of)
    await world.function("quiet", result_of, scope=world.theirs)
    engine = await world.engine(starts=False)
    await world.send("noisy/sent")
    await world.send("quiet/sent", scope=world.theirs)
    await engine.react.round(0)
    # As if seven hundred functions of one tenant had work of long ago.
    await world.owner.execute(
        "insert into lanes (id, account_id, environment_id, function_id, key, next_due, served_at) select gen_random_uuid(),"
        " account_id, environment_id, gen_random_uuid(), '', clock() - interval '1 hour', '-infinity' from lanes"
        " cross join generate_series(1, 700) where function_id = $1",
        world.function_id("noisy"),
    )
    await engine._register(engine.worker_id)
    first, _ = await lease(engine.pool, engine.worker_id, 16, [])
    assert world.function_id("quiet", world.theirs) in {x.function_id for x in first}
    await world.owner.execute("delete from lanes where function_id not in (select id from functions)")


async def test_gated_lanes_get_their_part_while_free_lanes_have_endless_work(world: World) -> None:
    await world.function("free", result_of)
    await world.function("gated", result_of, concurrency=5)
    engine = await world.engine(starts=False)
    await world.send_many([("free/sent", {}) for _ in range(150)])
    await world.send_many([("gated/sent", {}) for _ in range(5)])
    await engine.react.round(0)
    await engine._register(engine.worker_id)
    first, _ = await lease(engine.pool, engine.worker_id, 16, [])
    assert len(first) == 16
    assert sum(x.function_id == world.function_id("gated") for x in first) == 4


def result_of(_call: Call) -> Answer:
    return result()
