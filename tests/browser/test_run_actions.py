"""Cancel, replay, tick and bulk in Chromium, by pointer, by keyboard and without scripts."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests import world
from tests.browser.conftest import Place
from tests.world import step_key

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Any]:
    """Give a connection that may write anything."""
    connection = await asyncpg.connect(place.database)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def owner(place: Place) -> Any:
    async with connected(place) as connection:
        yield connection


async def made(owner: Any, place: Place, name: str, tell: Any, minutes: int = 10) -> world.Story:
    """Write a run of a function that can be replayed."""
    function = await world.make_function(owner, place.tenant, name)
    await owner.execute(
        "insert into lanes (id, account_id, environment_id, function_id) values ($1, $2, $3, $4) on conflict do nothing",
        world.lane_id(function), place.tenant.account_id, place.tenant.environment_id, function.id,
    )  # fmt: skip
    now = await owner.fetchval("select clock()")
    story: world.Story = await tell(function, now - timedelta(minutes=minutes)).save(owner)
    return story


async def begin(owner: Any, place: Place) -> None:
    """Let the seconds pass in which bulk actions can be undone."""
    ours = place.tenant.account_id
    await owner.execute("update bulk_actions set starts_at = clock() - interval '1 second' where account_id = $1", ours)
    await owner.execute("update bulk_items set taken_until = '-infinity' where account_id = $1", ours)


async def test_a_sleeping_run_is_cancelled_after_a_question(page: Page, place: Place, owner: Any) -> None:
    story = await made(owner, place, "sleeper", world.order_waiting)
    await page.goto(f"{place.url}/env/production/runs/{story.ulid}")
    await page.locator("#main").focus()
    await page.keyboard.press("c")
    await expect(page.locator("#cancel-dialog")).to_be_visible()
    await expect(page.locator("#cancel-dialog a")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#cancel-dialog")).to_be_hidden()
    await page.locator("#cancel-run").click()
    await page.get_by_role("button", name="Cancel run").click()
    await expect(page.locator("#run-head [data-status]")).to_have_text("Cancelled")
    await expect(page.locator("#replay-run")).to_be_visible()


async def test_a_failed_run_is_replayed_and_completed_steps_are_shown_as_reused(
    page: Page, place: Place, owner: Any
) -> None:
    story = await made(owner, place, "payer", world.order_failed)
    await page.goto(f"{place.url}/env/production/runs/{story.ulid}")
    await page.locator("#replay-run").click()
    await expect(page.locator(".facts")).to_contain_text("Replay of")
    await expect(page.locator(".tl .nm", has_text="charge-card")).to_contain_text("reused")
    await page.locator(".facts a", has_text=story.ulid[:10]).click()
    await expect(page.locator(".facts")).to_contain_text("Replayed as")
    await page.locator(".tl .nm", has_text="charge-card").click()
    await expect(page.locator("#detail h2")).to_have_text("charge-card")
    await page.get_by_role("button", name="More replay options").click()
    await page.locator("#replay-menu .item", has_text="From the start").click()
    await expect(page.locator(".facts")).to_contain_text("Replay of")
    await expect(page.locator(".tl .nm", has_text="charge-card")).to_have_count(0)


async def test_two_hundred_sleeping_runs_are_cancelled_at_once(page: Page, place: Place, owner: Any) -> None:
    for _ in range(200):
        await made(owner, place, "many-sleepers", world.order_waiting, minutes=30)
    await page.goto(f"{place.url}/env/production/runs?fn=shop-many-sleepers&status=waiting&size=200")
    await expect(page.locator(".bulk")).to_be_hidden()
    await page.locator("[data-select-all]").check()
    await expect(page.locator("[data-count]")).to_have_text("200")
    await page.locator(".bulk button", has_text="Cancel").click()
    await expect(page.locator("h1")).to_have_text("Cancel 200 runs")
    await page.locator("#reason").fill("a broken deploy")
    await page.get_by_role("button", name="Cancel 200 runs").click()
    await expect(page.get_by_role("button", name="Undo")).to_be_visible()
    await begin(owner, place)
    await expect(page.locator("[data-progress]")).to_have_text("200 of 200, finished", timeout=30_000)
    await expect(page.locator("progress")).to_have_attribute("value", "200")
    number = await owner.fetchval(
        "select count(*) from runs r join functions f on f.id = r.function_id where f.slug = 'shop-many-sleepers'"
        " and r.status = 'cancelled' and r.environment_id = $1", place.tenant.environment_id,
    )  # fmt: skip
    assert number == 200


async def test_ticks_survive_live_changes_and_the_keyboard_ticks(page: Page, place: Place, owner: Any) -> None:
    story = await made(owner, place, "ticked", world.order_running, minutes=1)
    await page.goto(f"{place.url}/env/production/runs?fn=shop-ticked")
    await page.locator("#main").focus()
    await page.keyboard.press("j")
    await page.keyboard.press("x")
    await expect(page.locator(".bulk")).to_be_visible()
    async with owner.transaction():
        await story.wait(300).complete("done").save(owner)
    await expect(page.locator(f"#run-{story.ulid} .st")).to_have_text("Completed", timeout=15_000)
    await expect(page.locator(f"#run-{story.ulid} [name=run]")).to_be_checked()
    await page.get_by_role("button", name="Clear selection").click()
    await expect(page.locator(".bulk")).to_be_hidden()


async def test_bulk_works_without_scripts(browser: Browser, place: Place, owner: Any) -> None:
    story = await made(owner, place, "plain", world.order_failed)
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{place.url}/env/production/runs?fn=shop-plain")
    await page.locator("#rows [name=run]").first.check()
    await page.locator(".bulk button", has_text="Replay").click()
    await expect(page.locator("h1")).to_have_text("Replay 1 run")
    await page.get_by_role("button", name="Replay 1 run").click()
    await expect(page.locator("[data-progress]")).to_contain_text("of 1")
    await page.goto(f"{place.url}/env/production/runs/{story.ulid}/cancel")
    await expect(page.locator("#run-head h1")).to_have_text("plain")
    await context.close()


async def test_filters_become_chips_and_go_away_again(page: Page, place: Place, owner: Any) -> None:
    await made(owner, place, "chipped", world.order_completed)
    await page.goto(f"{place.url}/env/production/runs")
    rows = page.locator("#rows tr")
    await page.get_by_role("link", name="Filter", exact=True).click()
    await page.locator("#filter-list summary", has_text="Function").click()
    await page.locator("#values-fn a", has_text="shop-chipped").first.click()
    await expect(page).to_have_url(re.compile("fn=shop-chipped"))
    await expect(rows).to_have_count(1)
    await expect(page.locator(".chip .op")).to_have_text("is")
    await page.locator(".chip .op").click()
    await expect(page).to_have_url(re.compile("fn=-shop-chipped"))
    await expect(page.locator("#rows")).not_to_contain_text("chipped")
    await page.get_by_label("Remove filter: Function is not shop-chipped").click()
    await expect(page.locator("#rows")).to_contain_text("chipped")


async def test_a_bar_of_the_histogram_narrows_the_range(page: Page, place: Place, owner: Any) -> None:
    await made(owner, place, "barred", world.order_completed, minutes=300)
    await page.goto(f"{place.url}/env/production/runs?fn=shop-barred")
    await page.locator("#histo a", has=page.locator(".f-soft")).click()
    await expect(page).to_have_url(re.compile("from="))
    await expect(page.locator("#rows tr")).to_have_count(1)


async def test_windows_load_when_they_are_scrolled_to_and_equal_steps_unfold(
    page: Page, place: Place, owner: Any
) -> None:
    function = await world.make_function(owner, place.tenant, "long")
    now = await owner.fetchval("select clock()")
    story = world.Story(function, now - timedelta(minutes=20)).begin()
    for n in range(450):
        story.run_step(f"step-{n}", 10, output=n)
    for n in range(70):
        story.run_step(f"row-{n}", 10, output=n)
        story.steps[step_key(f"row-{n}")]["name"] = "row"
    await story.complete().save(owner)
    await page.goto(f"{place.url}/env/production/runs/{story.ulid}")
    many = page.locator(".tl .nm", has_text="row")
    await expect(many).to_contain_text("×70")
    assert await page.locator(".tl .nm", has_text="step-449").count() == 0
    for _ in range(3):
        await page.keyboard.press("End")
        await page.wait_for_load_state("networkidle")
    await expect(page.locator(".tl .nm", has_text="step-449")).to_be_visible(timeout=15_000)
    await page.goto(f"{place.url}/env/production/runs/{story.ulid}")
    await page.get_by_role("button", name="Steps named row").click()
    await expect(page.locator(".tl .d2.nm")).to_have_count(50)
    await page.locator("#step-q").fill("step-44")
    await expect(page.locator(".tl .nm.d1")).to_have_count(11)
    await expect(page).to_have_url(re.compile("q=step-44"))


async def test_the_list_of_keys_opens(page: Page, place: Place) -> None:
    await page.goto(place.run("failed"))
    await page.locator("#main").focus()
    await page.keyboard.press("?")
    await expect(page.locator("#keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("r")
    await expect(page.locator("#replay-run")).to_be_focused()


async def test_single_letter_keys_can_be_switched_off(page: Page, place: Place) -> None:
    await page.goto(place.run("failed"))
    await page.get_by_role("button", name="Keys").click()
    await page.locator("[data-keys-on]").uncheck()
    await page.keyboard.press("Escape")
    await page.locator("#main").focus()
    await page.keyboard.press("r")
    await page.keyboard.press("?")
    await expect(page.locator("#main")).to_be_focused()
    await expect(page.locator("#keys")).to_be_hidden()
    await page.reload()
    await page.get_by_role("button", name="Keys").click()
    await expect(page.locator("[data-keys-on]")).not_to_be_checked()
    await page.locator("[data-keys-on]").check()
    await page.keyboard.press("Escape")
    await page.locator("#main").focus()
    await page.keyboard.press("r")
    await expect(page.locator("#replay-run")).to_be_focused()


async def test_zooming_in_deeply_asks_the_server_and_fit_leads_back(page: Page, place: Place) -> None:
    await page.goto(place.run("failed"))
    zoom_in = page.locator("[data-zoom=in]")
    for _ in range(5):
        await zoom_in.click()
    await expect(page.locator("[data-tl]")).to_have_attribute("data-part", re.compile(r"\d+-\d+"))
    await expect(page).to_have_url(re.compile(r"from=\d+&to=\d+"))
    await page.locator("[data-zoom=fit]").click()
    await expect(page.locator("[data-tl]")).not_to_have_attribute("data-part", re.compile("."))
    await expect(page.locator(".tl .nm", has_text="notify-warehouse")).to_be_visible()


async def test_why_a_run_does_not_move_arrives_by_itself(page: Page, place: Place) -> None:
    await page.goto(place.run("waiting"))
    await expect(page.locator("#why")).to_contain_text("a-day-later sleeps and ends in")
    await page.goto(place.run("completed"))
    await expect(page.locator("#why")).to_have_count(0)
