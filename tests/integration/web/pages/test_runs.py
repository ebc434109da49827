"""The pages as a browser without scripts, and htmx, get them."""

import gzip
import re
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from httpx import ASGITransport, AsyncClient

from app.domain.ids import to_ulid
from tests import world
from tests.page_app import make_app
from tests.world import step_key

RUNS = "/env/production/runs"
PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial"}


@pytest.fixture
async def now(owner: Any) -> Any:
    return await owner.fetchval("select clock()")


@pytest.fixture
async def stories(owner: Any, ours: Any, theirs: Any, now: Any) -> Any:
    await world.make_showcase(owner, theirs, now)
    return await world.make_showcase(owner, ours, now)


@pytest.fixture
async def client(page_pool: Any, ours: Any) -> Any:
    app: Any = make_app(page_pool, ours)
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@pytest.fixture
def statements(page_pool: Any, monkeypatch: Any) -> Any:
    """Give the list of statements that handlers send; transactions and the tenant are not counted."""
    seen: list[str] = []
    for name in ("fetch", "fetchrow", "fetchval"):
        real = getattr(asyncpg.Connection, name)

        def spy(self: Any, query: Any, *args: Any, _real: Any = real, **kwargs: Any) -> Any:
            seen.append(query)
            return _real(self, query, *args, **kwargs)

        monkeypatch.setattr(asyncpg.Connection, name, spy)
    return seen


async def test_the_start_page_leads_to_the_runs(client: Any) -> None:
    answer = await client.get("/", follow_redirects=False)
    assert answer.headers["location"] == RUNS


async def test_the_list_shows_every_run_as_a_link_and_nobody_elses(client: Any, stories: Any) -> None:
    answer = await client.get(RUNS)
    assert answer.status_code == 200
    links = re.findall(r'href="/env/production/runs/(\w{26})"', answer.text)
    assert links == sorted((s.ulid for s in stories.values()), reverse=True)
    assert answer.headers["cache-control"] == "private, no-store"
    assert "<title>Runs · Production · Stepwell</title>" in answer.text


async def test_a_page_asks_the_database_at_most_six_things(client: Any, stories: Any, statements: Any) -> None:
    await client.get(RUNS)
    assert len(statements) <= 6
    statements.clear()
    for story in stories.values():
        await client.get(f"{RUNS}/{story.ulid}")
        assert len(statements) <= 6
        statements.clear()


async def test_fifty_rows_stay_within_the_budget(owner: Any, client: Any, ours: Any, now: Any) -> None:
    function = await world.make_function(owner, ours)
    for n in range(50):
        await world.order_completed(function, now - timedelta(seconds=n)).save(owner)
    text = (await client.get(RUNS)).text
    assert text.count("<tr id=") == 50
    assert len(gzip.compress(text.encode())) <= 14 * 1024


async def test_a_tab_and_a_search_are_addresses(client: Any, stories: Any) -> None:
    failed = (await client.get(f"{RUNS}?status=failed")).text
    assert re.findall(r'<tr id="run-(\w+)"', failed) == [stories["failed"].ulid]
    waiting = (await client.get(f"{RUNS}?q={stories['waiting'].ulid}")).text
    assert re.findall(r'<tr id="run-(\w+)"', waiting) == [stories["waiting"].ulid]


async def test_nonsense_in_the_address_is_not_an_error(client: Any, stories: Any) -> None:
    for query in ("status=nope", "before=xyz", "size=9999", "last=1y", "after=%00", "q=%27%3B--", "fn=" + "x" * 3000):
        assert (await client.get(f"{RUNS}?{query}")).status_code == 200, query


async def test_a_search_that_is_no_id_says_so_and_keeps_the_list(client: Any, stories: Any) -> None:
    text = (await client.get(f"{RUNS}?q=event.data.total %3E")).text
    assert "ends too early" in text
    assert text.count("<tr id=") == 7


async def test_an_empty_environment_says_what_to_do_next(client: Any) -> None:
    text = (await client.get(RUNS)).text
    assert "No runs yet" in text
    assert "order/placed" in text


async def test_no_match_offers_to_clear_each_filter(client: Any, stories: Any) -> None:
    text = (await client.get(f"{RUNS}?status=failed&q=01KAQ7M4VXE8T2R6H9BZC3WDNP")).text
    assert "No run matches" in text
    assert text.count("remove this filter") == 2


async def test_a_filter_answers_htmx_with_list_tabs_and_poll_only(client: Any, stories: Any) -> None:
    answer = await client.get(f"{RUNS}?status=failed", headers=PARTIAL | {"HX-Target": "section#list"})
    assert "<html" not in answer.text
    assert answer.text.lstrip().startswith('<div class="list-wrap" id="list"')
    assert re.findall(r'hx-partial hx-target="#([\w-]+)"', answer.text) == [
        "tabs",
        "histo",
        "tools",
        "q-problem",
        "chips",
        "changes",
    ]
    assert "HX-Request-Type" in answer.headers["vary"]


async def test_going_back_gets_the_page_not_the_fragment(client: Any, stories: Any) -> None:
    headers = PARTIAL | {"HX-Target": "section#list", "HX-History-Restore-Request": "true"}
    assert "<html" in (await client.get(RUNS, headers=headers)).text


async def test_changes_of_the_list_are_rows_in_place_and_a_pill(
    owner: Any, client: Any, ours: Any, stories: Any, now: Any
) -> None:
    newest = max(s.ulid for s in stories.values())
    function = await world.make_function(owner, ours)
    await world.order_queued(function, now + timedelta(seconds=5)).save(owner)
    running = stories["running"]
    await running.wait(500).complete("done").save(owner)
    text = (await client.get(f"{RUNS}/changes?newest={newest}&live={running.ulid}&live=nonsense", headers=PARTIAL)).text
    assert f'hx-target="#run-{running.ulid}"' in text
    assert "Completed" in text
    assert 'name="live"' not in text
    assert "1 new run. Show it" in text


async def test_a_failed_run_opens_at_its_failing_step(client: Any, stories: Any) -> None:
    text = (await client.get(f"{RUNS}/{stories['failed'].ulid}")).text
    assert "<strong>WarehouseTimeout</strong> in <b>notify-warehouse</b>, after 4 attempts" in text
    assert "<mark>" in text
    assert text.count("<h1") == 1


async def test_every_state_of_a_run_has_a_page(client: Any, stories: Any) -> None:
    for name, story in stories.items():
        answer = await client.get(f"{RUNS}/{story.ulid}")
        assert answer.status_code == 200, name
        assert ("hx-sse:connect" in answer.text) == (name in {"running", "queued", "retrying", "waiting"}), name


async def test_each_tab_of_each_step_can_be_opened_by_address(client: Any, stories: Any) -> None:
    story = stories["failed"]
    for key in ["run", *story.steps]:
        for tab in ("error", "input", "output", "attempts", "details", "nonsense"):
            answer = await client.get(f"{RUNS}/{story.ulid}?step={key}&tab={tab}")
            assert answer.status_code == 200


async def test_opening_a_step_answers_htmx_with_the_panel_only(client: Any, stories: Any) -> None:
    story = stories["completed"]
    url = f"{RUNS}/{story.ulid}?step={step_key('charge-card')}&tab=output"
    text = (await client.get(url, headers=PARTIAL | {"HX-Target": "aside#detail"})).text
    assert "<html" not in text
    assert "ch_1" in text
    assert len(gzip.compress(text.encode())) <= 12 * 1024


async def test_two_hundred_steps_stay_within_the_budget_and_more_can_be_asked_for(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    story = world.Story(await world.make_function(owner, ours), now).begin()
    for n in range(230):
        story.run_step(f"step-{n}", 20, output=n)
    await story.complete().save(owner)
    text = (await client.get(f"{RUNS}/{story.ulid}")).text
    assert text.count('class="nm d1"') == 200
    assert "steps?after=0" in text
    rest = (await client.get(f"{RUNS}/{story.ulid}/steps?after=0", headers=PARTIAL)).text
    assert rest.count('class="nm d1"') == 30
    assert len(gzip.compress(text.encode())) <= 25 * 1024
    assert (await client.get(f"{RUNS}/{story.ulid}?rows=400")).text.count('class="nm d1"') == 230


async def test_changes_of_a_run_are_its_changed_rows_while_the_axis_stays(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    # Just past a round time, so that the axis has minutes until its next one.
    story = await world.order_running(await world.make_function(owner, ours), now - timedelta(seconds=125)).save(owner)
    page = (await client.get(f"{RUNS}/{story.ulid}")).text
    poll = found(r'id="changes"[^>]* hx-get="([^"]+)"', page).replace("&amp;", "&")
    same = (await client.get(poll, headers=PARTIAL)).text
    targets = re.findall(r'hx-partial hx-target="#([\w-]+)"', same)
    assert targets[0] == "run-head"
    assert targets[-1] == "changes"
    assert f"step-{step_key('charge-card')}" in targets
    assert f"step-{step_key('validate-cart')}" not in targets
    assert "timeline" not in targets


async def test_a_new_row_brings_the_whole_timeline(owner: Any, client: Any, ours: Any, now: Any) -> None:
    story = await world.order_running(await world.make_function(owner, ours), now - timedelta(seconds=3)).save(owner)
    page = (await client.get(f"{RUNS}/{story.ulid}")).text
    poll = found(r'id="changes"[^>]* hx-get="([^"]+)"', page).replace("&amp;", "&")
    story.items.clear()
    await story.call("charge-card", 200).settle("charge-card", output=1).run_step("new").complete("ok").save(owner)
    text = (await client.get(poll, headers=PARTIAL)).text
    assert 'hx-target="#timeline"' in text
    assert 'data-status="completed"' in text
    assert 'hx-trigger="never"' in text


async def test_the_stream_of_an_ended_run_says_done_and_ends(client: Any, stories: Any) -> None:
    answer = await client.get(f"{RUNS}/{stories['completed'].ulid}/stream?after=0")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [line for line in answer.text.split("\n") if line.startswith("event")] == ["event: changed", "event: done"]


async def test_what_is_not_ours_or_not_there_is_not_found(owner: Any, client: Any, theirs: Any, stories: Any) -> None:
    other = await owner.fetchval("select id from runs where account_id = $1 limit 1", theirs.account_id)
    for path in (to_ulid(other), "01KAQ7M4VXE8T2R6H9BZC3WDNP", "nonsense"):
        for more in ("", "/changes", "/stream"):
            assert (await client.get(f"{RUNS}/{path}{more}")).status_code == 404
    assert (await client.get("/env/elsewhere/runs")).status_code == 404
    assert (await client.get(f"{RUNS}/{stories['failed'].ulid}?step=nonsense")).status_code == 404


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None
    return match[1]


HOSTILE = "<img src=x onerror=alert(1)>\u202e\x01\"'{{7*7}}<hx-partial hx-target='#main'>"


async def test_whatever_a_tenant_stores_is_shown_as_text(owner: Any, client: Any, ours: Any, now: Any) -> None:
    function = await world.make_function(owner, ours, HOSTILE.replace("\x01", ""))
    failure = world.error(HOSTILE.replace("\x01", ""), HOSTILE.replace("\x01", ""), HOSTILE)
    story = world.Story(function, now, event_name=HOSTILE.replace("\x01", ""), event_data={HOSTILE: HOSTILE}).begin()
    story.call(HOSTILE.replace("\x01", ""), 10, failure=failure)
    story.settle(HOSTILE.replace("\x01", ""), failure=failure, given={HOSTILE: [HOSTILE]}).fail(failure)
    await story.save(owner)
    for path in (RUNS, f"{RUNS}/{story.ulid}", f"{RUNS}/{story.ulid}?step=run&tab=input"):
        text = (await client.get(path)).text
        assert "<img" not in text
        shown = re.sub(r'<div id="[\w-]+-text" hidden>.*?</div>', "", text, flags=re.DOTALL)
        assert "\u202e" not in shown
        assert "[U+202E]" in text
        assert "{{7*7}}" in text
        assert text.count("<hx-partial") == 0


async def test_the_theme_of_the_cookie_is_written_by_the_server(client: Any, stories: Any) -> None:
    client.cookies.set("theme", "dark")
    assert '<html lang="en" data-theme="dark">' in (await client.get(RUNS)).text
    client.cookies.set("theme", '"><script>')
    assert '<html lang="en">' in (await client.get(RUNS)).text


async def test_assets_are_kept_for_ever_under_their_hash_and_not_under_another(client: Any) -> None:
    page = (await client.get("/login")).text
    path = found(r'href="(/static/[^"]+app\.css)"', page)
    fresh = await client.get(path)
    assert fresh.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert fresh.headers["content-type"].startswith("text/css")
    stale = await client.get("/static/000000000000/css/app.css")
    assert stale.headers["cache-control"] == "no-cache"
    assert (await client.get("/static/0/..%2f..%2fpyproject.toml")).status_code == 404


async def test_the_sign_in_form_ties_each_error_to_its_field(client: Any) -> None:
    text = (await client.get("/login?failed=true")).text
    assert 'aria-describedby="email-error"' in text
    assert '<a class="lnk" href="#password">' in text
    assert "<title>Error: Sign in" in text


async def test_an_invoke_unfolds_the_steps_of_its_run_on_the_same_axis(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    parent = world.Story(function, now - timedelta(minutes=1)).begin().call(None, 20)
    parent.plan("ask", kind="invoke", state="invoking", opts={"function_id": "shop-child"})
    child = world.Story(function, parent.now, parent=parent.id).begin().run_step("inner-step", 4000).complete(1)
    parent.now = child.now
    await parent.commit().settle("ask", output=1, kind="invoke").complete().save(owner)
    await child.save(owner)
    await owner.execute("update runs set parent_step_key = $2 where id = $1", child.id, step_key("ask"))
    page = (await client.get(f"{RUNS}/{parent.ulid}")).text
    (address,) = re.findall(r'hx-get="([^"]*/inside\?[^"]*)"', page)
    assert child.ulid in address
    rows = (await client.get(address.replace("&amp;", "&"))).text
    assert f'href="{RUNS}/{child.ulid}?step={step_key("inner-step")}"' in rows
    assert rows.count("<li") == 1
    width = float(re.findall(r'class="f-ok" x="[\d.]+%" y="8" width="([\d.]+)%"', rows)[0])
    assert 90 < width <= 100
    for wrong in (f"child={parent.ulid}&scale=0-10", f"child={child.ulid}&scale=x", "child=x&scale=0-10"):
        assert (await client.get(f"{RUNS}/{parent.ulid}/inside?{wrong}")).status_code == 404


async def test_a_part_of_the_run_fills_the_axis_by_address(client: Any, stories: Any) -> None:
    whole = (await client.get(f"{RUNS}/{stories['failed'].ulid}")).text
    part = (await client.get(f"{RUNS}/{stories['failed'].ulid}?from=400&to=800")).text
    assert 'data-part="400-800"' in part
    assert "data-part" not in whole
    assert "400 ms to 800 ms" in part
    # What lies outside is named, and not drawn.
    row = part.split('<span class="t">notify-warehouse</span>', 1)[1].split("</li>", 1)[0]
    assert 'class="f-fail"' not in row
    for nonsense in ("from=9&to=3", "from=x&to=3", "from=-1&to=3", "from=1"):
        assert "data-part" not in (await client.get(f"{RUNS}/{stories['failed'].ulid}?{nonsense}")).text


async def test_a_filter_that_hides_the_failed_step_is_no_error(client: Any, stories: Any) -> None:
    answer = await client.get(f"{RUNS}/{stories['failed'].ulid}?q=cool-off")
    assert answer.status_code == 200
    assert "WarehouseTimeout" in answer.text
