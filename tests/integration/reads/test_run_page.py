"""One run read back from a real database."""

import json
from typing import Any

import pytest

from app.domain.scope import Scope
from app.reads.machine import batch_of_run
from app.reads.run_page import load_run, run_version
from app.reads.step_panel import load_detail
from app.reads.stored import LARGEST
from app.store.db import tenant
from tests import world
from tests.world import step_key


@pytest.fixture
async def function(owner: Any, ours: Any) -> Any:
    return await world.make_function(owner, ours)


@pytest.fixture
async def now(owner: Any) -> Any:
    return await owner.fetchval("select clock()")


def rows(page: Any) -> Any:
    return {r.name: r for r in page.timeline.flat()}


async def test_a_failed_run_explains_itself(owner: Any, page_pool: Any, ours: Any, function: Any, now: Any) -> None:
    story = await world.order_failed(function, now).save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
        detail: Any = await load_detail(connection, ours.environment_id, page, page.failing_step())
    assert page.row.state == "failed"
    assert rows(page)["charge-card"].attempts == 3
    assert rows(page)["Parallel"].kind == "group"
    assert (rows(page)["wait-for-approval"].note.kind, rows(page)["cool-off"].note.kind) == ("matched", "slept")
    assert len(page.timeline.folds) == 2
    assert (detail.name, detail.problem.name) == ("notify-warehouse", "WarehouseTimeout")
    assert any(line.is_first for line in detail.problem.stack)
    assert [(a.number, a.state) for a in detail.attempts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "failed"),
        (4, "failed"),
    ]
    assert [round(a.backoff_ms) for a in detail.attempts[:3]] == [1197, 2397, 4097]
    assert json.loads(detail.input.text)["order_id"] == "ord_58213"


async def test_payloads_come_as_they_were_stored(
    owner: Any, page_pool: Any, ours: Any, function: Any, now: Any
) -> None:
    story = world.Story(function, now).begin().call("a", 10)
    story.settle("a", memo='{"data":{"big":1152921504606846977,"price":1.10}}')
    await story.complete({"x": 1}).save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
        step: Any = await load_detail(connection, ours.environment_id, page, step_key("a"))
        whole: Any = await load_detail(connection, ours.environment_id, page, None)
    assert step.output.text == '{"big":1152921504606846977,"price":1.10}'
    assert whole.output.text.replace(" ", "") == '{"x":1}'
    assert json.loads(whole.input.text)["name"] == "order/placed"


async def test_large_outputs_are_cut_and_say_so(owner: Any, page_pool: Any, ours: Any, function: Any, now: Any) -> None:
    story = world.Story(function, now).begin().call("a", 10).settle("a", output="x" * (LARGEST + 1000)).complete()
    await story.save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
        detail: Any = await load_detail(connection, ours.environment_id, page, step_key("a"))
    assert detail.output.is_cut
    assert len(detail.output.text) == LARGEST
    assert detail.output.octets > LARGEST


async def test_a_late_answer_is_an_attempt_that_did_not_count(
    owner: Any, page_pool: Any, ours: Any, function: Any, now: Any
) -> None:
    story = (
        world.Story(function, now)
        .begin()
        .call("a", 10, outcome="ignored")
        .call("a", 10)
        .settle("a", output=1)
        .complete()
    )
    await story.save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
        detail: Any = await load_detail(connection, ours.environment_id, page, step_key("a"))
    assert rows(page)["a"].attempts == 1
    assert [a.state for a in detail.attempts] == ["ignored", "completed"]


async def test_a_retried_step_that_a_checkpoint_saves_shows_all_its_attempts(
    owner: Any, page_pool: Any, ours: Any, function: Any, now: Any
) -> None:
    story = world.Story(function, now).begin().call("pay", 10, failure=world.DECLINED).wait(2000)
    story.call("pay", 10, attempt=1, failure=world.DECLINED).wait(2000)
    began = story.now
    # The third call is of no particular step: it saves two steps while it runs, 40 ms each.
    story.wait(40).commit().settle("pay", output="ch_1").wait(40).commit().settle("receipt", output="sent")
    ended = story.now
    story.now = began
    story.call(None, 100, attempt=2)
    story.complete("ok")
    await story.save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
        detail: Any = await load_detail(connection, ours.environment_id, page, step_key("pay"))
    assert [b.kind for b in rows(page)["pay"].bars if b.kind != "queue"] == ["fail", "back", "fail", "back", "ok"]
    assert rows(page)["pay"].attempts == 3
    assert [(a.number, a.state, round(a.ms)) for a in detail.attempts] == [
        (1, "failed", 10),
        (2, "failed", 10),
        (3, "completed", 40),
    ]
    assert round(rows(page)["receipt"].ms) == 40
    assert rows(page)["receipt"].start_ms == pytest.approx((ended - now).total_seconds() * 1000 - 40)


async def test_steps_saved_by_a_checkpoint_are_drawn_without_calls(
    owner: Any, page_pool: Any, ours: Any, function: Any, now: Any
) -> None:
    story = world.Story(function, now).begin().wait(100).commit()
    began = story.now
    story.wait(300).settle("a", output=1, started_at=began).complete()
    await story.save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
    row = rows(page)["a"]
    assert [b.kind for b in row.bars] == ["ok"]
    assert round(row.ms) == 300


@pytest.mark.parametrize("detail", ["{", '{"ms":"soon"}', '{"error":7,"status":"x"}', "[]", '"\\ud800"'])
async def test_a_history_row_nobody_understands_does_not_break_the_page(
    *, owner: Any, page_pool: Any, ours: Any, function: Any, now: Any, detail: Any
) -> None:
    story = world.Story(function, now).begin().call("a", 10).settle("a", output=1).complete()
    next(h for h in story.history if h["kind"] == "call")["detail"] = detail
    await story.save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
        assert await load_detail(connection, ours.environment_id, page, step_key("a")) is not None


async def test_a_run_of_another_tenant_does_not_exist(
    *, owner: Any, page_pool: Any, ours: Any, theirs: Any, function: Any, now: Any
) -> None:
    story = await world.order_completed(function, now).save(owner)
    async with tenant(page_pool, theirs.account_id) as connection:
        assert await load_run(connection, theirs.environment_id, story.id) is None
        assert await load_run(connection, ours.environment_id, story.id) is None
        assert await run_version(connection, ours.environment_id, story.id) is None


async def test_an_unknown_step_is_nothing(owner: Any, page_pool: Any, ours: Any, function: Any, now: Any) -> None:
    story = await world.order_completed(function, now).save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        page: Any = await load_run(connection, ours.environment_id, story.id)
        assert await load_detail(connection, ours.environment_id, page, "nonsense") is None
        assert await run_version(connection, ours.environment_id, story.id) == (story.version, True)


async def test_the_events_of_a_run_are_all_there_or_said_to_be_gone(
    owner: Any, page_pool: Any, ours: Any, function: Any, now: Any
) -> None:
    story = await world.Story(function, now).begin().complete().save(owner)
    scope = Scope(ours.account_id, ours.environment_id)
    async with tenant(page_pool, ours.account_id) as connection:
        assert b"ord_58213" in (await batch_of_run(connection, scope, story.id) or b"")
    await owner.execute("delete from events where id = $1", story.event_id)
    async with tenant(page_pool, ours.account_id) as connection:
        assert await batch_of_run(connection, scope, story.id) is None
