"""Every page of the product in Chromium: axe finds nothing and nothing scrolls sideways, in both themes, wide and narrow.

A page is loaded once; width and theme change in place. The rest of what it takes to look at a page is not repeated
either: rules that do not ask for colours run once per width, those that do once per theme.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import uvicorn
from playwright.async_api import Browser, Page, expect

from app.main import create_app
from tests.browser.conftest import AXE
from tests.browser.keyboard import Keyboard
from tests.every_page import Shown, furnish, pages
from tests.integration.accounts.world import new_tenant
from tests.integration.web.pages.people import world_of
from tests.integration.web.site import settings_for
from tests.stripe_stand_in import SETTINGS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

#: A busy machine may be slow; nothing is asserted on time.
PATIENCE_MS = 60_000
#: What runs where: everything in the first look; then what a look can change.
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_COLOURS = ["color-contrast", "link-in-text-block"]
_WIDTHS = ["target-size", "scrollable-region-focusable", "heading-order", "region", "landmark-unique", "skip-link"]
LOOKS: tuple[tuple[int, str, list[str] | None], ...] = (
    (1440, "light", None),
    (1440, "dark", _COLOURS),
    (390, "dark", _COLOURS + _WIDTHS),
    (390, "light", _COLOURS),
)
_RUN = """async (rules) => {
  const found = await axe.run(document, {
    runOnly: rules ? {type: 'rule', values: rules} : {type: 'tag', values: %s},
    resultTypes: ['violations'], preload: false, iframes: false,
  });
  return found.violations.map((v) => [v.id, ...v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160))]);
}""" % (_TAGS,)  # noqa: UP031 - braces are the script's


@dataclass(frozen=True, slots=True)
class House:
    """The whole application in server mode, somebody who is signed in, and the pages there are."""

    url: str
    person: dict[str, str]
    shown: Shown
    pages: dict[str, str]


@pytest.fixture(scope="module")
def house(database: str) -> Iterator[House]:
    """Give the application, served by uvicorn in a thread of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    ready = threading.Event()
    made: dict[str, Any] = {}

    async def serve() -> None:
        person = await new_tenant(database)
        owner = await asyncpg.connect(database)
        made["shown"] = await furnish(owner, world_of(person))
        await owner.close()
        settings = settings_for(
            database,
            STEPWELL_BASE_URL=url,
            STEPWELL_SIGN_UP="open",
            STEPWELL_LOGIN_PROVIDERS='[{"issuer": "https://id.example", "client_id": "c", "label": "Acme"}]',
            **SETTINGS,
        )
        app = create_app(settings)
        config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        made.update(server=server, person=person, app=app)
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.02)
        ready.set()
        with suppress(asyncio.CancelledError):
            await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    yield House(url, made["person"], made["shown"], pages(made["app"], made["shown"].values))
    made["server"].should_exit = True
    thread.join(15)


async def _look(page: Page) -> list[Any]:
    """What is wrong with the page that is open, in all looks."""
    found: list[Any] = []
    for width, theme, rules in LOOKS:
        await page.set_viewport_size({"width": width, "height": 900})
        await page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", theme)
        if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            found.append((width, "scrolls sideways"))
        found += [(width, theme, violation) for violation in await page.evaluate(_RUN, rules)]
    await page.set_viewport_size({"width": 1440, "height": 900})
    return found


async def _fail_form(page: Page) -> None:
    """Send the page's form as it is, past the browser's own checks."""
    await page.evaluate(
        "(form => { form.noValidate = true; form.requestSubmit() })(document.querySelector('main form'))"
    )
    await expect(page.locator("[aria-invalid]").first).to_be_visible(timeout=PATIENCE_MS)


async def _fail_sync(page: Page) -> None:
    await page.get_by_label("URL of the app").fill("http://127.0.0.1:1/api/inngest")
    await page.get_by_role("button", name="Sync the app").click()
    await expect(page.locator(".sync-oops")).to_be_visible(timeout=PATIENCE_MS)


async def _ask_to_revoke(page: Page) -> None:
    await page.get_by_role("button", name="Revoke Default").click()
    await expect(page.locator(".ask:popover-open")).to_be_visible(timeout=PATIENCE_MS)


#: States that a page comes into by being used, by the name of the page.
ACTS: dict[str, Callable[[Page], Awaitable[None]]] = {
    "start": _fail_sync,
    "event_keys": _ask_to_revoke,
    "sign_up": _fail_form,
}


async def test_axe_finds_nothing_and_nothing_scrolls_sideways_on_any_page(browser: Browser, house: House) -> None:
    context = await browser.new_context(
        viewport={"width": 1440, "height": 900}, bypass_csp=True, reduced_motion="reduce"
    )
    # Sent to the browser once, run by it in every document.
    await context.add_init_script(path=AXE)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    found: dict[str, list[Any]] = {}
    # First without a session: the pages of the door.
    outside = {name: address for name, address in house.pages.items() if not address.startswith(("/env", "/dev"))}
    await page.goto(f"{house.url}/login")
    found["login"] = await _look(page)
    await page.get_by_label("E-mail address").fill(house.person["user"])
    await page.get_by_label("Password").fill("wrong, and long enough")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator(".form-errors")).to_be_visible(timeout=PATIENCE_MS)
    found["login refused"] = await _look(page)
    for name in ("sign_up",):
        await page.goto(f"{house.url}{outside[name]}")
        found[name] = await _look(page)
        await ACTS[name](page)
        found[f"{name}, used"] = await _look(page)
    await page.goto(f"{house.url}/login")
    await page.get_by_label("E-mail address").fill(house.person["user"])
    await page.get_by_label("Password").fill(house.person["password"])
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator(".who-open")).to_be_visible(timeout=PATIENCE_MS)
    await page.goto(f"{house.url}/nothing-is-here")
    found["error"] = await _look(page)
    for name, address in house.pages.items():
        if name in found:
            continue
        await page.goto(f"{house.url}{address}", wait_until="load")
        found[name] = await _look(page)
        if name in ACTS:
            await ACTS[name](page)
            found[f"{name}, used"] = await _look(page)
    for kind in ("scripts", "a megabyte"):
        hostile = house.shown.hostile[kind]
        for part in (f"runs/{hostile['run_id']}", f"events/{hostile['event_id']}", f"functions/{hostile['fn']}"):
            await page.goto(f"{house.url}/env/{hostile['slug']}/{part}")
            found[f"{part}, {kind}"] = await _look(page)
    await context.close()
    assert len(found) > 40
    assert {name: problems for name, problems in found.items() if problems} == {}


async def test_a_stranger_comes_from_sign_up_to_the_keys_by_keyboard_alone(page: Page, house: House) -> None:
    keys = Keyboard(page)
    await page.goto(f"{house.url}/login")
    await keys.follow(page.get_by_role("link", name="Create an account"))
    await expect(page.locator("h1")).to_have_text("Create your account", timeout=PATIENCE_MS)
    await keys.fill(page.get_by_label("E-mail address"), "keys@example.com")
    await keys.fill(page.get_by_label("Password"), "a long walk by the sea")
    await keys.fill(page.get_by_label("Organization"), "Keys & Sons")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("From here to your first run", timeout=PATIENCE_MS)
    # Another environment, through the switcher.
    await keys.follow(page.locator("a.env"))
    await keys.follow(page.get_by_role("link", name="New environment"))
    await keys.fill(page.get_by_label("Name"), "Staging")
    await page.keyboard.press("Enter")
    await expect(page.locator("a.env")).to_contain_text("Staging", timeout=PATIENCE_MS)
    # Its keys: shown on demand, a second one made.
    await keys.follow(page.get_by_role("link", name="Event keys"))
    await expect(page.locator("h1")).to_have_text("Event keys", timeout=PATIENCE_MS)
    await keys.follow(page.get_by_role("button", name="Show").first)
    await expect(page.locator("tbody code").first).not_to_contain_text("••••", timeout=PATIENCE_MS)
    await keys.fill(page.get_by_label("Name of a new key"), "Checkout")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr", has_text="Checkout")).to_be_visible(timeout=PATIENCE_MS)
    # And back to the guide, by its name.
    await page.keyboard.press("Control+k")
    await page.keyboard.type("guide")
    await expect(page.locator("#found a")).to_have_count(1, timeout=PATIENCE_MS)
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("From here to your first run", timeout=PATIENCE_MS)
    assert "/env/staging/" in page.url


async def test_the_palette_opens_a_run_by_its_id_and_closes_with_escape(browser: Browser, house: House) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{house.url}/login")
    await page.get_by_label("E-mail address").fill(house.person["user"])
    await page.get_by_label("Password").fill(house.person["password"])
    await page.keyboard.press("Enter")
    await expect(page.locator(".find")).to_be_visible(timeout=PATIENCE_MS)
    await page.keyboard.press("Control+k")
    await expect(page.locator("#palette")).to_be_visible(timeout=PATIENCE_MS)
    await page.keyboard.press("Escape")
    await expect(page.locator("#palette")).to_be_hidden(timeout=PATIENCE_MS)
    await page.keyboard.press("Control+k")
    await page.keyboard.insert_text(house.shown.values["run_id"])
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("reindex-search", timeout=PATIENCE_MS)
    await context.close()
