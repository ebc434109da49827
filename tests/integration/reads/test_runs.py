"""The runs list on a real database."""

from datetime import timedelta
from typing import Any

import pytest

from app.domain.ids import parse_ulid
from app.reads.filters import Choice, RunFilter
from app.reads.runs import count_newer, list_mark, list_runs, parse_search, rows_by_id
from app.reads.usage import Count, count_tabs, histogram
from app.store.db import tenant
from tests import world


@pytest.fixture
async def showcase(owner: Any, ours: Any, theirs: Any) -> Any:
    now = await owner.fetchval("select clock()")
    await world.make_showcase(owner, theirs, now)
    return await world.make_showcase(owner, ours, now)


async def test_every_run_is_listed_with_the_state_people_know(page_pool: Any, ours: Any, showcase: Any) -> None:
    async with tenant(page_pool, ours.account_id) as connection:
        page = await list_runs(connection, ours.environment_id, RunFilter())
        counts = await count_tabs(connection, ours.environment_id, RunFilter(last="24h"), page.now)
        slow = await count_tabs(connection, ours.environment_id, RunFilter(), page.now)
    assert {r.ulid: r.state for r in page.rows} == {story.ulid: name for name, story in showcase.items()}
    assert [r.ulid for r in page.rows] == sorted((r.ulid for r in page.rows), reverse=True)
    assert counts["all"] == Count(7, is_cut=False)
    assert counts == slow
    assert {tab: c.value for tab, c in counts.items() if tab != "all"} == {
        "running": 2, "waiting": 1, "queued": 1, "failed": 1, "completed": 1, "cancelled": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tab", "names"),
    [
        ("running", {"running", "retrying"}),
        ("waiting", {"waiting"}),
        ("queued", {"queued"}),
        ("cancelled", {"cancelled"}),
    ],
)
async def test_a_tab_lists_what_it_counts(page_pool: Any, ours: Any, showcase: Any, tab: Any, names: Any) -> None:
    async with tenant(page_pool, ours.account_id) as connection:
        page = await list_runs(connection, ours.environment_id, RunFilter(Choice((tab,))))
        others = await list_runs(connection, ours.environment_id, RunFilter(Choice((), (tab,))))
        counts = await count_tabs(connection, ours.environment_id, RunFilter(Choice((tab,)), last="1h"), page.now)
    assert {r.ulid for r in page.rows} == {showcase[name].ulid for name in names}
    assert {r.ulid for r in others.rows} == {s.ulid for name, s in showcase.items() if name not in names}
    assert counts[tab].value == len(names)


async def test_pages_follow_each_other_without_gap_or_double(owner: Any, page_pool: Any, ours: Any) -> None:
    function = await world.make_function(owner, ours)
    now = await owner.fetchval("select clock()")
    stories = [world.Story(function, now - timedelta(seconds=n)).begin().complete() for n in range(7)]
    for story in stories:
        await story.save(owner)
    seen, before, pages = [], None, []
    async with tenant(page_pool, ours.account_id) as connection:
        while True:
            page = await list_runs(connection, ours.environment_id, RunFilter(), before=before, size=3)
            seen += [r.ulid for r in page.rows]
            pages.append([r.ulid for r in page.rows])
            if page.older is None:
                break
            before = parse_ulid(page.older)
        back = await list_runs(connection, ours.environment_id, RunFilter(), after=parse_ulid(pages[1][0]), size=3)
    assert seen == [s.ulid for s in stories]
    assert [r.ulid for r in back.rows] == pages[0]
    assert back.newer is None
    assert back.older == pages[0][-1]


async def test_a_run_is_found_by_its_own_id_and_by_its_event(page_pool: Any, ours: Any, showcase: Any) -> None:
    story = showcase["completed"]
    async with tenant(page_pool, ours.account_id) as connection:
        for found in (story.id, story.event_id):
            page = await list_runs(connection, ours.environment_id, RunFilter(ids=(found,)))
            assert [r.ulid for r in page.rows] == [story.ulid]


async def test_filters_by_function_and_time_narrow_rows_and_counts_alike(
    page_pool: Any, ours: Any, showcase: Any
) -> None:
    story = showcase["failed"]
    wanted = RunFilter(functions=Choice((story.function.slug,)), last="24h")
    others = RunFilter(functions=Choice((), (story.function.slug,)), last="24h")
    of_app = RunFilter(apps=Choice(("shop",)), last="24h")
    async with tenant(page_pool, ours.account_id) as connection:
        by_function = await list_runs(connection, ours.environment_id, wanted)
        rest = await list_runs(connection, ours.environment_id, others)
        shop = await list_runs(connection, ours.environment_id, of_app)
        now = by_function.now
        for wanted_one, page in ((wanted, by_function), (others, rest), (of_app, shop)):
            counts = await count_tabs(connection, ours.environment_id, wanted_one, now)
            bars = await histogram(connection, ours.environment_id, wanted_one, now)
            assert counts["all"].value == len(page.rows) == sum(b.total for b in bars)
    assert [r.ulid for r in by_function.rows] == [story.ulid]
    assert len(rest.rows) == 6
    assert {r.app_name for r in shop.rows} == {"shop"}


async def test_a_bar_holds_the_runs_its_link_leads_to(owner: Any, page_pool: Any, ours: Any) -> None:
    function = await world.make_function(owner, ours)
    now = await owner.fetchval("select clock()")
    for minutes in (3, 3, 61, 300, 1300):
        await world.order_failed(function, now - timedelta(minutes=minutes)).save(owner)
    await world.order_waiting(function, now - timedelta(minutes=61)).save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        bars = await histogram(connection, ours.environment_id, RunFilter(last="24h"), now)
        for bar in bars:
            narrow = RunFilter(since=bar.since, until=bar.until)
            page = await list_runs(connection, ours.environment_id, narrow)
            assert len(page.rows) == bar.total
            assert sum(r.state == "failed" for r in page.rows) == bar.failed
    assert len(bars) == 72
    assert sum(b.failed for b in bars) == 5
    assert sum(b.open for b in bars) == 1


async def test_failures_alike_differ_in_numbers_only(owner: Any, page_pool: Any, ours: Any) -> None:
    function = await world.make_function(owner, ours)
    now = await owner.fetchval("select clock()")
    told = []
    for n, message in enumerate(("order 1 is gone", "order 22 is gone", "no such order")):
        story = world.Story(function, now - timedelta(seconds=n)).begin()
        told.append(await story.fail(world.error("Gone", message)).save(owner))
    async with tenant(page_pool, ours.account_id) as connection:
        page = await list_runs(connection, ours.environment_id, RunFilter(alike=told[0].id))
    assert [r.ulid for r in page.rows] == [told[0].ulid, told[1].ulid]


async def test_another_account_sees_nothing_even_with_the_right_ids(
    page_pool: Any, ours: Any, theirs: Any, showcase: Any
) -> None:
    ids = [s.id for s in showcase.values()]
    async with tenant(page_pool, theirs.account_id) as connection:
        assert (await list_runs(connection, ours.environment_id, RunFilter())).rows == ()
        assert await rows_by_id(connection, ours.environment_id, ids) == []
        assert await rows_by_id(connection, theirs.environment_id, ids) == []


async def test_new_runs_are_counted_above_the_newest_row(owner: Any, page_pool: Any, ours: Any, showcase: Any) -> None:
    async with tenant(page_pool, ours.account_id) as connection:
        page = await list_runs(connection, ours.environment_id, RunFilter())
        mark = await list_mark(connection, ours.environment_id)
        assert await count_newer(connection, ours.environment_id, RunFilter(), parse_ulid(page.newest)) == 0
    function = await world.make_function(owner, ours)
    await world.order_queued(function, page.now + timedelta(seconds=1)).save(owner)
    async with tenant(page_pool, ours.account_id) as connection:
        assert await count_newer(connection, ours.environment_id, RunFilter(), parse_ulid(page.newest)) == 1
        failed = RunFilter(Choice(("failed",)))
        assert await count_newer(connection, ours.environment_id, failed, parse_ulid(page.newest)) == 0
        assert await list_mark(connection, ours.environment_id) != mark


def test_only_ids_are_searched_for() -> None:
    assert parse_search("01KAQ7M4VXE8T2R6H9BZC3WDNP") is not None
    assert parse_search(" 7d9f5f0e-3c1b-4f6e-9c38-0f7e3f5f1f11 ") is not None
    assert parse_search("order") is None
    assert parse_search("'; drop table runs; --") is None
