"""Environments, keys and the set-up guide in Chromium: looked at by axe, worked by pointer, by keyboard, without scripts."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, StorageState, expect

from tests.protocol.server import PASSWORD, Server, Tenant, running_server
from tests.servers import TestServers, cloned_database

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

#: The number of a Valkey database that no other fixture empties.
_REDIS = 41
EVENTS, SIGNING, START = (f"/env/production/{path}" for path in ("keys/events", "keys/signing", "start"))


@dataclass(frozen=True, slots=True)
class Desk:
    """A running server, and somebody who is signed in to it."""

    server: Server
    tenant: Tenant
    state: StorageState

    def url(self, path: str) -> str:
        """The address of a page."""
        return f"{self.server.base_url}{path}"


@pytest.fixture(scope="module")
def server(
    servers: TestServers, servers_folder: Path, worker_number: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Give a Stepwell of real processes."""
    servers.flush(_REDIS)
    with ExitStack() as stack:
        url = stack.enter_context(cloned_database(servers, servers_folder, f"door{worker_number}"))
        folder = tmp_path_factory.mktemp("door")
        yield stack.enter_context(running_server("signed", url, servers.redis_url(_REDIS), folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(server: Server, browser: Browser) -> Desk:
    """Give an owner with a second environment, an archived one, a revoked event key and a rotation under way."""
    tenant = await asyncio.to_thread(server.tenant)
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    # Everything here is done without scripts, which shows that it can be.
    await page.goto(f"{server.base_url}/login")
    await page.get_by_label("E-mail address").fill("owner1@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    for name in ("Staging", "Old"):
        await page.goto(f"{server.base_url}/env")
        await page.get_by_role("link", name="New environment").first.click()
        await page.get_by_label("Name").fill(name)
        await page.get_by_role("button", name="Create environment").click()
        await expect(page.locator("h1")).to_have_text("From here to your first run")
    await page.goto(f"{server.base_url}/env")
    await page.get_by_role("button", name="Archive Old").click()
    await expect(page.get_by_role("status").first).to_contain_text("Old is archived")
    await page.goto(f"{server.base_url}{EVENTS}")
    await page.get_by_label("Name of a new key").fill("Checkout")
    await page.get_by_role("button", name="Create event key").click()
    await page.get_by_role("button", name="Revoke Checkout").click()
    await page.get_by_role("button", name="Revoke the key").click()
    await expect(page.locator("tbody tr", has_text="Checkout")).to_contain_text("Revoked")
    await page.goto(f"{server.base_url}{SIGNING}")
    await page.get_by_role("button", name="Create the new key").click()
    await expect(page.get_by_role("status").first).to_contain_text("The new key is ready")
    state = await context.storage_state()
    await context.close()
    return Desk(server, tenant, state)


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser, desk: Desk) -> AsyncIterator[BrowserContext]:
    """Give a browser that is signed in and may use the clipboard."""
    context = await browser.new_context(
        viewport={"width": 1440, "height": 900},
        storage_state=desk.state,
        permissions=["clipboard-read", "clipboard-write"],
    )
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(context: BrowserContext) -> AsyncIterator[Page]:
    """Give a tab in which nothing may go wrong unseen."""
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    assert problems == []


async def test_a_key_is_shown_on_demand_and_hides_by_itself(tab: Page, desk: Desk) -> None:
    await tab.clock.install()
    await tab.goto(desk.url(EVENTS))
    row = tab.locator("tbody tr", has_text="Default")
    await row.get_by_role("button", name="Show").click()
    await expect(row.locator("code")).to_have_text(desk.tenant.event_key)
    await tab.clock.run_for(61_000)
    await expect(row.locator("code")).to_contain_text("••••")
    await expect(row.get_by_role("button", name="Show")).to_be_visible()


async def test_a_key_is_copied_without_being_shown(tab: Page, desk: Desk) -> None:
    await tab.goto(desk.url(SIGNING))
    await tab.get_by_role("button", name="Copy the key").first.click()
    await expect(tab.locator("#announce")).to_have_text("Copied")
    assert await tab.evaluate("navigator.clipboard.readText()") == desk.tenant.signing_key
    block_button = tab.get_by_role("button", name="Copy with the keys")
    await block_button.click()
    await expect(block_button).to_have_attribute("data-copied", "")
    block = await tab.evaluate("navigator.clipboard.readText()")
    assert block.splitlines()[1] == f"INNGEST_SIGNING_KEY_FALLBACK={desk.tenant.signing_key}"
    assert desk.tenant.signing_key not in await tab.content()


async def test_the_switcher_is_worked_by_keyboard_and_keeps_the_section(tab: Page, desk: Desk) -> None:
    await tab.goto(desk.url(SIGNING))
    await tab.locator("a.env").focus()
    await tab.keyboard.press("Enter")
    current = tab.locator("#switcher-rows [aria-current]")
    await expect(current).to_be_focused()
    await tab.keyboard.press("ArrowDown")
    await tab.keyboard.press("Enter")
    await expect(tab).to_have_url(desk.url("/env/staging/keys/signing"))
    await expect(tab.locator("a.env")).to_contain_text("Staging")
    await expect(tab.locator("#switcher")).to_be_hidden()


async def test_the_question_before_a_revocation_starts_on_cancel(tab: Page, desk: Desk) -> None:
    await tab.goto(desk.url(EVENTS))
    opener = tab.get_by_role("button", name="Revoke Default")
    await opener.focus()
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("button", name="Cancel")).to_be_focused()
    await tab.keyboard.press("Enter")
    await expect(tab.locator(".ask:popover-open")).to_have_count(0)
    await expect(opener).to_be_focused()


async def test_a_theme_is_kept_and_can_follow_the_system_again(tab: Page, desk: Desk) -> None:
    await tab.goto(desk.url("/env"))
    await tab.locator(".who-open").click()
    await tab.get_by_role("button", name="Dark").click()
    await tab.reload()
    await expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    await tab.locator(".who-open").click()
    await tab.get_by_role("button", name="System").click()
    await tab.reload()
    assert await tab.locator("html").get_attribute("data-theme") is None


async def test_the_menu_of_a_phone_reaches_every_section(tab: Page, desk: Desk) -> None:
    await tab.set_viewport_size({"width": 390, "height": 844})
    await tab.goto(desk.url("/env"))
    await tab.get_by_role("button", name="More").click()
    await tab.locator(".nav").get_by_role("link", name="Signing keys").click()
    await expect(tab.locator("h1")).to_have_text("Signing keys")
    await expect(tab.locator("#side")).to_be_hidden()


async def test_an_event_with_bad_data_is_refused_in_place_and_keeps_what_was_typed(
    context: BrowserContext, desk: Desk
) -> None:
    page = await context.new_page()
    await page.goto(desk.url(START))
    await page.get_by_label("Data").fill("{nothing")
    await page.get_by_role("button", name="Send test event").click()
    await expect(page.locator("#data-error")).to_contain_text("This is not JSON.")
    assert await page.get_by_label("Data").input_value() == "{nothing"


async def test_local_time_and_the_end_of_single_keys_are_chosen_in_the_profile(browser: Browser, desk: Desk) -> None:
    context = await browser.new_context(storage_state=desk.state, timezone_id="Asia/Kolkata")
    page = await context.new_page()
    await page.goto(desk.url("/settings/audit"))
    written = page.locator("time[data-clock]").last
    utc = await written.inner_text()
    assert utc.endswith("UTC")

    async def choose(zone: str, *, has_keys: bool) -> None:
        await page.goto(desk.url("/settings/profile"))
        await page.get_by_label(zone).check()
        await page.get_by_label("Single-key shortcuts").set_checked(has_keys)
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status").first).to_contain_text("Saved.")

    async def press_j() -> None:
        await page.goto(desk.url("/env?q="))
        await page.locator("#main").focus()
        await page.keyboard.press("j")

    await choose("Local time of this device", has_keys=False)
    await page.goto(desk.url("/settings/audit"))
    await expect(written).to_contain_text("GMT+5:30")
    minutes = [int(text[:2]) * 60 + int(text[3:5]) for text in (utc, await written.inner_text())]
    assert (minutes[1] - minutes[0]) % (24 * 60) == 330
    await press_j()
    await expect(page.locator("#main")).to_be_focused()
    await choose("UTC", has_keys=True)
    await press_j()
    await expect(page.locator(".tbl .fn a").first).to_be_focused()
    await context.close()


async def test_a_teammate_is_invited_and_joins(browser: Browser, desk: Desk) -> None:
    context = await browser.new_context(storage_state=desk.state)
    page = await context.new_page()
    await page.goto(desk.url("/settings/team"))
    await page.get_by_label("E-mail address of a teammate").fill("bob@example.com")
    await page.get_by_label("Role", exact=True).select_option("viewer")
    await page.get_by_role("button", name="Invite").click()
    link = await page.locator("#invite-link").inner_text()
    await context.close()
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(link)
    await page.get_by_label("Your name").fill("Bob")
    await page.get_by_label("Password").fill("another long walk by the sea")
    await page.get_by_role("button", name="Create the account and join").click()
    await expect(page.locator("a.env")).to_contain_text("Organization 1")
    await page.goto(desk.url("/settings/team"))
    await expect(page.locator("tbody tr", has_text="bob@example.com")).to_contain_text("Viewer")
    await expect(page.get_by_role("button", name="Invite")).to_have_count(0)
    await context.close()
