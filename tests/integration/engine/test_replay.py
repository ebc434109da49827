"""A run made again: what is kept does not run again, what is dropped does, and nobody else's run can be made."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.adapters.http import Answer
from app.domain.errors import Refused
from app.domain.event import NewEvent
from app.domain.ids import RunId, to_ulid
from app.engine.replay import ReplayOfNothing, ReplayRefused, replay, replays_of
from tests.integration.engine.played import Played, failed, ops, playing, ran, result, tenant
from tests.invariants import blocks, violations


@pytest.fixture
async def played(database: str) -> AsyncIterator[Played]:
    async with playing(database) as made:
        yield made
        async with made.pool.acquire() as connection:
            assert await violations(connection, but=made.allowed) == []


class Order:
    """A function of three steps in a row, of which `broken` ones fail; remembers which ran."""

    def __init__(self) -> None:
        self.broken = {"pay"}
        self.ran: list[str] = []

    def __call__(self, steps: dict[str, Any], target: str | None) -> Answer:
        for name in ("reserve", "pay", "send"):
            memo = steps.get(name)
            if memo is None or "input" in memo:
                self.ran.append(name)
                if name in self.broken:
                    return ops(failed(name))
                return ops(ran(name, memo["input"] if memo else f"{name} {len(self.ran)}"))
            if "error" in memo:
                return Answer(400, {"x-inngest-sdk": "js:v4.24.0"}, b'{"name":"Error","message":"no"}', 1.0)
        return result([steps[name]["data"] for name in ("reserve", "pay", "send")])


async def output_of(played: Played, run_id: RunId) -> Any:
    rows = await played.rows("select detail from history where run_id = $1 and kind = 'run.completed'", run_id)
    return json.loads(rows[0]["detail"])["output"]


async def test_from_the_failed_step_only_what_failed_or_never_ran_runs(played: Played) -> None:
    order = Order()
    await played.function("order", order)
    first = await played.begin("order")
    assert (await played.run(first))["status"] == "failed"
    assert order.ran == ["reserve", "pay"]

    order.broken = set()
    again = await replay(played.pool, played.scope, first)
    await played.ended(again)

    assert order.ran == ["reserve", "pay", "pay", "send"]
    assert await output_of(played, again) == ["reserve 1", "pay 3", "send 4"]
    row, original = await played.run(again), await played.run(first)
    assert (row["status"], row["original_run_id"], row["completed"]) == ("completed", first, 3)
    assert (row["event_id"], row["event_name"]) == (original["event_id"], "order/sent")
    assert original["status"] == "failed"


async def test_both_runs_know_each_other_and_the_first_line_of_history_says_so(played: Played) -> None:
    order = Order()
    await played.function("order", order)
    first = await played.begin("order")
    again = [await replay(played.pool, played.scope, first) for _ in range(2)]
    async with played.pool.acquire() as connection:
        assert await replays_of(connection, played.scope, first) == sorted(again)
    told = await played.rows(
        "select kind, detail from history where run_id = $1 and version = 0 and position = 1", again[0]
    )
    assert told[0]["kind"] == "run.created"
    assert json.loads(told[0]["detail"]) == {"replayed_from": to_ulid(first), "from_step": "failed", "kept": 1}
    for run_id in again:
        await played.ended(run_id)


async def test_from_the_start_everything_runs_again(played: Played) -> None:
    order = Order()
    await played.function("order", order)
    first = await played.begin("order")
    order.broken, order.ran = set(), []
    again = await played.ended(await replay(played.pool, played.scope, first, from_step="start"))
    assert order.ran == ["reserve", "pay", "send"]
    assert (await played.run(again))["status"] == "completed"


async def test_from_a_step_with_other_arguments_the_app_is_given_them(played: Played) -> None:
    order = Order()
    order.broken = set()
    await played.function("order", order)
    first = await played.begin("order")
    order.ran = []
    again = await played.ended(
        await replay(played.pool, played.scope, first, from_step="pay", input=b'[{"amount": 5.0}, "EUR"]')
    )
    assert order.ran == ["pay", "send"]
    assert played.calls_of(again)[0]["pay"] == {"input": [{"amount": 5}, "EUR"]}
    assert "send" not in played.calls_of(again)[0]
    assert await output_of(played, again) == ["reserve 1", [{"amount": 5}, "EUR"], "send 2"]


async def test_memo_order_is_kept_without_gaps(played: Played) -> None:
    names = ["a", "b", "c", "d"]
    is_broken = True

    def answer(steps: dict[str, Any], target: str | None) -> Answer:
        if not steps:
            # Results in one answer keep the order in which they are told.
            return ops(ran("c", 1), ran("a", 2), {**failed("b")} if is_broken else ran("b", 0), ran("d", 3))
        if "b" not in steps:
            return ops(ran("b", 4))
        return result("done") if "data" in steps["b"] else Answer(400, {"x-inngest-sdk": "js:v4.24.0"}, b"{}", 1.0)

    await played.function("mixed", answer)
    first = await played.begin("mixed")
    assert (await played.run(first))["status"] == "failed"
    again = await played.ended(await replay(played.pool, played.scope, first))
    rows = await played.rows("select step_key, memo_order from steps where run_id = $1 order by memo_order", again)
    assert [(row["step_key"], row["memo_order"]) for row in rows] == [("c", 1), ("a", 2), ("d", 3), ("b", 4)]
    assert {row["step_key"] for row in rows} == set(names)


async def test_the_same_cause_makes_one_run(played: Played) -> None:
    order = Order()
    await played.function("order", order)
    first = await played.begin("order")
    at = (await played.run(first))["ended_at"]
    ids = {await replay(played.pool, played.scope, first, cause=b"bulk 1", at=at) for _ in range(3)}
    assert len(ids) == 1
    await played.ended(ids.pop())
    assert order.ran == ["reserve", "pay", "pay"]


async def test_a_run_of_another_tenant_is_unknown(played: Played) -> None:
    order = Order()
    await played.function("order", order)
    first = await played.begin("order")
    with pytest.raises(ReplayOfNothing):
        await replay(played.pool, await tenant(played.pool), first)


async def test_a_run_that_goes_on_can_only_begin_again_from_the_start(played: Played) -> None:
    def sleeps(steps: dict[str, Any], target: str | None) -> Answer:
        return ops({"op": "Sleep", "id": "nap", "name": "1h", "displayName": "nap"})

    await played.function("sleepy", sleeps)
    event_id = (await played.ingest.add(played.scope, [NewEvent("sleepy/sent", b"{}", 1_700_000_000_000)]))[0]
    rows = await played.until(
        "select r.id from runs r join steps s on s.run_id = r.id where r.event_id = $1 and s.state = 'sleeping'",
        event_id,
    )
    with pytest.raises(ReplayRefused) as refused:
        await replay(played.pool, played.scope, RunId(rows[0]["id"]), from_step="nap")
    assert refused.value.code == "run_not_ended"
    again = await replay(played.pool, played.scope, RunId(rows[0]["id"]), from_step="start")
    assert (await played.run(again))["completed"] == 0


async def test_a_run_made_again_is_ended_from_outside_by_the_rules_of_its_function(played: Played) -> None:
    is_over = True

    def naps(steps: dict[str, Any], target: str | None) -> Answer:
        return result("done") if is_over else ops({"op": "Sleep", "id": "nap", "name": "1h", "displayName": "nap"})

    rule = {"event": "order/cancelled", "if": "event.data.n == async.data.n"}
    await played.function("order", naps, cancel=[rule], timeouts={"start": "1h", "finish": "2h"})
    first = await played.begin("order")
    is_over = False
    again = await replay(played.pool, played.scope, first)
    kinds = await played.until(
        "select min(kind) from items where run_id = $1 and kind in ('sleep', 'finish_timeout') having count(*) = 2",
        again,
    )
    assert kinds
    starts = await played.rows("select kind from items where run_id = $1 and kind = 'start_timeout'", again)
    assert len(starts) == 1
    await played.ingest.add(played.scope, [NewEvent("order/cancelled", b'{"n":2}', 1_700_000_000_000)])
    await played.ingest.add(played.scope, [NewEvent("order/cancelled", b'{"n":1}', 1_700_000_000_001)])
    await played.ended(again)
    row = await played.run(again)
    assert (row["status"], row["error_code"]) == ("cancelled", "event")


async def test_a_run_made_again_waits_where_its_event_belongs_now(played: Played) -> None:
    order = Order()
    await played.function("order", order)
    first = await played.begin("order")
    # The limits came after the first run, whose lane holds nobody back.
    limits = {
        "throttle": {"limit": 1, "period": "1h", "key": "event.data.n"},
        "concurrency": {"limit": 1, "key": "event.data.n"},
    }
    await played.function("order", order, **limits)
    before = (await played.run(first))["lane_id"]
    again = await replay(played.pool, played.scope, first)
    await played.ended(again)
    late = await replay(played.pool, played.scope, first)
    rows = await played.until(
        "select i.lane_id, l.blocked_by from items i join lanes l on l.id = i.lane_id"
        " where i.run_id = $1 and l.blocked_by is not null",
        late,
    )
    lanes = [(await played.run(run_id))["lane_id"] for run_id in (again, late)]
    assert lanes[0] == lanes[1] != before
    # The second start within the hour stands in the lane of first items, and the throttle is why.
    assert rows[0]["lane_id"] not in (before, lanes[0])
    assert (await played.run(late))["status"] == "queued"


# Last, because it takes rows away that nothing takes away in a running system.
REFUSALS = [
    ("nothing_failed", {"from_step": "failed"}, ""),
    ("step_unknown", {"from_step": "no such step"}, ""),
    ("input_invalid", {"from_step": "pay", "input": b'{"a":1}'}, ""),
    ("input_invalid", {"from_step": "start", "input": b"[]"}, ""),
    ("function_paused", {}, "update functions set paused_at = clock() where environment_id = $1"),
    ("function_removed", {}, "update functions set archived_at = clock() where environment_id = $1"),
    ("function_removed", {}, "update apps set archived_at = clock() where environment_id = $1"),
    ("state_gone", {}, "delete from events where environment_id = $1"),
    ("state_gone", {"from_step": "send"}, "delete from steps where environment_id = $1"),
]


async def test_with_another_event_the_app_is_given_that_and_nothing_else_is_set_off(played: Played) -> None:
    order = Order()
    order.broken = set()
    await played.function("order", order)
    first = await played.begin("order")
    order.ran = []
    again = await played.ended(
        await replay(played.pool, played.scope, first, from_step="start", data=b'{"total": 5.0, "_inngest": {"x": 1}}')
    )
    rows = await played.rows(
        "select e.id, e.name, e.source, e.payload from events e join runs r on e.environment_id = r.environment_id"
        " and e.id = r.event_id and e.received_at = r.event_received_at where r.id = $1", again,
    )  # fmt: skip
    payload = json.loads(rows[0]["payload"])
    assert (payload["data"], payload["name"], payload["id"]) == ({"total": 5}, "order/sent", to_ulid(rows[0]["id"]))
    assert rows[0]["source"] == "replay"
    assert order.ran == ["reserve", "pay", "send"]
    assert len(await played.rows("select id from runs where event_id = $1", rows[0]["id"])) == 1
    assert (await played.run(first))["event_id"] != rows[0]["id"]


@pytest.mark.parametrize(
    ("data", "from_step", "code"),
    [(b"[1]", "start", "event_data_invalid"), (b"{", "start", "json_invalid"), (b"{}", "pay", "event_invalid")],
)
async def test_what_is_no_event_is_refused(played: Played, data: bytes, from_step: str, code: str) -> None:
    order = Order()
    await played.function("order", order)
    first = await played.begin("order")
    with pytest.raises(Refused) as refused:
        await replay(played.pool, played.scope, first, from_step=from_step, data=data)
    assert refused.value.code == code


@pytest.mark.parametrize(("code", "asked", "before"), REFUSALS)
async def test_what_cannot_be_made_again_is_refused_by_code(
    played: Played, code: str, asked: dict[str, Any], before: str
) -> None:
    order = Order()
    order.broken = set()
    await played.function("order", order)
    first = await played.begin("order")
    if before:
        await played.rows(before, played.scope.environment_id)
        played.allowed = frozenset(blocks())
    count = await played.rows("select count(*) as n from runs")
    with pytest.raises(ReplayRefused) as refused:
        await replay(played.pool, played.scope, first, **asked)
    assert refused.value.code == code
    assert await played.rows("select count(*) as n from runs") == count
