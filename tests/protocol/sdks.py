"""The SDKs the cases run with, and how their apps are started.

Every SDK has two programs in `apps/`: `shop` (the order workflow) and `cases` (small functions, one or a few for each
case, the same ones in every SDK). Both are real apps with the SDK's own way of serving; both write what they do to a
ledger, one JSON line per effect; both send events through their SDK.

To add a case: add its function to every `cases` program under the same name, and a test that takes `world`. To add an
SDK: add its programs and a row to `SDKS`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from app.supervise.state import free_port
from tests.processes import Process, await_so, environ, our_command, running, status_of
from tests.protocol import node
from tests.protocol.server import Server, Tenant

Program = Literal["shop", "cases"]
SERVE_PATH = "/api/inngest"


@dataclass(frozen=True, slots=True)
class Sdk:
    """One SDK: the commands of its programs, and the app ids they register under."""

    name: str
    command: Callable[[Program, int], list[str]]
    app_ids: dict[Program, str]
    dev_sync: Literal["in_band", "out_of_band"]
    """How the app answers an unsigned request for its functions in dev mode."""
    prepare: Callable[[], None] = lambda: None


def _own(program: Program, port: int) -> list[str]:
    module = "examples.shop" if program == "shop" else "tests.protocol.apps.own_cases"
    return our_command(module, "--port", str(port))


def _pypi(program: Program, _port: int) -> list[str]:
    return our_command(f"tests.protocol.apps.py_fastapi_{program}")


def _npm(program: Program, _port: int) -> list[str]:
    return [*node.node(), str(node.FOLDER / f"{program}.mjs")]


SDKS = {
    sdk.name: sdk
    for sdk in (
        Sdk("own", _own, {"shop": "shop", "cases": "cases"}, "in_band"),
        Sdk("pypi", _pypi, {"shop": "shop-py", "cases": "cases-py"}, "out_of_band"),
        Sdk("npm", _npm, {"shop": "shop-node", "cases": "cases-node"}, "in_band", prepare=node.install),
    )
}


@dataclass(frozen=True, slots=True)
class App:
    """A running app."""

    id: str
    base_url: str
    ledger: Path
    process: Process

    @property
    def serve_url(self) -> str:
        """Where the SDK is served."""
        return f"{self.base_url}{SERVE_PATH}"

    def register(self) -> httpx2.Response:
        """Ask the app to tell its functions, as a deploy hook does: it posts them to the server it was told of."""
        return httpx2.put(self.serve_url, timeout=60.0)

    def send(self, name: str, data: dict[str, Any]) -> str:
        """Send an event through the SDK and give its internal id (`cases` only)."""
        return self._post("/send", {"name": name, "data": data})

    def place_order(self, order_id: str) -> str:
        """Place an order and give the id of its event (`shop` only)."""
        order = {"id": order_id, "order_id": order_id, "items": ["mug"], "cents": 1200, "email": "ann@example.com"}
        return self._post("/orders", order)

    def _post(self, path: str, body: dict[str, Any]) -> str:
        answer = httpx2.post(f"{self.base_url}{path}", json=body, timeout=60.0)
        assert answer.status_code == 202, answer.text
        event_id: str = answer.json()["event_id"]
        return event_id

    def effects(self, key: str) -> list[dict[str, Any]]:
        """What the app did for an order or for the `key` of a case, oldest first."""
        if not self.ledger.exists():
            return []
        lines = [json.loads(line) for line in self.ledger.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["order_id"] == key]


@contextmanager
def running_app(sdk: Sdk, program: Program, server: Server, tenant: Tenant, folder: Path) -> Iterator[App]:
    """Run an app with nothing but the settings the SDKs document, for the time of a block."""
    port = free_port()
    ledger = folder / f"{program}.jsonl"
    settings = {"PORT": str(port), "SHOP_LOG": str(ledger)}
    if server.mode == "dev":
        settings["INNGEST_DEV"] = server.base_url
    else:
        settings |= {
            "INNGEST_BASE_URL": server.base_url,
            "INNGEST_EVENT_KEY": tenant.event_key,
            "INNGEST_SIGNING_KEY": tenant.signing_key,
        }
    sdk.prepare()
    with running(f"{sdk.name}-{program}", sdk.command(program, port), environ(**settings), folder) as process:
        app = App(sdk.app_ids[program], f"http://127.0.0.1:{port}", ledger, process)
        await_so(lambda: status_of(app.serve_url), f"the app {app.id} answers", [process])
        yield app
