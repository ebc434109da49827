"""Apps, functions and events in Chromium, on the whole application in dev mode with an engine beside it.

The tenant's app is played by a caller that registers two functions and ends every run at once; everything between the
browser and that caller is real.
"""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import uvicorn
from playwright.async_api import Browser, Page, expect

from app.adapters.http import Answer
from app.adapters.redis import Bell
from app.config import load
from app.domain.ids import DEV_ACCOUNT_ID, DEV_ENVIRONMENT_ID, UserId, derive_uuid
from app.engine.catalogue import Catalogue
from app.engine.engine import Engine, EngineSettings
from app.main import create_app
from app.store.db import open_engine_pool
from tests import world
from tests.browser.keyboard import Keyboard
from tests.integration.web.pages.people import AppStandIn, config, store_event

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "http://app.test/api/inngest"
SDK = {"x-inngest-sdk": "inngest-js:v3.54.2", "x-inngest-framework": "express", "x-inngest-req-version": "1"}
DEV = world.Tenant(
    DEV_ACCOUNT_ID, "Development", DEV_ENVIRONMENT_ID, "dev", "Development", "dev", UserId(derive_uuid("nobody")), ""
)


@dataclass(frozen=True, slots=True)
class Live:
    """Where the application is served, and from what database."""

    url: str
    database: str

    def at(self, path: str = "") -> str:
        """Give the address of a page of the environment."""
        return f"{self.url}/env/dev{path}"


def registration(*functions: dict[str, Any]) -> bytes:
    """What an app answers to a sync."""
    return json.dumps(
        {
            "app_id": "till", "appName": "till", "framework": "express", "functions": functions, "sdk": "js:v3.54.2",
            "sdk_language": "js", "sdk_version": "3.54.2", "url": URL, "v": "0.1", "capabilities": {}, "deployType": "ping",
        }
    ).encode()  # fmt: skip


def answer_call(_headers: Any, body: bytes) -> Answer:
    """End the run at once; one of `rest` sleeps for an hour."""
    headers = SDK | {"content-type": "application/json"}
    if b'"order/rest"' not in body:
        return Answer(200, headers, b'{"charged":true}', 3.0)
    sleep = {"id": world.step_key("rest"), "op": "Sleep", "name": "1h", "displayName": "rest", "opts": {}}
    return Answer(206, headers, json.dumps([sleep]).encode(), 3.0)


def app_stand_in() -> AppStandIn:
    """An app with three functions."""
    body = registration(
        config(
            "till-charge",
            name="charge",
            triggers=[{"event": "order/placed", "expression": "event.data.total > 1"}],
            retries=7,
        ),
        config("till-refund", name="refund", triggers=[{"event": "order/refunded"}]),
        config("till-rest", name="rest", triggers=[{"event": "order/rest"}]),
    )
    return AppStandIn(
        {
            "PUT": Answer(200, SDK | {"x-inngest-sync-kind": "in_band"}, body, 3.0),
            "POST": answer_call,
            "GET": Answer(200, SDK, b'{"mode":"dev","function_count":3}', 3.0),
        }
    )


@pytest.fixture(scope="module")
def live(database: str) -> Iterator[Live]:
    """Give the application, served by uvicorn in a thread of its own with an engine beside it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    ready = threading.Event()
    made: dict[str, Any] = {}

    async def serve() -> None:
        app = create_app(
            load(
                {
                    "DATABASE_URL": database, "REDIS_URL": "redis://127.0.0.1:1", "STEPWELL_BASE_URL": url,
                    "STEPWELL_SECRET_KEY": "a secret key that only these tests know", "STEPWELL_MODE": "dev",
                    "STEPWELL_DISCOVERY": "0",
                }
            )
        )  # fmt: skip
        caller = app_stand_in()
        app.state.app_calls.caller = caller
        pools = [await open_engine_pool(database, size=3) for _ in range(2)]
        bell = Bell("redis://127.0.0.1:1")

        async def no_keys(_: Any) -> list[str]:
            return []

        engine = Engine(
            pools[0], pools[1], caller, bell, Catalogue(pools[0], no_keys),
            EngineSettings(server_kind="dev", is_signed=False),
        )  # fmt: skip
        config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.02)
        # The application makes the dev tenant when it opens its pool.
        await app.state.site.ingest.start()
        owner = await asyncpg.connect(database)
        await world.make_showcase(owner, DEV, await owner.fetchval("select clock()"))
        await owner.close()
        await engine.start()
        made["server"] = server
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await engine.stop(1)
        await bell.close()
        for pool in pools:
            await pool.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    yield Live(url, database)
    made["server"].should_exit = True
    thread.join(15)


async def test_an_app_is_synced_an_event_is_sent_and_its_run_appears(page: Page, live: Live) -> None:
    await page.goto(live.at("/apps/new"))
    await page.get_by_label("URL of the app").fill(URL)
    await page.get_by_role("button", name="Sync the app").click()
    await expect(page.locator("#sync-progress")).to_contain_text("till is synced")
    await page.get_by_role("link", name="Open the app").click()
    await expect(page.locator("h1")).to_have_text("till")
    await page.goto(live.at("/events/send"))
    await page.locator("#body").fill('{"name": "order/placed", "data": {"total": 184.5}}')
    await page.get_by_role("button", name="Send the event").click()
    await expect(page.locator("h1")).to_have_text("order/placed")
    runs = page.locator("#event-runs")
    await expect(runs).to_contain_text("charge", timeout=15_000)
    await expect(runs.locator(".st")).to_have_text("Completed", timeout=15_000)
    await runs.get_by_role("link", name="charge").click()
    await expect(page.locator("#run-head [data-status]")).to_have_text("Completed")


async def test_from_an_app_to_a_replayed_and_a_cancelled_run_by_keyboard_alone(page: Page, live: Live) -> None:
    keys = Keyboard(page)

    async def send(text: str) -> None:
        await keys.follow(page.locator(".nav").get_by_role("link", name="Events"))
        await keys.follow(page.get_by_role("link", name="Send an event"))
        await keys.fill(page.locator("#body"), text)
        await keys.follow(page.get_by_role("button", name="Send the event"))
        await expect(page.locator("#event-runs .st")).to_have_count(1, timeout=30_000)

    await page.goto(live.at("/apps"))
    await keys.follow(page.get_by_role("link", name="Sync an app").first)
    await keys.fill(page.get_by_label("URL of the app"), URL)
    await page.keyboard.press("Enter")
    await expect(page.locator("#sync-progress")).to_contain_text("till is synced", timeout=30_000)
    await send('{"name": "order/refunded"}')
    await expect(page.locator("#event-runs .st")).to_have_text("Completed", timeout=30_000)
    # The list, its first row by j, the run by Enter; then its replay.
    await keys.follow(page.locator(".nav").get_by_role("link", name="Runs"))
    await expect(page.locator("h1")).to_have_text("Runs", timeout=30_000)
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("refund", timeout=30_000)
    first = page.url
    await page.keyboard.press("r")
    await page.keyboard.press("Enter")
    await expect(page).not_to_have_url(first, timeout=30_000)
    await expect(page.locator("#run-head [data-status]").first).to_have_text("Completed", timeout=30_000)
    # One that sleeps is cancelled; the question comes first, and its focus is on keeping the run.
    await send('{"name": "order/rest"}')
    await expect(page.locator("#event-runs .st")).to_have_text("Waiting", timeout=30_000)
    await keys.follow(page.locator("#event-runs").get_by_role("link", name="rest"))
    await expect(page.locator("h1")).to_have_text("rest", timeout=30_000)
    await page.keyboard.press("c")
    await expect(page.get_by_role("link", name="Keep running")).to_be_focused(timeout=30_000)
    await keys.follow(page.get_by_role("button", name="Cancel run"))
    await expect(page.locator("#run-head [data-status]").first).to_have_text("Cancelled", timeout=30_000)


async def test_a_paused_function_starts_nothing_and_the_event_says_so(page: Page, live: Live) -> None:
    await page.goto(live.at("/functions/till-charge"))
    await page.get_by_role("link", name="Pause").click()
    await expect(page.locator("main")).to_contain_text("Events are still received and stored")
    await page.get_by_label("Reason").fill("stock is being counted")
    await page.get_by_role("button", name="Pause the function").click()
    await expect(page.locator(".banner")).to_contain_text("stock is being counted")
    await page.goto(live.at("/events/send"))
    await page.locator("#body").fill('{"name": "order/placed", "data": {"total": 2}}')
    await page.get_by_role("button", name="Send the event").click()
    await expect(page.locator("#event-runs")).to_contain_text("The function was paused.", timeout=15_000)
    await page.goto(live.at("/functions/till-charge"))
    await expect(page.locator(".banner")).to_contain_text("1 event arrived since")
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator(".banner")).to_contain_text("Events that arrived while it was paused started no run")
    await expect(page.get_by_role("link", name="Invoke")).to_be_visible()


async def test_an_invoke_leads_to_its_run(page: Page, live: Live) -> None:
    await page.goto(live.at("/functions/till-refund"))
    await page.get_by_role("link", name="Invoke").click()
    await page.locator("#payload").fill('{ "total": 1 }')
    await page.get_by_role("button", name="Invoke the function").click()
    await expect(page).to_have_url(re.compile("/runs/"))
    await expect(page.locator("#run-head [data-status]")).to_have_text("Completed", timeout=15_000)


async def test_new_events_wait_behind_a_pill_and_runs_show_up_in_place(page: Page, live: Live) -> None:
    await page.goto(live.at("/events"))
    rows = await page.locator("#rows tr").count()
    owner = await asyncpg.connect(live.database)
    await store_event(owner, DEV, "order/late")
    await owner.close()
    await expect(page.locator(".newrows")).to_have_text("1 new event. Show it", timeout=15_000)
    assert await page.locator("#rows tr").count() == rows
    await page.locator(".newrows").click()
    await expect(page.locator("#rows tr").first).to_contain_text("order/late")


async def test_an_event_is_sent_again_and_a_filter_narrows_the_list(page: Page, live: Live) -> None:
    await page.goto(live.at("/events/send"))
    await page.locator("#body").fill('{"name": "order/again"}')
    await page.get_by_role("button", name="Send the event").click()
    await expect(page.locator("h1")).to_have_text("order/again")
    await page.goto(live.at("/events"))
    await page.get_by_label("Event name").fill("order/again")
    await page.get_by_label("Event name").press("Enter")
    await expect(page.locator("#rows tr")).to_have_count(1)
    await page.locator("#rows tr").first.click()
    await expect(page.locator("h1")).to_have_text("order/again")
    first = page.url
    await page.get_by_role("button", name="Send again").click()
    await expect(page.locator("h1")).to_have_text("order/again")
    assert page.url != first


async def test_archiving_asks_first_and_cancel_has_the_focus(page: Page, live: Live) -> None:
    await page.goto(live.at("/apps/growth"))
    await page.get_by_role("button", name="Archive", exact=True).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Nothing starts its")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()


async def test_the_journey_works_without_scripts(browser: Browser, live: Live) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(live.at("/events/send"))
    await page.locator("#body").fill('{"name": "order/refunded"}')
    await page.get_by_role("button", name="Send the event").click()
    await expect(page.locator("h1")).to_have_text("order/refunded")
    await page.goto(live.at("/functions?q=refund"))
    await page.locator("#rows a").first.click()
    await page.get_by_role("link", name="Configuration").click()
    await expect(page.locator(".settings")).to_contain_text("Retries")
    await context.close()
