"""Errors as groups: what belongs together, what muting does, and what a list of functions says beside its rows."""

import re
from datetime import timedelta
from typing import Any

from tests import world
from tests.integration.web.pages.people import Person, store_function


async def fail(owner: Any, function: world.Function, message: str, minutes: int = 1) -> world.Story:
    """Write a run that failed with this message."""
    now = await owner.fetchval("select clock()")
    story = world.Story(function, now - timedelta(minutes=minutes)).begin().call("step", 20)
    return await story.fail(world.error("WarehouseTimeout", message)).save(owner)


async def test_failures_alike_are_one_group_with_its_runs(ada: Person, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "pack")
    for n in range(3):
        await fail(owner, function, f"order {n}: no answer within 500 ms", 5 - n)
    other = await fail(owner, function, "the warehouse is closed")
    page = (await ada.get("/errors")).text
    links = re.findall(r'href="(/env/production/errors/[0-9a-f]{16})"', page)
    assert len(links) == 2
    group = (await ada.client.get(links[0])).text
    assert "3 runs" in group
    assert group.count('class="lnk mono"') == 3
    assert f"alike={other.ulid}" in (await ada.client.get(links[1])).text
    tab = (await ada.get("/functions/shop-pack/errors")).text
    assert all(link in tab for link in links)


async def test_a_muted_error_is_off_the_lists_until_it_is_unmuted(ada: Person, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "pack")
    await fail(owner, function, "the warehouse is closed")
    (path,) = re.findall(r'href="/env/production(/errors/[0-9a-f]{16})"', (await ada.get("/errors")).text)
    assert "the warehouse is closed" in (await ada.get("")).text
    assert (await ada.post(f"{path}/mute", reason="Closed until <Monday>")).status_code == 303
    assert path not in (await ada.get("/errors")).text
    assert "the warehouse is closed" not in (await ada.get("")).text
    assert path in (await ada.get("/errors?state=muted")).text
    shown = (await ada.get(path)).text
    assert "Closed until &lt;Monday&gt;" in shown
    assert ada.tenant.email in shown
    await ada.post(f"{path}/unmute")
    assert path in (await ada.get("/errors")).text


async def test_a_list_of_functions_gets_its_numbers_when_its_rows_stand(ada: Person, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "pack")
    now = await owner.fetchval("select clock()")
    for _ in range(3):
        await world.order_completed(function, now - timedelta(minutes=9)).save(owner)
    await fail(owner, function, "the warehouse is closed")
    page = (await ada.get("/functions")).text
    assert 'hx-get="/env/production/functions/volumes?"' in page
    numbers = (await ada.get("/functions/volumes")).text
    assert f'hx-target="#vol-{function.id}"' in numbers
    assert "4 runs in the last 24 hours, of which 1 failed" in numbers
    assert "25 %" in numbers
    assert "2.8" in numbers


async def test_a_function_tells_how_it_does(ada: Person, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "pack")
    await fail(owner, function, "the warehouse is closed")
    await owner.execute(
        "insert into flow_limits (id, account_id, environment_id, function_id, kind, cap)"
        " values (gen_random_uuid(), $1, $2, $3, 'calls', 5)",
        ada.tenant.account_id, ada.tenant.environment_id, function.id,
    )  # fmt: skip
    for path in ("/functions/shop-pack/vitals", "/functions/shop-pack?vitals=1"):
        text = (await ada.get(path)).text
        assert "0 of 5" in text
        assert "100 %" in text
        assert "20 ms" in text


async def test_resuming_offers_to_replay_what_the_pause_left_out(ada: Person, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "pack")
    await owner.execute("update functions set paused_at = clock() - interval '5 minutes' where id = $1", function.id)
    event = await owner.fetchval("select ulid_floor(clock())")
    await owner.execute(
        "insert into dispositions (environment_id, event_id, function_id, account_id, outcome)"
        " values ($1, $2, $3, $4, 'paused')",
        ada.tenant.environment_id, event, function.id, ada.tenant.account_id,
    )  # fmt: skip
    assert "1 event arrived since" in (await ada.get("/functions/shop-pack")).text
    there = (await ada.post("/functions/shop-pack/resume")).headers["location"]
    (link,) = re.findall(r'href="([^"]*/bulk/new[^"]*)"', (await ada.client.get(there)).text)
    assert "fn=shop-pack" in link
    assert (await ada.client.get(link.replace("&amp;", "&"))).status_code == 200
    assert "bulk/new" not in (await ada.get("/functions/shop-pack?resumed=<script>")).text
