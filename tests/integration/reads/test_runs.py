"""The runs list on a real database."""

from datetime import timedelta
from typing import Any

import pytest

from app.domain.ids import parse_ulid
from app.reads.runs import (
    Count,
    RunFilter,
    count_newer,
    list_mark,
    list_runs,
    parse_search,
    rows_by_id,
)
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
    assert {r.ulid: r.state for r in page.rows} == {story.ulid: name for name, story in showcase.items()}
    assert [r.ulid for r in page.rows] == sorted((r.ulid for r in page.rows), reverse=True)
    assert page.counts["all"] == Count(7, is_cut=False)
    assert {tab: c.value for tab, c in page.counts.items() if tab != "all"} == {
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
        page = await list_runs(connection, ours.environment_id, RunFilter(tab=tab))
    assert {r.ulid for r in page.rows} == {showcase[name].ulid for name in names}
    assert page.counts[tab].value == len(names)


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
    wanted = RunFilter(functions=(story.function.slug,))
    async with tenant(page_pool, ours.account_id) as connection:
        by_function = await list_runs(connection, ours.environment_id, wanted)
        recent = await list_runs(connection, ours.environment_id, RunFilter(last="15m"))
        hour = await list_runs(connection, ours.environment_id, RunFilter(last="1h"))
    assert [r.ulid for r in by_function.rows] == [story.ulid]
    assert by_function.counts["all"].value == 1
    assert recent.counts["all"].value == len(recent.rows)
    assert hour.counts["all"].value == 7


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
        failed = RunFilter(tab="failed")
        assert await count_newer(connection, ours.environment_id, failed, parse_ulid(page.newest)) == 0
        assert await list_mark(connection, ours.environment_id) != mark


def test_only_ids_are_searched_for() -> None:
    assert parse_search("01KAQ7M4VXE8T2R6H9BZC3WDNP") is not None
    assert parse_search(" 7d9f5f0e-3c1b-4f6e-9c38-0f7e3f5f1f11 ") is not None
    assert parse_search("order") is None
    assert parse_search("'; drop table runs; --") is None
