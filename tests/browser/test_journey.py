"""From nothing to a replayed run, in a real browser, against real processes: the way everybody comes in.

The app that is started is the guide's own sample, as the page shows it, with the variables that the page's button
copied: what people are told to do is what is done here. Then the app grows into a shop with a mistake (`apps/`), whose
ledger of executed steps is the witness of what ran again and what did not.
"""

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from app.supervise.state import free_port
from tests.processes import Process, await_so, environ, our_command, running, status_of
from tests.protocol import node
from tests.protocol.server import Server, running_server
from tests.servers import TestServers, cloned_database

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

#: The number of a Valkey database that no other fixture empties.
_REDIS = 40
PASSWORD = "a long walk by the sea"
APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True, slots=True)
class Kit:
    """How to start a sample of the guide: `prepare` puts its code into a folder and gives the command.

    `shop` is the file in `apps/` that the sample grows into.
    """

    tab: str
    prepare: Callable[[Path, str, int], list[str]]
    shop: str


def _flask(folder: Path, code: str, port: int) -> list[str]:
    (folder / "app.py").write_text(code, encoding="utf-8")
    return [sys.executable, "-m", "flask", "--app", str(folder / "app.py"), "run", "--port", str(port)]


def _node(folder: Path, code: str, port: int, *, packages: Path = node.FOLDER) -> list[str]:
    node.install(packages)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(packages / "node_modules")
    assert "listen(3000)" in code
    (folder / "app.mjs").write_text(code.replace("listen(3000)", f"listen({port})"), encoding="utf-8")
    return [*node.node(), str(folder / "app.mjs")]


def _node_3(folder: Path, code: str, port: int) -> list[str]:
    """The same program as version 3 of the package writes it: the trigger is an argument of its own."""
    former, changed = re.subn(r', triggers: \[(\{ event: "[^"]+" \})\] \}', r" }, \1", code)
    assert changed
    return _node(folder, former, port, packages=node.FORMER)


def _own(folder: Path, code: str, port: int) -> list[str]:
    (folder / "app.py").write_text(code, encoding="utf-8")
    return [*our_command("uvicorn"), "app:app", "--app-dir", str(folder), "--port", str(port)]


KITS = {
    "flask": Kit("Flask", _flask, "shop_flask.py"),
    "node": Kit("Node.js", _node, "shop_node.mjs"),
    "node 3": Kit("Node.js", _node_3, "shop_node.mjs"),
    "own": Kit("Stepwell SDK", _own, "shop_own.py"),
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


@dataclass(slots=True)
class App:
    """An app under development: its folder, the variables copied from the guide, and the process that runs it now."""

    kit: Kit
    folder: Path
    port: int
    variables: dict[str, str]
    apps: ExitStack
    process: Process | None = None

    @property
    def url(self) -> str:
        """Where its SDK answers."""
        return f"http://127.0.0.1:{self.port}/api/inngest"

    async def start(self, code: str) -> None:
        """Save the code and start it; what ran before is stopped."""
        if self.process is not None:
            await asyncio.to_thread(self.process.stop)
        command = await asyncio.to_thread(self.kit.prepare, self.folder, code, self.port)
        self.process = self.apps.enter_context(running("app", command, environ(**self.variables), self.folder))
        await asyncio.to_thread(await_so, lambda: status_of(self.url), "the app answers", [self.process])

    def ran(self) -> Counter[str]:
        """How often each step's function was executed, by the app's own account."""
        ledger = self.folder / "ledger.txt"
        return Counter(ledger.read_text(encoding="utf-8").split() if ledger.exists() else [])


async def start_sample(page: Page, kit: Kit, folder: Path, apps: ExitStack, port: int) -> App:
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
    await asyncio.to_thread(folder.mkdir)
    app = App(kit, folder, port, variables, apps)
    await app.start(await page.locator("#sample-code").inner_text())
    return app


async def send_event(page: Page, name: str) -> Locator:
    """Send an event from the guide and give the link to the run it starts."""
    await page.get_by_label("Event name").fill(name)
    await page.get_by_role("button", name="Send test event").click()
    run = page.locator("#first-run a", has_text=name.rpartition("/")[2])
    await expect(run).to_have_count(1, timeout=30_000)
    return run


async def mend_and_replay(page: Page, app: App, code: str) -> None:
    """A run fails; its page says why; the mended app ends its replay without charging the card again."""
    run = await send_event(page, "shop/order")
    await expect(run).to_contain_text("Failed", timeout=60_000)
    await run.click()
    head = page.locator("#run-head")
    await expect(head.get_by_role("region", name="Failure")).to_contain_text("The courier has no address")
    await expect(head.get_by_role("region", name="Failure")).to_contain_text("ship")
    assert app.ran() == {"charge-card": 1, "pack": 1, "ship": 1}

    assert 'COURIER = ""' in code
    await app.start(code.replace('COURIER = ""', 'COURIER = "12 Harbour Road"'))
    failed = page.url
    await page.locator("#replay-run").click()
    await expect(head).to_contain_text("Replay of")
    await expect(head.locator("[data-status]").first).to_have_text("Completed", timeout=60_000)
    await page.locator("#detail").get_by_role("link", name="Output").click()
    await expect(page.locator("#detail")).to_contain_text("12 Harbour Road")
    assert app.ran() == {"charge-card": 1, "pack": 1, "ship": 2}

    await page.goto(failed)
    await expect(head).to_contain_text("Replayed as")
    await page.get_by_role("button", name="More replay options").click()
    await page.locator("#replay-menu .item", has_text="From the start").click()
    await expect(head).to_contain_text("Replay of")
    await expect(head.locator("[data-status]").first).to_have_text("Completed", timeout=60_000)
    assert app.ran() == {"charge-card": 2, "pack": 2, "ship": 3}


async def cancel_sleepers(page: Page, server: Server, app: App, number: int) -> None:
    """One sleeping run is cancelled on its page; then many are, ticked in the list."""
    await page.goto(f"{server.base_url}/env/production/start")
    run = await send_event(page, "shop/nap")
    await expect(run).to_contain_text(re.compile("Sleeping|Waiting"), timeout=60_000)
    await run.click()
    await page.locator("#cancel-run").click()
    await page.get_by_role("button", name="Cancel run").click()
    await expect(page.locator("#run-head [data-status]").first).to_have_text("Cancelled")

    events = [{"name": "shop/nap", "data": {"n": n}} for n in range(number)]
    sent = await asyncio.to_thread(
        lambda: httpx2.post(f"{server.base_url}/e/{app.variables['INNGEST_EVENT_KEY']}", json=events, timeout=30)
    )
    assert sent.status_code == 200, sent.text
    needs = [*server.processes, app.process] if app.process else server.processes
    await asyncio.to_thread(
        await_so, lambda: app.ran()["lie-down"] == number + 1 or None, "all lie down", needs, within=180
    )
    rows = page.locator("#rows tr")
    async with asyncio.timeout(60):
        await page.goto(f"{server.base_url}/env/production/runs?status=waiting&size=200")
        while await rows.count() != number:
            await page.reload()
    await page.locator("[data-select-all]").check()
    await page.locator(".bulk button", has_text="Cancel").click()
    await page.get_by_label("Reason").fill("a broken deploy")
    await page.get_by_role("button", name=f"Cancel {number} runs").click()
    # There is time to think again, and then a worker goes through them.
    await expect(page.locator("[data-progress]")).to_contain_text(f"{number} of {number}", timeout=120_000)
    await page.goto(f"{server.base_url}/env/production/runs?status=cancelled&size=200")
    await expect(rows).to_have_count(min(number + 1, 200))
    assert app.ran()["get-up"] == 0


IS_FULL = os.environ.get("STEPWELL_TEST_SIZE") == "full"
#: Every kit in full size; otherwise one of each language, the older npm package among them.
TRIED = KITS if IS_FULL else ("flask", "node 3")


@pytest.mark.parametrize("name", TRIED)
async def test_a_stranger_signs_up_sees_a_run_finish_mends_a_failed_one_and_cancels_many(
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

    app = await start_sample(page, KITS[name], tmp_path / "my app", apps, port)
    await page.get_by_role("button", name="Sync the app").click()
    await expect(page.locator("#sync-result .banner")).to_contain_text("Synced: 1 new", timeout=30_000)
    await expect(page.locator("#sync-result .st.ok")).to_have_count(3)
    await expect(page.locator("#apps")).to_contain_text("my-app")
    await expect(page.locator("#apps-state")).to_have_text("1 app synced")

    run = await send_event(page, "demo/hello")
    await expect(run).to_contain_text("Completed", timeout=60_000)
    await expect(page.locator("#run-state")).to_have_text("You are set up")

    # The app grows, and is synced again from the same page.
    shop = await asyncio.to_thread((APPS / KITS[name].shop).read_text, encoding="utf-8")
    await app.start(shop)
    await page.get_by_role("button", name="Sync the app").click()
    await expect(page.locator("#sync-result .banner")).to_contain_text("Synced: 2 new, 0 changed, 1 removed")
    assert await page.evaluate("window.mark") == 1, "the page was loaded again"

    await run.click()
    await expect(page.locator("#run-head")).to_contain_text("Completed")
    await expect(page.locator("#detail")).to_contain_text("Hello, Ada!")
    await page.go_back()
    await mend_and_replay(page, app, shop)
    await cancel_sleepers(page, server, app, 200 if IS_FULL or name == "flask" else 20)


async def test_the_second_stranger_is_not_let_in(server: Server, browser: Browser, page: Page) -> None:
    await sign_up(page, server)
    context = await browser.new_context()
    other = await context.new_page()
    await other.goto(f"{server.base_url}/sign-up")
    await expect(other.locator("h1")).to_have_text("Sign-up is closed")
    await context.close()
