"""Login through a certified provider, in a real browser: the whole journey, and the pages on the way, looked at by axe."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, BrowserContext, Page, expect

from app.main import create_app
from app.supervise.state import free_port
from tests.browser.conftest import AXE
from tests.integration.web.post import WITH_MAIL
from tests.integration.web.site import settings_for
from tests.providers.certified import CLIENT, SECRET, running_provider

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

PASSWORD = "a long walk by the sea"


@dataclass(frozen=True, slots=True)
class House:
    """A Stepwell that people sign in to through a provider named Acme."""

    url: str
    issuer: str


@pytest.fixture(scope="module")
def house(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Give a web process in a thread and its provider as a process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("provider")
    with running_provider(f"{url}/login/acme/callback", folder) as provider:
        entry = {"issuer": provider.issuer, "client_id": CLIENT, "client_secret": SECRET, "label": "Acme"}
        settings = settings_for(
            database,
            **WITH_MAIL,
            STEPWELL_BASE_URL=url,
            STEPWELL_PORT=str(port),
            STEPWELL_SIGN_UP="open",
            STEPWELL_LOGIN_PROVIDERS=json.dumps([entry]),
        )
        made: dict[str, Any] = {}
        ready = threading.Event()

        async def serve() -> None:
            config = uvicorn.Config(create_app(settings), port=port, log_level="error", timeout_graceful_shutdown=1)
            server = made["server"] = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())
            while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event
                await asyncio.sleep(0.02)
            ready.set()
            with suppress(asyncio.CancelledError):
                await task

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        assert ready.wait(60)
        yield House(url, provider.issuer)
        made["server"].should_exit = True
        thread.join(30)


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Give a browser."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    yield context
    await context.close()


async def sign_in_there(tab: Page, house: House, name: str) -> None:
    """Sign in on the provider's page, and agree if it asks."""
    await expect(tab.locator("input[name=login]")).to_be_visible()
    assert tab.url.startswith(house.issuer)
    await tab.locator("input[name=login]").fill(name)
    await tab.locator("input[name=password]").fill("any")
    await tab.get_by_role("button", name="Sign-in").click()


async def agree(tab: Page) -> None:
    """Agree on the provider's page."""
    await tab.get_by_role("button", name="Continue").click()


async def axe_finds_nothing(tab: Page) -> None:
    """Look at the page as it is, in both themes."""
    # By the protocol, not by a tag: the policy of the page allows no inline script.
    source = AXE.read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        await tab.emulate_media(color_scheme="light" if theme == "light" else "dark")
        await tab.evaluate(source)
        found = await tab.evaluate("axe.run().then(r => r.violations.map(v => v.id + ' ' + v.nodes[0].html))")
        assert found == [], f"{tab.url} in {theme}"


async def test_the_whole_journey_through_a_certified_provider(context: BrowserContext, house: House) -> None:
    tab = await context.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    # Sign up.
    await tab.goto(f"{house.url}/sign-up")
    await axe_finds_nothing(tab)
    await tab.get_by_role("button", name="Continue with Acme").click()
    await sign_in_there(tab, house, "ada")
    await agree(tab)
    await expect(tab.locator("h1")).to_have_text("Name your organization")
    await expect(tab.locator("main")).to_contain_text("ada@example.com")
    await axe_finds_nothing(tab)
    await tab.get_by_label("Organization").fill("Ada & Sons")
    await tab.get_by_role("button", name="Create account").click()
    await expect(tab.locator("h1")).to_have_text("From here to your first run")
    # Sign out, and in again: the provider still knows who this is.
    await tab.locator(".who-open").click()
    await tab.get_by_role("button", name="Sign out").click()
    await expect(tab).to_have_url(f"{house.url}/login")
    await axe_finds_nothing(tab)
    await tab.get_by_role("button", name="Continue with Acme").click()
    await expect(tab.locator("a.env")).to_contain_text("Ada & Sons")
    # Without a password, a new login there proves who it is.
    await tab.goto(f"{house.url}/settings/security")
    await axe_finds_nothing(tab)
    await tab.get_by_role("button", name="Confirm with Acme").click()
    await sign_in_there(tab, house, "ada")
    await expect(tab.get_by_role("status").first).to_contain_text("Confirmed")
    await tab.get_by_label("New password").fill(PASSWORD)
    await tab.get_by_role("button", name="Choose password").click()
    await expect(tab.get_by_role("status").first).to_contain_text("Your password is changed.")
    # Disconnect, and connect again.
    for verb, sentence in (("Disconnect", "It is disconnected."), ("Connect", "It is connected.")):
        await tab.get_by_role("button", name=f"{verb} Acme").click()
        popover = tab.locator(".ask:popover-open")
        await popover.get_by_label("Your password").fill(PASSWORD)
        await popover.get_by_role("button", name="Disconnect" if verb == "Disconnect" else "Go to Acme").click()
        await expect(tab.get_by_role("status").first).to_contain_text(sentence)
    await axe_finds_nothing(tab)
    assert problems == []


async def test_who_does_not_agree_is_back_at_the_door(browser: Browser, house: House) -> None:
    # Without scripts: going to the provider and coming back needs none.
    context = await browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    tab = await context.new_page()
    await tab.goto(f"{house.url}/login")
    await tab.get_by_role("button", name="Continue with Acme").click()
    await sign_in_there(tab, house, "bob")
    await tab.get_by_role("link", name="Cancel").click()
    await expect(tab.locator("h1")).to_have_text("You did not agree")
    await expect(tab.locator("main")).to_contain_text("consent_denied")
    await tab.get_by_role("link", name="Back to the login").click()
    await expect(tab.get_by_label("Password")).to_be_visible()
    await context.close()
