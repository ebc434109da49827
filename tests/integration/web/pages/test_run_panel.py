"""What the panel of a step offers: its raw calls, ids for logs, a test to copy, and a replay with something changed."""

import html
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from app.domain.ids import parse_ulid
from app.store.db import open_engine_pool
from tests import world
from tests.page_app import QuietBell, make_app
from tests.world import step_key

RUNS = "/env/production/runs"


@pytest.fixture
async def client(database: str, page_pool: Any, ours: Any) -> Any:
    pool = await open_engine_pool(database, size=3)
    app: Any = make_app(page_pool, ours, engine_pool=pool, bell=QuietBell())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        yield client
    await pool.close()


@pytest.fixture
async def story(owner: Any, ours: Any) -> Any:
    """Give a failed run whose last call has a kept answer, of a function that can be replayed."""
    function = await world.make_function(owner, ours)
    now = await owner.fetchval("select clock()")
    await owner.execute(
        "insert into lanes (id, account_id, environment_id, function_id) values ($1, $2, $3, $4) on conflict do nothing",
        world.lane_id(function), ours.account_id, ours.environment_id, function.id,
    )  # fmt: skip
    config = {"id": "x", "name": "x", "triggers": [{"event": "order/placed"}],
              "steps": {"step": {"runtime": {"type": "http", "url": "http://shop.test/api/inngest"}}}}  # fmt: skip
    await owner.execute("update functions set config = $2 where id = $1", function.id, json.dumps(config))
    story = world.order_failed(function, now - timedelta(minutes=10))
    call = [h for h in story.history if h["kind"] == "call"][-1]
    answer = {"headers": {"server": "nginx", "x-evil": "<script>"}, "body": "<html>Bad gateway</html>"}
    call["detail"] = json.dumps(json.loads(call["detail"]) | {"answer": answer, "request_id": "01REQUEST"})
    return await story.save(owner)


async def text_of(client: Any, path: str) -> str:
    answer = await client.get(path)
    assert answer.status_code == 200
    return str(html.unescape(answer.text))


async def test_the_details_show_request_and_answer_with_their_headers(client: Any, story: Any) -> None:
    text = await text_of(client, f"{RUNS}/{story.ulid}?step={step_key('notify-warehouse')}&tab=details")
    assert "server: nginx" in text
    assert "<html>Bad gateway</html>" in text
    assert (
        "<html>Bad gateway"
        not in (await client.get(f"{RUNS}/{story.ulid}?step={step_key('notify-warehouse')}&tab=details")).text
    )
    assert re.search(r"POST http://\S+fnId=\S+&stepId=", text)
    assert f"x-run-id: {story.ulid}" in text
    assert "x-request-id: 01REQUEST" in text
    # What was settled before is in the body, as it was sent.
    assert step_key("validate-cart") in text


async def test_the_logs_tab_says_that_there_are_none_and_gives_ids_to_find_them_by(client: Any, story: Any) -> None:
    text = await text_of(client, f"{RUNS}/{story.ulid}?step={step_key('notify-warehouse')}&tab=logs")
    assert "Apps do not send their logs to Stepwell" in text
    assert "01REQUEST" in text


async def test_a_test_to_copy_holds_the_event_and_the_steps_before(client: Any, story: Any) -> None:
    text = await text_of(client, f"{RUNS}/{story.ulid}?step={step_key('charge-card')}&tab=test")
    assert "ord_58213" in text
    assert '"validate-cart": load(' in text
    assert '"notify-warehouse": load(' not in text


async def test_a_step_is_replayed_with_edited_input(owner: Any, client: Any, story: Any) -> None:
    edit = f"{RUNS}/{story.ulid}/edit"
    key = step_key("notify-warehouse")
    await owner.execute(
        "update steps set input = '[{\"price\":1.10}]' where run_id = $1 and step_key = $2", story.id, key
    )
    assert f"/edit?step={key}" in await text_of(client, f"{RUNS}/{story.ulid}?step={key}")
    assert '"price": 1.10' in await text_of(client, f"{edit}?step={key}")
    wrong = await client.post(edit, data={"step": key, "json": '[{"a": 1,}]'})
    assert wrong.status_code == 422
    assert "Line 1, column" in wrong.text
    assert '[{"a": 1,}]' in html.unescape(wrong.text)
    assert (await client.post(edit, data={"step": key, "json": "{}"})).status_code == 422
    answer = await client.post(edit, data={"step": key, "json": '[{"order_id": "ord_2"}]'})
    assert answer.status_code == 303
    new = parse_ulid(answer.headers["location"].rsplit("/", 1)[1])
    rows = await owner.fetch("select step_key, state, input from steps where run_id = $1", new)
    assert {r["step_key"]: r["input"] for r in rows}[key] == '[{"order_id":"ord_2"}]'
    assert step_key("charge-card") in {r["step_key"] for r in rows}


async def test_a_run_is_replayed_with_an_edited_event(owner: Any, client: Any, story: Any) -> None:
    edit = f"{RUNS}/{story.ulid}/edit"
    assert "ord_58213" in await text_of(client, edit)
    assert (await client.post(edit, data={"step": "run", "json": "[]"})).status_code == 422
    answer = await client.post(edit, data={"step": "run", "json": '{"order_id": "ord_9"}'})
    assert answer.status_code == 303
    payload = await owner.fetchval(
        "select e.payload from runs r join events e on e.environment_id = r.environment_id and e.id = r.event_id"
        " and e.received_at = r.event_received_at where r.id = $1", parse_ulid(answer.headers["location"].rsplit("/", 1)[1]),
    )  # fmt: skip
    assert json.loads(payload)["data"] == {"order_id": "ord_9"}
    page = await text_of(client, answer.headers["location"])
    assert f"{RUNS}/{story.ulid}" in page
    detail = await owner.fetchval(
        "select detail from audit_log where action = 'run.replayed' and object = $1", story.ulid
    )
    assert '"edited"' in detail


async def test_what_takes_no_input_says_so_and_what_is_not_there_is_not_found(client: Any, story: Any) -> None:
    edit = f"{RUNS}/{story.ulid}/edit"
    assert "This kind of step takes no input." in await text_of(client, f"{edit}?step={step_key('cool-off')}")
    assert (await client.get(f"{edit}?step=nonsense")).status_code == 404
    assert (await client.get(f"{edit}?step=%00")).status_code == 404


async def test_a_run_whose_event_is_past_its_time_says_so(client: Any, story: Any, owner: Any) -> None:
    assert "ord_58213" in await text_of(client, f"{RUNS}/{story.ulid}?step=run&tab=input")
    await owner.execute("delete from events where id = $1", story.event_id)
    assert "The event is not kept any more" in await text_of(client, f"{RUNS}/{story.ulid}?step=run&tab=input")
