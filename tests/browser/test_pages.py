"""The pages in Chromium: seen by everyone, worked by keyboard and pointer, live."""

import re
from datetime import timedelta

import asyncpg
import pytest
from playwright.async_api import Browser, Page, expect

from tests import world
from tests.browser.conftest import Place
from tests.world import step_key

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_click_on_a_row_opens_the_run_and_back_returns(page: Page, place: Place) -> None:
    await page.goto(f"{place.url}/env/production/runs?status=failed")
    await page.locator("tbody tr").first.click()
    await expect(page).to_have_url(place.run("failed"))
    await expect(page.locator("#main")).to_be_focused()
    await expect(page.locator("h1")).to_have_text("reindex-search")
    await expect(page.locator("#announce")).to_contain_text("failed")
    await page.go_back()
    await expect(page.locator("h1")).to_have_text("Runs")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_filters_change_the_address_and_the_list_without_a_new_page(page: Page, place: Place) -> None:
    await page.goto(f"{place.url}/env/production/runs")
    await page.evaluate("window.mark = 1")
    await page.locator("#q").fill(place.stories["waiting"].ulid)
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page).to_have_url(re.compile("q=" + place.stories["waiting"].ulid))
    await page.locator("#q").fill("event.data.total >")
    await expect(page.locator("#q-problem")).not_to_be_empty()
    await expect(page.locator("tbody tr")).to_have_count(1)
    assert await page.evaluate("window.mark") == 1


async def test_a_step_opens_beside_the_timeline_and_is_an_address(page: Page, place: Place) -> None:
    await page.goto(place.run("failed"))
    await page.locator(".tl .nm", has_text="charge-card").click()
    await expect(page.locator("#detail h2")).to_have_text("charge-card")
    await expect(page).to_have_url(re.compile("step=" + step_key("charge-card")))
    await expect(page.locator(".tl .nm[aria-current]")).to_contain_text("charge-card")
    await page.locator("#detail .tabs a", has_text="Attempts").click()
    await expect(page.locator(".att tr")).to_have_count(3)
    await page.reload()
    await expect(page.locator(".att tr")).to_have_count(3)


async def test_rows_are_walked_by_keys(page: Page, place: Place) -> None:
    await page.goto(f"{place.url}/env/production/runs")
    await page.keyboard.press("/")
    await expect(page.locator("#q")).to_be_focused()
    await page.locator("#main").focus()
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await expect(page.locator("tbody tr").nth(1).locator("a")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("sync-crm-contact")
    await page.goto(place.run("failed"))
    await page.keyboard.press("e")
    await expect(page.locator(".tl .nm:focus .k.fail")).to_have_count(1)


async def test_the_skip_link_comes_first(page: Page, place: Place) -> None:
    await page.goto(f"{place.url}/env/production/runs")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()


async def test_the_theme_is_switched_and_remembered(page: Page, place: Place) -> None:
    await page.emulate_media(color_scheme="light")
    await page.goto(f"{place.url}/env/production/runs")
    await page.locator("[data-theme-toggle]").click()
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_zoom_survives_and_groups_fold(page: Page, place: Place) -> None:
    await page.goto(place.run("failed"))
    await page.locator("[data-zoom=in]").click()
    assert await page.evaluate("getComputedStyle(document.getElementById('timeline')).getPropertyValue('--z')") == "2"
    await page.locator(".tl .tw").nth(1).click()
    await expect(page.locator(".tl .nm", has_text="charge-card")).to_be_hidden()


async def test_a_running_run_ends_before_the_readers_eyes(page: Page, place: Place) -> None:
    connection = await asyncpg.connect(place.database)
    function = await world.make_function(connection, place.tenant, "live-order")
    now = await connection.fetchval("select clock()")
    story = await world.order_running(function, now - timedelta(seconds=2)).save(connection)
    await page.goto(f"{place.url}/env/production/runs/{story.ulid}")
    await page.evaluate("document.querySelector('h1').mark = 1")
    row = page.locator(".tl .nm", has_text="charge-card")
    await expect(row.locator(".k.run")).to_have_count(1)
    story.items.clear()
    story.call("charge-card", 900).settle("charge-card", output={"ok": True}).run_step("send-receipt", 40)
    async with connection.transaction():
        await story.complete("done").save(connection)
    await expect(page.locator("#run-head [data-status]")).to_have_text("Completed")
    await expect(page.locator(".tl .nm", has_text="send-receipt")).to_be_visible()
    await expect(page.locator("#announce")).to_have_text("live-order completed")
    assert await page.evaluate("document.querySelector('h1').mark") == 1
    await connection.close()


async def test_new_runs_wait_behind_a_pill_and_old_ones_change_in_place(page: Page, place: Place) -> None:
    connection = await asyncpg.connect(place.database)
    function = await world.make_function(connection, place.tenant, "pill-order")
    now = await connection.fetchval("select clock()")
    story = await world.order_running(function, now - timedelta(seconds=1)).save(connection)
    await page.goto(f"{place.url}/env/production/runs")
    row = page.locator(f"#run-{story.ulid}")
    await expect(row.locator(".st")).to_have_text("Running")
    rows = await page.locator("tbody tr").count()
    later = world.order_queued(function, now + timedelta(seconds=5))
    async with connection.transaction():
        await story.wait(300).complete("done").save(connection)
        await later.save(connection)
    await expect(row.locator(".st")).to_have_text("Completed")
    await expect(page.locator(".newrows")).to_have_text("1 new run. Show it")
    assert await page.locator("tbody tr").count() == rows
    await page.locator(".newrows").click()
    await expect(page.locator("tbody tr").first).to_contain_text("pill-order")
    await expect(page.locator("tbody tr")).to_have_count(rows + 1)
    await connection.close()


async def test_everything_is_readable_without_scripts(browser: Browser, place: Place) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{place.url}/env/production/runs")
    await page.locator(".tabs a", has_text="Failed").click()
    await page.locator("tbody tr").first.click()
    await expect(page.locator("#detail h2")).to_have_text("notify-warehouse")
    await page.locator("#detail .tabs a", has_text="Input").click()
    await expect(page.locator(".json")).to_contain_text("ord_58213")
    await context.close()


async def test_the_menu_of_small_screens_opens_and_closes_by_keyboard(browser: Browser, place: Place) -> None:
    page = await browser.new_page(viewport={"width": 390, "height": 844})
    await page.goto(f"{place.url}/env/production/runs")
    await page.locator(".dock button").click()
    await expect(page.locator("#side")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#side")).to_be_hidden()
    await page.close()
