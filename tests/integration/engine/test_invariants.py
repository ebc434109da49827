"""Every block of docs/invariants.sql runs on the migrated schema, and finds what it is there to find."""

from tests.integration.engine.world import Call, Gate, World, in_turn, invokes, ops, planned, ran, waits
from tests.invariants import blocks, violations

_UUID = "'00000000-0000-4000-8000-00000000000f'"
#: A change to a world with an ended run, a run whose call is held under a limit, a run with a planned group of which one
#: is done, and a run that waits; by the block that must find it. Constraints and triggers of the schema are off.
PLANTED = {
    "I4-events": "insert into events select environment_id, id, received_at + interval '1 second', account_id, name, client_id, ts, payload, original, source from events limit 1",
    "I4-runs": f"insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status, commit_id, max_attempts, event_id, event_received_at, event_name, queued_at) select {_UUID}, account_id, environment_id, app_id, function_id, function_version, lane_id, 'queued', commit_id, max_attempts, event_id, event_received_at, event_name, queued_at from runs limit 1",
    "I4-dedupe": f"insert into dedupe select environment_id, {_UUID}, 'k', account_id, id, clock() from runs limit 1",
    "I6": "delete from history where kind = 'step.completed'",
    "I6-order": "update steps set memo_order = memo_order + 1 where memo_order is not null",
    "I6-state": "update steps set state = 'failed' where state = 'waiting'",
    "I7": "insert into history (run_id, version, position, account_id, environment_id, kind, step_key, item_key, started_at) select run_id, 0, 99, account_id, environment_id, 'call', step_key, 'step:' || step_key, clock() + interval '1 minute' from steps where memo_order is not null limit 1",
    "I8": "update items set attempt = 99",
    "I9": "insert into history (run_id, version, position, account_id, environment_id, kind) select id, version, 99, account_id, environment_id, 'run.failed' from runs where ended_at is not null limit 1",
    "I9-final": "insert into history (run_id, version, position, account_id, environment_id, kind) select id, version, 99, account_id, environment_id, 'step.opened' from runs where ended_at is not null limit 1",
    "I9-events": f"insert into events select environment_id, {_UUID}, received_at, account_id, name, client_id, ts, payload, original, source from events where name = 'inngest/function.finished' limit 1",
    "I10": "delete from items where kind = 'timeout'",
    "I10-leases": "delete from workers",
    "I10-steps": "delete from items where kind = 'step'",
    "I12": "update runs set parent_run_id = (select run_id from steps where state = 'invoking'), parent_step_key = 'c' where ended_at is not null",
    "I13": "delete from items where kind = 'timeout'",
    "I13-steps": "delete from pauses",
    "I15": "insert into history (run_id, version, position, account_id, environment_id, kind, step_key) select id, 0, n, account_id, environment_id, 'wait.resumed', 'w' from runs, generate_series(90, 91) n where ended_at is null",
    "I16": "update items set kind = 'sleep', due_at = clock() + interval '1 hour' where leased_at is not null",
    "I17": "update flow_keys set cap = 0",
    "I17-slots": "delete from slots",
    "I18": "update slots set lease_id = gen_random_uuid()",
    "I19": "insert into dispositions (environment_id, event_id, function_id, account_id, outcome) select environment_id, event_id, function_id, account_id, 'rate_limited' from runs limit 1",
    "I20": "update runs set batch_size = 3 where id = (select id from runs limit 1)",
    "I20-timers": "insert into gates (id, account_id, environment_id, function_id, kind, opened_at, due_at) select gen_random_uuid(), account_id, environment_id, function_id, 'batch', clock(), clock() from runs limit 1",
    "I20-answers": "insert into dispositions (environment_id, event_id, function_id, account_id, outcome, run_id) select environment_id, event_id, function_id, account_id, 'batched', gen_random_uuid() from runs limit 1",
    "I21": "insert into schedule_answers (schedule_id, due_at, account_id, environment_id, function_id, outcome, run_id) select gen_random_uuid(), clock(), account_id, environment_id, function_id, 'ran', gen_random_uuid() from runs limit 1",
    "I21-once": "update runs set function_id = (select function_id from runs limit 1); insert into schedule_answers (schedule_id, due_at, account_id, environment_id, function_id, outcome, run_id) select gen_random_uuid(), clock(), account_id, environment_id, function_id, 'ran', id from runs limit 2",
    "I22": "insert into pauses (run_id, step_key, account_id, environment_id, kind, requested_at) select id, 'w', account_id, environment_id, 'invoke', clock() from runs where ended_at is not null",
    "I22-steps": "update steps set state = 'waiting' where run_id in (select id from runs where ended_at is not null)",
    "I23-runs": "update runs set account_id = gen_random_uuid()",
    "I23-parts": "update steps set environment_id = gen_random_uuid()",
    "I23-parents": "update runs c set parent_run_id = p.id, account_id = gen_random_uuid() from runs p where p.id <> c.id",
    "I23-inbox": "insert into inbox (environment_id, event_id, received_at, account_id) select environment_id, gen_random_uuid(), clock(), account_id from events limit 1",
    "I23-lanes": "update flow_keys set account_id = gen_random_uuid()",
    "I24": "alter table items no force row level security",
    "I28": "update runs set state_bytes = 40000000",
    "COUNTERS-pending": "update runs set pending = pending + 1 where ended_at is null",
    "COUNTERS-bytes": "update runs set state_bytes = state_bytes + 1",
    "COUNTERS-versions": "update history set version = version + 100",
    "USAGE-reported": "insert into usage_days (environment_id, day, account_id, reported) select environment_id, current_date, account_id, 1 from runs limit 1",
    "USAGE-kept": "update runs set kept = completed + 1",
}


async def _lively(world: World) -> Gate:
    gate = Gate()

    def group(call: Call) -> object:
        if call.target == "a":
            return ops(ran("a"))
        return gate(call) if call.target else ops(planned("a"), planned("b"))

    await world.function("limited", gate, concurrency=[{"limit": 1}])
    await world.function("group", group)  # type: ignore[arg-type]
    await world.function("waiter", lambda call: ops(waits("w", "x"), invokes("c", "limited")))
    await world.function("ender", in_turn("a"))
    await world.engine()
    await world.ended(await world.begin("ender"))
    forked = await world.begin("group")
    await world.until(lambda: world.steps(forked), lambda steps: steps == {"a": "completed", "b": "planned"})
    await world.quiet(await world.begin("waiter"))
    await world.until(lambda: world.value("select exists (select from slots)"))
    await world.until(lambda: world.value("select not exists (select from inbox)"))
    return gate


def test_every_block_has_a_violation_that_it_must_find() -> None:
    assert list(PLANTED) == list(blocks())


async def test_a_sound_world_violates_nothing_and_each_planted_fault_is_found_by_its_block(world: World) -> None:
    await _lively(world)
    assert await violations(world.owner) == []
    missed = []
    for name, change in PLANTED.items():
        transaction = world.owner.transaction()
        await transaction.start()
        try:
            await world.owner.execute("set local session_replication_role = replica")
            await world.owner.execute(change)
            if not await world.owner.fetch(blocks()[name]):
                missed.append(name)
        finally:
            await transaction.rollback()
    assert missed == []


async def test_violations_names_the_block_and_shows_a_row(world: World) -> None:
    await world.function("order", in_turn("a"))
    await world.engine()
    await world.ended(await world.begin("order"))
    await world.owner.execute("update runs set completed = 7")
    (found,) = await violations(world.owner)
    assert found.startswith("I6-order: 1 rows")
    assert await violations(world.owner, but=frozenset({"I6-order"})) == []
    await world.owner.execute("update runs set completed = 1")
