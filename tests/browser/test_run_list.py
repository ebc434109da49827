"""The runs list in Chromium: what somebody types, presses, drags and keeps."""

import re
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests import world
from tests.browser.conftest import Place
from tests.browser.test_run_actions import connected, made

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def owner(place: Place) -> Any:
    async with connected(place) as connection:
        yield connection


async def test_a_search_is_understood_while_it_is_typed_and_a_mistake_keeps_the_results(
    page: Page, place: Place
) -> None:
    await page.goto(f"{place.url}/env/production/runs")
    rows = page.locator("#rows tr")
    number = await rows.count()
    await page.keyboard.press("/")
    await page.keyboard.type("event.data.total >")
    await expect(page.locator("#q-problem")).to_contain_text("ends too early")
    await expect(rows).to_have_count(number)
    await expect(page).not_to_have_url(re.compile("q="))
    await page.keyboard.type(" 100")
    await expect(page.locator("#q-problem")).to_be_hidden()
    await expect(page.locator("#chips .chip", has_text="Expression")).to_be_visible()
    await expect(page).to_have_url(re.compile("q=event"))
    await expect(page.locator("#q")).to_be_focused()


async def test_a_cell_filters_by_its_value_from_pointer_and_keyboard(page: Page, place: Place, owner: Any) -> None:
    await made(owner, place, "cell-run", world.order_completed)
    await page.goto(f"{place.url}/env/production/runs")
    row = page.locator("#rows tr", has_text="cell-run")
    await row.locator(".c-st").click(button="right", force=True)
    await expect(page.locator("#cell-menu")).to_contain_text("Status: completed")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("status=-completed"))
    await page.goto(f"{place.url}/env/production/runs")
    await row.locator(".fn a").focus()
    await row.locator(".fn a").dispatch_event("contextmenu")
    await expect(page.locator("#cell-menu")).to_contain_text("Function: shop-cell-run")
    await page.locator("#cell-menu a", has_text="Only this").click()
    await expect(page).to_have_url(re.compile("fn=shop-cell-run"))
    await expect(page.locator("#rows tr")).to_have_count(1)


async def test_columns_and_views_are_kept_from_their_menus(page: Page, place: Place) -> None:
    await page.goto(f"{place.url}/env/production/runs?status=failed")
    await page.get_by_role("link", name="Columns").click()
    await page.locator("#columns-form input[name=path]").first.fill("data.total")
    await page.locator("#columns-form").get_by_role("button", name="Save columns").click()
    await expect(page.locator("th", has_text="data.total")).to_be_visible()
    await page.get_by_role("link", name="Views").click()
    await page.locator("#view-name").fill("What broke")
    await page.get_by_role("button", name="Save view").click()
    await expect(page).to_have_url(re.compile("view="))
    await page.goto(f"{place.url}/env/production/runs")
    await page.get_by_role("link", name="Views").click()
    await page.locator("#views-list a", has_text="What broke").click()
    await expect(page).to_have_url(re.compile("status=failed"))


async def test_dragging_over_the_histogram_narrows_the_range(page: Page, place: Place) -> None:
    await page.goto(f"{place.url}/env/production/runs")
    bars = page.locator("#histo a")
    number = await bars.count()
    first, last = await bars.nth(number - 9).bounding_box(), await bars.nth(number - 2).bounding_box()
    assert first is not None
    assert last is not None
    await page.mouse.move(first["x"] + 2, first["y"] + 40)
    await page.mouse.down()
    await page.mouse.move(last["x"] + 2, last["y"] + 40, steps=4)
    await page.mouse.up()
    await expect(page).to_have_url(re.compile("from=.*to="))


async def test_an_action_can_be_undone_from_another_page(page: Page, place: Place, owner: Any) -> None:
    story = await made(owner, place, "regretted", world.order_waiting)
    await page.goto(f"{place.url}/env/production/runs?fn=shop-regretted")
    await page.locator("#rows [name=run]").check()
    await page.locator(".bulk button", has_text="Cancel").click()
    await page.get_by_role("button", name="Cancel 1 run").click()
    await expect(page.get_by_text("Starts in")).to_be_visible()
    # The test may be slower than ten seconds.
    ours = place.tenant.account_id
    await owner.execute("update bulk_actions set starts_at = clock() + interval '1 hour' where account_id = $1", ours)
    await owner.execute("update bulk_items set taken_until = 'infinity' where account_id = $1", ours)
    await page.reload()
    await page.get_by_role("link", name="Runs", exact=True).first.click()
    await page.locator("#undo-toast").get_by_role("button", name="Undo").click()
    await expect(page.locator("[data-progress]")).to_contain_text("undone")
    assert await owner.fetchval("select status from runs where id = $1", story.id) == "running"
