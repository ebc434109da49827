"""The panel that says why a run is not moving, as a browser without scripts and as htmx get it."""

import re
from datetime import timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from app.domain.ids import derive_uuid, to_ulid
from app.domain.matching import stored_wait
from tests import world
from tests.page_app import make_app

RUNS = "/env/production/runs"
PANEL = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "section#why"}


@pytest.fixture
async def client(page_pool: Any, ours: Any) -> Any:
    app: Any = make_app(page_pool, ours)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        yield client


@pytest.fixture
async def now(owner: Any) -> Any:
    return await owner.fetchval("select clock()")


async def panel(client: Any, story: Any) -> str:
    answer = await client.get(f"{RUNS}/{story.ulid}/why", headers=PANEL)
    assert answer.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


async def hold(owner: Any, ours: Any, function: Any, holder: Any) -> None:
    """Give the function's lane a limit of one call for the key `<b>anna`, and its slot to a run."""
    key, limit, lease = (derive_uuid(word, str(function.id)) for word in ("key", "limit", "lease"))
    scope = (ours.account_id, ours.environment_id)
    await owner.execute(
        "insert into flow_limits (id, account_id, environment_id, kind, cap) values ($1, $2, $3, 'calls', 1)",
        limit, *scope,
    )  # fmt: skip
    await owner.execute(
        "insert into flow_keys (id, account_id, environment_id, key, scope) values ($1, $2, $3, '<b>anna', 'function')",
        key, *scope,
    )  # fmt: skip
    await owner.execute(
        "insert into lanes (id, account_id, environment_id, function_id, key, flow_key_ids, limit_ids, is_gated)"
        " values ($1, $2, $3, $4, 'anna', $5, $6, true)",
        world.lane_id(function), *scope, function.id, [key], [limit],
    )  # fmt: skip
    await owner.execute("update items set lane_id = $2 where function_id = $1", function.id, world.lane_id(function))
    await owner.execute(
        "insert into slots (flow_key_id, lease_id, account_id, environment_id, run_id, item_id)"
        " select $1, $2, $3, $4, $5, id from items where run_id = $5",
        key, lease, *scope, holder.id,
    )  # fmt: skip


async def test_a_sleeping_run_says_which_step_sleeps_and_until_when(
    owner: Any, ours: Any, client: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    story = await world.order_waiting(function, now - timedelta(minutes=1)).save(owner)
    page = (await client.get(f"{RUNS}/{story.ulid}")).text
    assert f'hx-get="{RUNS}/{story.ulid}/why" hx-trigger="load' in page
    assert "a-day-later sleeps and ends in" in await panel(client, story)
    assert "<h1>" in (await client.get(f"{RUNS}/{story.ulid}/why")).text


async def test_a_full_limit_names_key_holder_and_place_and_is_the_title_of_the_queue_wait(
    owner: Any, ours: Any, client: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    holder = await world.order_running(function, now - timedelta(minutes=2)).save(owner)
    story = await world.order_queued(function, now - timedelta(minutes=1)).save(owner)
    await hold(owner, ours, function, holder)
    said = await panel(client, story)
    assert "The limit of 1 call at a time of this function for the key &lt;b&gt;anna is full: 1 in use" in said
    assert "place 1" in said
    assert f"/env/{ours.slug}/runs/{holder.ulid}" in (await client.get(f"{RUNS}/{story.ulid}/why")).text
    page = (await client.get(f"{RUNS}/{story.ulid}")).text
    titles = re.findall(r"<title>(Queued [^<]*)</title>", page)
    assert any("limit of 1 call at a time" in title and "anna is full" in title for title in titles)


async def test_a_wait_shows_its_condition_and_links_the_events_that_missed_it(
    owner: Any, ours: Any, client: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    began = now - timedelta(minutes=1)
    story = world.Story(function, began).begin()
    story.call(None, 10).plan("approval", kind="wait_for_event", state="waiting", opts={"event": "order/approved"})
    await story.item("timeout", "approval", due_in_ms=3_600_000).save(owner)
    stored = stored_wait("async.data.id == event.data.id", b'{"data": {"id": "A7"}}')
    await owner.execute(
        "insert into pauses (run_id, step_key, account_id, environment_id, kind, event_name, expression, match_path,"
        " match_value, requested_at) values ($1, $2, $3, $4, 'wait_for_event', 'order/approved', $5, $7, $8, $6)",
        story.id, world.step_key("approval"), ours.account_id, ours.environment_id, stored.expression, began,
        stored.path, stored.value,
    )  # fmt: skip
    other = world.Story(function, now - timedelta(seconds=5), event_name="order/approved", event_data={"id": "B8"})
    await other.complete().save(owner)
    said = await panel(client, story)
    assert "approval waits for the event order/approved ; it times out in" in said
    assert "async.data.id is B8, not A7" in said
    text = (await client.get(f"{RUNS}/{story.ulid}/why")).text
    assert f"/env/{ours.slug}/events/{to_ulid(other.event_id)}" in text


async def test_a_run_that_moves_or_has_ended_says_that(owner: Any, ours: Any, client: Any, now: Any) -> None:
    function = await world.make_function(owner, ours)
    done = await world.order_completed(function, now - timedelta(minutes=1)).save(owner)
    assert "It has ended." in await panel(client, done)
    assert "/why" not in (await client.get(f"{RUNS}/{done.ulid}")).text
    assert (await client.get(f"{RUNS}/01KAQ7M4VXE8T2R6H9BZC3WDNP/why")).status_code == 404
