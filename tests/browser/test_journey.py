"""From nothing to a finished run, in a real browser, against real processes: the way everybody comes in.

The app that is started is the guide's own sample, as the page shows it, with the variables that the page's button
copied: what people are told to do is what is done here.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from app.supervise.state import free_port
from tests.processes import Process, await_so, environ, our_command, running, status_of
from tests.protocol import node
from tests.protocol.server import Server, running_server
from tests.servers import TestServers, cloned_database

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

#: The number of a Valkey database that no other fixture empties.
_REDIS = 40
PASSWORD = "a long walk by the sea"


@dataclass(frozen=True, slots=True)
class Kit:
    """How to start a sample of the guide: `prepare` puts its code into a folder and gives the command."""

    tab: str
    prepare: Callable[[Path, str, int], list[str]]


def _flask(folder: Path, code: str, port: int) -> list[str]:
    (folder / "app.py").write_text(code, encoding="utf-8")
    return [sys.executable, "-m", "flask", "--app", str(folder / "app.py"), "run", "--port", str(port)]


def _node(folder: Path, code: str, port: int, *, packages: Path = node.FOLDER) -> list[str]:
    node.install(packages)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    assert "listen(3000)" in code
    (folder / "app.mjs").write_text(code.replace("listen(3000)", f"listen({port})"), encoding="utf-8")
    return [*node.node(), str(folder / "app.mjs")]


def _node_3(folder: Path, code: str, port: int) -> list[str]:
    """The same program as version 3 of the package writes it: the trigger is an argument of its own."""
    now, then = '{ id: "hello", triggers: [{ event: "demo/hello" }] },', '{ id: "hello" }, { event: "demo/hello" },'
    assert now in code
    return _node(folder, code.replace(now, then), port, packages=node.FORMER)


def _own(folder: Path, code: str, port: int) -> list[str]:
    (folder / "app.py").write_text(code, encoding="utf-8")
    return [*our_command("uvicorn"), "app:app", "--app-dir", str(folder), "--port", str(port)]


KITS = {
    "flask": Kit("Flask", _flask),
    "node": Kit("Node.js", _node),
    "node 3": Kit("Node.js", _node_3),
    "own": Kit("Stepwell SDK", _own),
}


@pytest.fixture
def server(servers: TestServers, servers_folder: Path, worker_number: int, tmp_path: Path) -> Iterator[Server]:
    """Give a Stepwell that nobody has signed up to: a web process and a worker."""
    servers.flush(_REDIS)
    with ExitStack() as stack:
        database_url = stack.enter_context(cloned_database(servers, servers_folder, f"journey{worker_number}"))
        yield stack.enter_context(running_server("signed", database_url, servers.redis_url(_REDIS), tmp_path))


@pytest.fixture
def apps() -> Iterator[ExitStack]:
    """Give the place where started apps end with the test."""
    with ExitStack() as stack:
        yield stack


async def sign_up(page: Page, server: Server) -> None:
    """Come to an empty installation and sign up with the keyboard alone."""
    await page.goto(server.base_url)
    await page.get_by_role("link", name="Create an account").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("Create your account")
    for text in ("ann@example.com", PASSWORD, "Ann & Sons"):
        await page.keyboard.press("Tab")
        await page.keyboard.type(text)
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("From here to your first run")


async def start_app(page: Page, kit: Kit, folder: Path, apps: ExitStack, port: int) -> Process:
    """Do what steps 1 and 2 of the guide say."""
    await page.get_by_role("link", name=kit.tab).click()
    await expect(page.locator(".tabs [aria-current]")).to_contain_text(kit.tab)
    assert "••••" in (await page.locator("#env-block").inner_text())
    await page.evaluate("navigator.clipboard.writeText('')")
    await page.get_by_role("button", name="Copy with the keys").click()
    await expect(page.locator("#announce")).to_have_text("Copied")
    block = await page.evaluate("navigator.clipboard.readText()")
    assert "••••" not in block
    assert "••••" in (await page.locator("#env-block").inner_text())
    variables = dict(line.split("=", 1) for line in block.splitlines())
    code = await page.locator("#sample-code").inner_text()
    await asyncio.to_thread(folder.mkdir)
    command = await asyncio.to_thread(kit.prepare, folder, code, port)
    process = apps.enter_context(running("app", command, environ(**variables), folder))
    url = f"http://127.0.0.1:{port}/api/inngest"
    await asyncio.to_thread(await_so, lambda: status_of(url), "the app answers", [process])
    return process


#: Every kit in full size; otherwise one of each language, the older npm package among them.
TRIED = KITS if os.environ.get("STEPWELL_TEST_SIZE") == "full" else ("flask", "node 3")


@pytest.mark.parametrize("name", TRIED)
async def test_a_stranger_signs_up_and_sees_the_first_run_of_an_app_finish(
    server: Server, page: Page, apps: ExitStack, tmp_path: Path, name: str
) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await sign_up(page, server)
    await page.evaluate("window.mark = 1")
    port = free_port()
    await page.get_by_label("URL of the app").fill(f"http://127.0.0.1:{port}/api/inngest")

    # The app is not there yet: the page says so, and what to do.
    await page.get_by_role("button", name="Sync the app").click()
    await expect(page.locator(".sync-oops h3")).to_have_text("The app cannot be reached")

    process = await start_app(page, KITS[name], tmp_path / "my app", apps, port)
    await page.get_by_role("button", name="Sync the app").click()
    await expect(page.locator("#sync-result .banner")).to_contain_text("Synced: 1 new", timeout=30_000)
    await expect(page.locator("#sync-result .st.ok")).to_have_count(3)
    await expect(page.locator("#apps")).to_contain_text("my-app")
    await expect(page.locator("#apps-state")).to_have_text("1 app synced")

    await page.get_by_role("button", name="Send test event").click()
    run = page.locator("#first-run a")
    await expect(run).to_contain_text("hello", timeout=30_000)
    await expect(run).to_contain_text("Completed", timeout=60_000)
    await expect(page.locator("#run-state")).to_have_text("You are set up")
    assert await page.evaluate("window.mark") == 1, "the page was loaded again"

    await run.click()
    await expect(page.locator("#run-head")).to_contain_text("Completed")
    await expect(page.locator("#detail")).to_contain_text("Hello, Ada!")
    assert process.popen.poll() is None


async def test_the_second_stranger_is_not_let_in(server: Server, browser: Browser, page: Page) -> None:
    await sign_up(page, server)
    context = await browser.new_context()
    other = await context.new_page()
    await other.goto(f"{server.base_url}/sign-up")
    await expect(other.locator("h1")).to_have_text("Sign-up is closed")
    await context.close()
