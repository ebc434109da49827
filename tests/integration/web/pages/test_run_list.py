"""The runs list beyond its rows: search, order, menus, columns and saved views."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from app.domain.ids import to_ulid
from tests import world
from tests.page_app import make_app

RUNS = "/env/production/runs"
PARTIAL = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "div#list"}


@pytest.fixture
async def now(owner: Any) -> Any:
    return await owner.fetchval("select clock()")


@pytest.fixture
async def client(page_pool: Any, ours: Any) -> Any:
    app: Any = make_app(page_pool, ours)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://testserver") as client:
        yield client


@pytest.fixture
async def orders(owner: Any, ours: Any, theirs: Any, now: Any) -> list[world.Story]:
    """Give five runs of ours, oldest first, with totals of 0 to 400, and the same of somebody else."""
    made: list[world.Story] = []
    for whose in (theirs, ours):
        function = await world.make_function(owner, whose)
        made = []
        for n in range(5):
            start = now - timedelta(minutes=50 - n)
            story = world.Story(function, start, event_data={"total": n * 100, "customer": {"id": f"c-{n}"}}).begin(
                n * 400
            )
            await story.run_step("charge", 3000 - n * 500).complete({"ok": n % 2 == 0}).save(owner)
            made.append(story)
    return made


def rows(text: str) -> list[str]:
    return re.findall(r'<tr id="run-(\w+)"', text)


async def listed(client: Any, **asked: Any) -> list[str]:
    return rows((await client.get(RUNS, params=asked)).text)


async def test_an_expression_finds_runs_by_event_and_output_and_says_what_it_is(client: Any, orders: Any) -> None:
    ulids = [story.ulid for story in orders]
    assert await listed(client, q="event.data.total > 100") == ulids[:1:-1]
    assert await listed(client, q="output.ok == false") == [ulids[3], ulids[1]]
    text = (await client.get(RUNS, params={"q": "event.data.total > 100 && output.ok"})).text
    assert rows(text) == [ulids[4], ulids[2]]
    assert "<span>Expression</span>" in text
    assert "tried on 5 runs" in text or "newest first on 5 runs" in text
    assert re.search(r'Completed <span class="n">2</span>', text)
    assert re.search(r'Failed <span class="n">0</span>', text)
    assert await listed(client, q="event.data.total > 100", status="failed") == []
    assert await listed(client, q="event.data.total > 100", sort="queued", size="25") == ulids[2:]


async def test_pages_of_an_expression_go_on_where_the_last_one_ended(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    made = [
        await world.Story(function, now - timedelta(seconds=n), event_data={"n": n}).begin().complete(1).save(owner)
        for n in range(60)
    ]
    seen, address = [], f"{RUNS}?q=event.data.n%20%25%202%20==%200&size=25"
    while True:
        text = (await client.get(address)).text
        seen += rows(text)
        older = re.search(r'href="([^"]+before=[^"]+)">Older', text)
        if older is None:
            break
        address = html.unescape(older[1])
    assert seen == sorted((story.ulid for story in made[::2]), reverse=True)


async def test_a_mistake_in_an_expression_shows_where_and_keeps_the_results(client: Any, orders: Any) -> None:
    ask = {"q": "event.data.total >> 1"}
    text = (await client.get(RUNS, params=ask)).text
    assert 'id="q-problem" class="field-error" role="alert"' in text
    assert "At character 19" in text
    answer = await client.get(RUNS, params=ask, headers=PARTIAL)
    assert answer.text.lstrip().startswith('<div id="q-problem"')
    assert "<tr" not in answer.text
    assert answer.headers["hx-retarget"] == "#q-problem"
    assert answer.headers["hx-push-url"] == "false"
    good = await client.get(RUNS, params={"q": "event.data.total > 1"}, headers=PARTIAL)
    assert '<div id="q-problem"></div>' in good.text


async def test_unknown_variables_and_too_long_expressions_are_refused(client: Any, orders: Any) -> None:
    assert "There is no variable &#39;run&#39;" in (await client.get(RUNS, params={"q": "run.status == 1"})).text
    assert "too long" in (await client.get(RUNS, params={"q": "event.data.a == 1 || " * 60})).text


async def test_a_costly_expression_ends_in_time_and_says_that_there_is_more(
    owner: Any, client: Any, ours: Any, now: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = await world.make_function(owner, ours)
    for n in range(60):
        await world.Story(function, now - timedelta(seconds=n), event_data={"n": n}).begin().complete(1).save(owner)
    monkeypatch.setattr("app.reads.scan.WITHIN_S", 0.0)
    text = (await client.get(RUNS, params={"q": "event.data.n == 59"})).text
    assert rows(text) == []
    assert "Tried on 50+ runs" in " ".join(text.split())
    further = re.search(r'href="([^"]+)">Look further', text)
    assert further is not None
    assert len(rows((await client.get(html.unescape(further[1]))).text)) == 1


async def test_a_key_finds_the_runs_of_its_event(owner: Any, client: Any, ours: Any, orders: Any) -> None:
    await owner.execute("update events set client_id = 'order-77' where id = $1", orders[1].event_id)
    text = (await client.get(RUNS, params={"q": "order-77"})).text
    assert rows(text) == [orders[1].ulid]
    assert "<span>Idempotency key</span>" in text
    assert await listed(client, q="order-78") == []
    await owner.execute(
        "insert into dedupe (environment_id, function_id, key, account_id, run_id, expires_at)"
        " values ($1, $2, 'two words', $3, $4, clock() + interval '1 day')",
        ours.environment_id, orders[2].function.id, ours.account_id, orders[2].id,
    )  # fmt: skip
    assert await listed(client, q="key:two words") == [orders[2].ulid]


async def test_lists_can_be_put_in_another_order_and_paged_in_it(client: Any, orders: Any) -> None:
    ulids = [story.ulid for story in orders]
    assert await listed(client, sort="queued") == ulids
    assert await listed(client, sort="-duration") == ulids
    assert await listed(client, sort="-wait") == ulids[::-1]
    text = (await client.get(RUNS, params={"sort": "-duration"})).text
    assert 'aria-sort="descending"' in text
    assert "sort=duration" in text
    assert await listed(client, sort="-duration", before=ulids[1]) == ulids[2:]
    assert await listed(client, sort="-duration", after=ulids[3]) == ulids[:3]


async def test_the_range_can_be_about_start_or_end(owner: Any, client: Any, ours: Any, now: Any) -> None:
    function = await world.make_function(owner, ours)
    early = now - timedelta(hours=30)
    late = await world.Story(function, early).begin(28 * 3600 * 1000).run_step("a").complete(1).save(owner)
    assert await listed(client) == []
    assert await listed(client, by="started") == [late.ulid]
    assert await listed(client, by="ended") == [late.ulid]
    assert await listed(client, by="ended", last="15m") == []
    waiting = await world.order_waiting(function, now - timedelta(minutes=5)).save(owner)
    assert await listed(client, by="ended") == [late.ulid]
    assert await listed(client, by="started", sort="started") == [late.ulid, waiting.ulid]


async def test_traits_find_what_needs_attention_what_is_stuck_and_what_waited(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    function = await world.make_function(owner, ours)
    for n in range(4):
        await world.order_completed(function, now - timedelta(minutes=20 + n)).save(owner)
    failed, replayed = [
        await world.order_failed(function, now - timedelta(minutes=30 + n)).save(owner) for n in range(2)
    ]
    again = await world.order_completed(function, now - timedelta(minutes=3)).save(owner)
    await owner.execute("update runs set original_run_id = $2 where id = $1", again.id, replayed.id)
    stuck = await world.order_waiting(function, now - timedelta(minutes=40)).save(owner)
    slow = await world.Story(function, now - timedelta(minutes=9)).begin(90_000).complete(1).save(owner)
    views = (await client.get(f"{RUNS}/views")).text
    found = {}
    for name in ("Needs attention", "Stuck", "Long queue wait"):
        link = re.search(rf'href="([^"]+)"><span class="grow">{name}<', views)
        assert link is not None
        found[name] = rows((await client.get(html.unescape(link[1]))).text)
    assert found == {"Needs attention": [failed.ulid], "Stuck": [stuck.ulid], "Long queue wait": [slow.ulid]}
    assert slow.ulid not in await listed(client, **{"is": "-waited"})
    assert "Run is not queued over 1 min" in html.unescape((await client.get(RUNS, params={"is": "-waited"})).text)


async def test_the_filter_menu_lists_fields_with_counts_as_a_page_and_as_a_menu(client: Any, orders: Any) -> None:
    page = (await client.get(f"{RUNS}/filter?last=7d")).text
    assert "<html" in page
    slug = orders[0].function.slug
    link = re.search(rf'href="([^"]+)"><span class="grow">{slug}</span><span class="faint small num">5<', page)
    assert link is not None
    assert len(rows((await client.get(html.unescape(link[1]))).text)) == 5
    none = re.search(rf'href="([^"]+)" aria-label="Function is not {slug}"', page)
    assert none is not None
    assert rows((await client.get(html.unescape(none[1]))).text) == []
    part = (await client.get(f"{RUNS}/filter", headers=PARTIAL | {"HX-Target": "div#filter-list"})).text
    assert "<html" not in part
    assert slug in part


async def test_cells_say_what_they_can_be_filtered_by(client: Any, orders: Any) -> None:
    text = (await client.get(RUNS)).text
    assert 'data-only="status=completed"' in text
    assert f'data-only="fn={orders[0].function.slug}"' in text
    assert 'data-only="app=shop"' in text


async def test_columns_are_kept_for_one_person_in_one_environment(
    owner: Any, client: Any, page_pool: Any, ours: Any, orders: Any
) -> None:
    form = {
        "column": ["version", "attempts", "event"],
        "path": ["event.data.customer.id", "data.total", ""],
        "fn": "-x",
    }
    answer = await client.post(f"{RUNS}/columns", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{RUNS}?fn=-x")
    text = (await client.get(RUNS)).text
    assert '<th scope="col" class="mono">data.customer.id</th>' in text
    cells = re.findall(r'<td class="c-more[^>]*>(.*?)</td>', text)
    assert cells[0] == "1"
    assert cells[3:5] == ["c-4", "400"]
    assert to_ulid(orders[4].event_id)[:10] in cells[2]
    changed = (await client.get(f"{RUNS}/changes?live={orders[0].ulid}", headers=PARTIAL)).text
    assert "c-0" in changed
    assert 'value="data.total"' in (await client.get(f"{RUNS}/columns")).text
    wrong = await client.post(f"{RUNS}/columns", data={"path": "data total"})
    assert wrong.status_code == 422
    assert "is no path into an event" in wrong.text
    await owner.execute("update run_columns set user_id = gen_random_uuid() where account_id = $1", ours.account_id)
    assert "data.total</th>" not in (await client.get(RUNS)).text


async def test_views_are_private_or_shared_and_open_with_their_columns(
    owner: Any, client: Any, page_pool: Any, ours: Any, theirs: Any, orders: Any
) -> None:
    await client.post(f"{RUNS}/columns", data={"path": "data.total"})
    keep = {"status": "completed", "q": "event.data.total > 200", "by": "ended"}
    answer = await client.post(f"{RUNS}/views", data=keep | {"name": "Large  orders", "shared": "1"})
    await client.post(f"{RUNS}/views", data={"name": "Mine", "status": "failed"})
    assert answer.status_code == 303
    await client.post(f"{RUNS}/columns", data={})
    menu = (await client.get(f"{RUNS}/views")).text
    link = re.search(r'href="([^"]+/views/\w+)"><span class="grow">Large orders<', menu)
    assert link is not None
    text = (await client.get(link[1], follow_redirects=True)).text
    assert len(rows(text)) == 2
    assert "data.total</th>" in text
    assert "Give the view a name" in (await client.post(f"{RUNS}/views", data={"name": " "})).text
    assert await owner.fetchval("select count(*) from audit_log where action = 'view.shared'") >= 1
    # Somebody else of the organization sees what is shared, and cannot delete it.
    await owner.execute("update run_views set user_id = gen_random_uuid() where account_id = $1", ours.account_id)
    menu = (await client.get(f"{RUNS}/views")).text
    assert "Large orders" in menu
    assert "Mine" not in menu
    assert (await client.post(f"{link[1]}/delete")).status_code == 404
    stranger_app: Any = make_app(page_pool, theirs)
    async with AsyncClient(transport=ASGITransport(stranger_app), base_url="http://testserver") as stranger:
        assert "Large orders" not in (await stranger.get(f"{RUNS}/views")).text
        assert (await stranger.get(link[1])).status_code == 404
        assert (await stranger.post(f"{link[1]}/delete")).status_code == 404
    viewer_app: Any = make_app(page_pool, ours, role="viewer")
    async with AsyncClient(transport=ASGITransport(viewer_app), base_url="http://testserver") as viewer:
        assert (await viewer.post(f"{RUNS}/views", data={"name": "x", "shared": "1"})).status_code == 403
        assert (await viewer.post(f"{RUNS}/views", data={"name": "x"})).status_code == 303


async def test_a_link_can_say_what_is_seen_now(client: Any, orders: Any, now: Any) -> None:
    text = (await client.get(f"{RUNS}?status=completed&last=1h")).text
    moving, still = re.findall(r'data-copy-path="([^"]+)"', text)
    assert "last=1h" in moving
    assert re.search(r"from=[\d-]+T\d\d%3A\d\d&amp;to=[\d-]+T", still)
    assert len(rows((await client.get(html.unescape(still))).text)) == 5


async def test_hostile_values_in_menus_columns_and_searches_are_text(
    owner: Any, client: Any, ours: Any, now: Any
) -> None:
    evil = "<img src=x onerror=alert(1)>\u202e"
    function = await world.make_function(owner, ours, evil)
    await (
        world.Story(function, now, event_data={"evil": evil, "deep": {"a": [1, {"b": None}]}})
        .begin()
        .complete(evil)
        .save(owner)
    )
    await client.post(f"{RUNS}/columns", data={"path": ["data.evil", "data.deep"]})
    await client.post(f"{RUNS}/views", data={"name": evil, "fn": evil})
    for path in ("", "/filter", "/views", "/columns", f"?q={evil}%20%3E", "?q=output%20==%20output", f"?fn={evil}"):
        text = (await client.get(f"{RUNS}{path}")).text
        assert "<img" not in text, path
    assert "[U+202E]" in (await client.get(RUNS)).text
