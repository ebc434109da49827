"""A real browser on the real pages: one Chromium for all tests of this folder, one server per module."""

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, Page, async_playwright

from app.engine import bulk
from app.engine.clock import DatabaseClock
from app.store.db import open_engine_pool, open_page_pool
from tests import world
from tests.browser.chromium import find
from tests.page_app import make_app

AXE = Path(__file__).resolve().parents[1] / "vendor/axe-core-4.14.1/axe.min.js"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="session")
def chromium(servers_folder: Path) -> Path:
    """Give the browser to use: the one named by CHROMIUM, or one that is found or fetched, by one process at a time."""
    named = os.environ.get("CHROMIUM")
    if named:
        return Path(named)
    with (servers_folder / "chromium.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find().path


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pages are served, whose they are, and the runs they show, by name."""

    url: str
    tenant: world.Tenant
    stories: dict[str, world.Story]
    database: str

    def run(self, name: str) -> str:
        """Give the address of a run's page."""
        return f"{self.url}/env/production/runs/{self.stories[name].ulid}"


async def work_off_bulk(engine_pool: Any) -> None:
    """Do what a worker does with bulk actions, for as long as the server lives."""
    while True:
        await bulk.run_once(engine_pool, DatabaseClock(), lambda _done: None)
        await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def place(database: str) -> Iterator[Place]:
    """Give the pages, served by uvicorn in a thread of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ready = threading.Event()
    made: dict[str, Any] = {}

    async def serve() -> None:
        connection = await asyncpg.connect(database)
        tenant = await world.make_tenant(connection)
        stories = await world.make_showcase(connection, tenant, await connection.fetchval("select clock()"))
        await connection.close()
        pool = await open_page_pool(database, size=4)
        # Open streams must not hold up the end of the tests.
        engine_pool = await open_engine_pool(database, size=3)
        config = uvicorn.Config(
            make_app(pool, tenant, engine_pool=engine_pool), port=port, log_level="error", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        made.update(tenant=tenant, stories=stories, server=server)
        task = asyncio.create_task(server.serve())
        worker = asyncio.create_task(work_off_bulk(engine_pool))
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.02)
        ready.set()
        with suppress(asyncio.CancelledError):
            await task
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await engine_pool.close()
        await pool.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield Place(f"http://127.0.0.1:{port}", made["tenant"], made["stories"], database)
    made["server"].should_exit = True
    thread.join(10)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: Path) -> AsyncIterator[Browser]:
    """Give a Chromium. Where none can be had, the tests fail and say what was tried."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Give a tab in which nothing may go wrong unseen: errors of scripts and of the policy fail the test."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    await context.close()
    assert problems == []
