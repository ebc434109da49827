"""Rules 7 to 9: refused data, connections that die, many tenants in one batch, and the order of locks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app.adapters.http import Answer
from app.domain.errors import Outside
from app.engine import transition
from app.store import commit as store
from tests.integration.engine.world import Call, Gate, World, in_turn, invokes, ops, ran, result, waits

#: A name that does not fit into the index of waits, and cannot be packed to fit.
_TOO_LONG = "".join(f"{n * n * 7919 % 65521:x}." for n in range(2000))


async def test_rule_07_a_batch_with_bad_data_is_halved_and_only_the_guilty_run_fails(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    runs = [await world.begin("order") for _ in range(5)]
    answers = {call.run_id: answer for call, answer in [await gate.next() for _ in runs]}
    stop = world.stop_at("commit.before")
    for run_id in runs:
        bad = ops(waits("w", _TOO_LONG))
        answers[run_id].set_result(bad if run_id == runs[3] else result())
    assert set(await stop.reached()) == set(runs)
    stop.go()
    rows = {row["id"]: row for row in await world.all_ended()}
    assert [rows[run_id]["status"] for run_id in runs] == ["completed"] * 3 + ["failed", "completed"]
    assert rows[runs[3]]["error_code"] == "unwritable"
    assert all(len(world.apps.of(run_id)) == 1 for run_id in runs)


async def test_rule_07_bad_data_in_the_slow_path_fails_the_guilty_run_only(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    runs = [await world.begin("order") for _ in range(3)]
    held = {call.run_id: (call, answer) for call, answer in [await gate.next() for _ in runs]}
    for call, _ in held.values():
        await world.checkpoint(call, ran("a"))
    for run_id in runs:
        bad = ops(waits("w", _TOO_LONG))
        held[run_id][1].set_result(bad if run_id == runs[0] else result())
    rows = {row["id"]: row for row in await world.all_ended()}
    assert [rows[run_id]["status"] for run_id in runs] == ["failed", "completed", "completed"]


async def test_rule_07_a_connection_that_dies_after_the_commit_is_read_back_as_won(world: World) -> None:
    await world.function("order", in_turn("a", "b"))
    await world.engine()
    stop = world.stop_at("commit.sent")
    run_id = await world.begin("order")
    await stop.reached()
    stop.go(asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"))
    assert (await world.ended(run_id))["status"] == "completed"
    assert [sorted(call.done) for call in world.apps.of(run_id)] == [[], ["a"], ["a", "b"]]
    assert (await world.run(run_id))["version"] == 3


async def test_rule_07_a_written_entry_is_known_by_its_leases_when_its_run_was_changed_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    call, answer = await gate.next()
    real = transition.Committer._read_back

    async def changed_meanwhile(self: Any, entries: Any, commit_id: Any) -> Any:
        await world.owner.execute(
            "update runs set commit_id = gen_random_uuid(), version = version + 1 where id = $1", run_id
        )
        return await real(self, entries, commit_id)

    monkeypatch.setattr(transition.Committer, "_read_back", changed_meanwhile)
    stop = world.stop_at("commit.sent")
    answer.set_result(ops(ran("a")))
    await stop.reached()
    stop.go(asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"))
    again, end = await gate.next()
    # The driver of the first call went on at once: nobody gave the item back, and its fence is the first.
    assert (call.done, again.done, again.fence) == (set(), {"a"}, 1)
    monkeypatch.undo()
    end.set_result(result())
    assert (await world.ended(run_id))["status"] == "completed"


@pytest.mark.parametrize(
    "unwell",
    [
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.DiskFullError("could not extend file"),
        asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_rule_07_a_database_that_is_unwell_fails_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch, unwell: asyncpg.PostgresError
) -> None:
    real, errors = store.commit, [unwell]

    async def commit(*what: Any) -> Any:
        if errors:
            raise errors.pop()
        return await real(*what)

    monkeypatch.setattr(transition, "commit", commit)
    await world.function("order", in_turn("a"))
    await world.engine()
    assert (await world.ended(await world.begin("order")))["status"] == "completed"
    assert not errors


async def test_rule_07_a_connection_that_dies_before_the_commit_is_read_back_as_not_won(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.engine()
    run_id = await world.begin("order")
    _, answer = await gate.next()
    async with world.locked_table("history"):
        answer.set_result(ops(ran("a")))
        await world.kill_connection_waiting_for_a_lock()
    call, end = await gate.next()
    assert call.done == {"a"}
    end.set_result(result())
    assert (await world.ended(run_id))["version"] == 2
    assert len(world.apps.of(run_id)) == 2, "the answer was kept, the app was not asked again"


async def test_rule_07_ingest_says_503_when_it_cannot_know_and_the_seeded_repeat_finds_out(world: World) -> None:
    await world.function("order", in_turn("a"))
    seed = "1700000000000,AAAAAAAAAAAAAA=="
    async with world.locked_table("inbox"):
        sending = asyncio.create_task(world.send("order/sent", seed=seed))
        await world.kill_connection_waiting_for_a_lock()
        with pytest.raises(Outside) as refused:
            await sending
    assert refused.value.code == "storage_unavailable"
    event_id = await world.send("order/sent", seed=seed)
    await world.engine()
    await world.ended((await world.runs_of(event_id))[0])
    assert await world.value("select count(*) from runs") == 1


async def test_rule_07_an_event_that_cannot_be_reacted_to_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.engine import react, waits

    real = waits.waits_ended_by

    async def breaks(connection: Any, rows: list[Any]) -> AsyncIterator[Any]:
        if any(row["name"] == "broken" for row in rows):
            raise RuntimeError("a bug that only this event meets")
        async for found in real(connection, rows):
            yield found

    monkeypatch.setattr(react, "waits_ended_by", breaks)
    await world.function("order", in_turn("a"))
    await world.send_many([("order/sent", None), ("broken", None), ("order/sent", None), ("order/sent", None)])
    await world.engine()
    rows = await world.until(
        lambda: world.rows("select * from runs where ended_at is not null"), lambda rows: len(rows) == 3
    )
    assert {row["status"] for row in rows} == {"completed"}
    left = "select e.name from inbox b join events e on e.id = b.event_id"
    await world.until(lambda: world.column(left), lambda names: names == ["broken"])


async def test_rule_08_a_batch_of_two_tenants_writes_each_row_for_its_own(world: World) -> None:
    gate = Gate()
    await world.function("order", gate)
    await world.function("order", gate, scope=world.theirs)
    await world.engine()
    for scope in (world.mine, world.theirs):
        await world.send("order/sent", scope=scope)
    held = [await gate.next(), await gate.next()]
    stop = world.stop_at("commit.before")
    for _, answer in held:
        answer.set_result(
            ops({"op": "WaitForSignal", "id": "s", "name": "go", "opts": {"signal": "go", "timeout": "1h"}})
        )
    await stop.reached()
    stop.go()
    rows = await world.until(
        lambda: world.rows("select * from pauses where signal = 'go'"), lambda rows: len(rows) == 2
    )
    assert {row["environment_id"] for row in rows} == {world.mine.environment_id, world.theirs.environment_id}
    for table in ("runs", "steps", "items", "history", "pauses"):
        scopes = await world.rows(f"select distinct account_id, environment_id from {table}")
        assert {tuple(s) for s in scopes} == {
            (scope.account_id, scope.environment_id) for scope in (world.mine, world.theirs)
        }, table


async def test_rule_09_a_child_ends_without_waiting_for_its_parent_and_holds_nobody_up(world: World) -> None:
    gate = Gate()

    def parent(call: Call) -> Answer:
        return result() if "c" in call.steps else ops(invokes("c", "child"))

    await world.function("child", gate)
    await world.function("order", parent)
    await world.function("other", in_turn("a"))
    await world.engine()
    run_id = await world.begin("order")
    child, answer = await gate.next()
    async with world.locked(run_id):
        answer.set_result(result(5))
        assert (await world.ended(child.run_id))["status"] == "completed"
        assert (await world.ended(await world.begin("other")))["status"] == "completed"
        assert (await world.steps(run_id))["c"] == "invoking"
    assert (await world.ended(run_id))["status"] == "completed"
    assert world.apps.of(run_id)[-1].steps["c"] == {"data": 5}


async def test_rule_09_batches_that_wake_the_same_lanes_do_not_deadlock(world: World) -> None:
    def forks(call: Call) -> Answer:
        if call.target:
            return ops(ran(call.target))
        names = [f"p{n}" for n in range(4)]
        if call.done >= set(names):
            return result()
        return ops(*({"op": "StepPlanned", "id": n, "name": n, "opts": {}} for n in names))

    for slug in ("a", "b", "c", "d"):
        await world.function(slug, forks, concurrency=[{"limit": 2}])
    for _ in range(3):
        await world.engine(max_calls=4)
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    before = await world.value(deadlocks)
    await world.send_many([(f"{slug}/sent", None) for slug in ("a", "b", "c", "d") * 4])
    rows = await world.all_ended()
    assert [row["status"] for row in rows] == ["completed"] * 16
    assert await world.value(deadlocks) == before
    assert max(world.apps.most_at_once.values()) <= 2
