"""`stepwell demo`: everything on this machine, the sample shop beside it, and one real order from start to end.

Read `demo` top to bottom; it is the journey a newcomer sees. Children write to log files, so the screen is the demo's.
"""

import http.client
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console

from app.cli.database import Target, bootstrap_on
from app.cli.house import (
    APP_RANK,
    READY_WITHIN,
    ROOT,
    Opened,
    answers,
    child_command,
    close_house,
    open_house,
    start_processes,
)
from app.config import Mode
from app.supervise.children import ChildSpec

EMAIL = "demo@stepwell.localhost"
ORGANIZATION = "Demo"
ORDER_WITHIN = 120.0
"""Seconds for the order: its own waits are about seven, the rest is for a slow machine."""
POLL = 0.1
"""Seconds between looks at the run; a look costs a request."""
FINAL = frozenset({"Completed", "Failed", "Cancelled", "Skipped"})


@dataclass(slots=True)
class _Journey:
    """What is known of the demo so far."""

    house: Opened
    console: Console
    began: float
    """When the command was given, on the monotonic clock."""
    keys: dict[str, Any] = field(default_factory=dict)
    shop: str = ""
    order_id: str = ""
    event_id: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    placed_at: float = 0.0


class _Interrupted(Exception):
    """A stop was asked before the demo was through."""


@click.command()
@click.option("--exit", "leave", is_flag=True, help="Stop everything when the order is through.")
def demo(leave: bool) -> None:
    """Run Stepwell with a sample shop, send an order through it, and show where to look."""
    if not (ROOT / "examples" / "shop").is_dir():
        raise click.ClickException(
            "The sample shop comes with a checkout only: `make demo` there. Here, `stepwell up` or `stepwell dev` starts Stepwell."
        )
    environ = {"STEPWELL_ALLOW_PRIVATE_APPS": "1", **os.environ}
    console, began = Console(highlight=False), time.monotonic()
    console.print("[bold]Stepwell demo[/]  (Ctrl-C ends everything; data is kept)")
    with console.status("starting Postgres and Valkey, bringing the schema up …"):
        house = open_house(environ, Mode.UP, "demo", quiet=_AllButOurs())
    journey = _Journey(house, console, began)
    is_through = False
    try:
        is_through = _travel(journey)
        while not leave and not house.supervisor.stop_asked:
            house.supervisor.turn(1.0)
    except _Interrupted:
        pass
    finally:
        console.print("stopping …")
        close_house(house.state, house.supervisor)
    if leave and not is_through:
        raise SystemExit(1)


def _travel(journey: _Journey) -> bool:
    """Go all the way; true means that the order completed."""
    house, console = journey.house, journey.console
    start_processes(house)
    if not _wait(journey, "starting web and workers …", lambda: answers(house.settings), READY_WITHIN):
        return _give_up(journey, "Stepwell gives no answer")
    console.print(
        f"[green]✓[/] Stepwell answers at {house.settings.base_url} ({time.monotonic() - journey.began:.1f} s)"
    )
    password = house.state.secrets().demo_password
    target = Target(house.settings.database_url, house.settings.secret_key, house.settings.base_url)
    journey.keys = bootstrap_on(target, EMAIL, password, ORGANIZATION, "production")
    _start_shop(journey)
    if not _wait(journey, "the shop tells Stepwell its functions …", lambda: _sync(journey), 60.0):
        return _give_up(journey, "the shop could not register its functions")
    console.print(
        f"[green]✓[/] the sample shop runs at {journey.shop} and has registered its functions", soft_wrap=True
    )
    if not _wait(journey, "placing an order …", lambda: _place_order(journey), 30.0):
        return _give_up(journey, "the order could not be placed")
    console.print(f"[green]✓[/] order {journey.order_id} is placed")
    is_done = _wait(journey, "the order runs …", lambda: _follow(journey), ORDER_WITHIN)
    _say_where(journey, password)
    return is_done and journey.run.get("status") == "Completed"


def _start_shop(journey: _Journey) -> None:
    """Start the shop as any app is started: with the address of the server and the two keys."""
    house = journey.house
    port = house.state.port("shop")
    journey.shop = f"http://127.0.0.1:{port}"
    kept = {name: house.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in house.environ}
    house.supervisor.start(
        ChildSpec(
            "shop",
            child_command("examples.shop", "--port", str(port)),
            {
                **kept,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sdk")]),
                "PYTHONUNBUFFERED": "1",
                "INNGEST_BASE_URL": house.settings.base_url,
                "INNGEST_EVENT_KEY": journey.keys["event_key"],
                "INNGEST_SIGNING_KEY": journey.keys["signing_key"],
                "SHOP_LOG": str(house.state.folder / "shop" / "effects.jsonl"),
            },
            stop_rank=APP_RANK,
            grace=2.0,
        )
    )


def _sync(journey: _Journey) -> bool:
    """Ask the shop to register, as a deploy hook does."""
    status, _ = _request("PUT", f"{journey.shop}/api/inngest")
    return status == 200


def _place_order(journey: _Journey) -> bool:
    order = {"items": ["mug", "teapot"], "cents": 4200, "email": "ann@example.com"}
    status, answer = _request("POST", f"{journey.shop}/orders", order)
    if status != 202:
        return False
    journey.order_id, journey.event_id = answer["order_id"], answer["event_id"]
    journey.placed_at = time.monotonic()
    return True


def _follow(journey: _Journey) -> bool:
    """Look at the run and then at the shop's ledger, so that the last effect is shown; true when the run has ended."""
    key = {"Authorization": f"Bearer {journey.keys['signing_key']}"}
    found = _request("GET", f"{journey.house.settings.base_url}/v1/events/{journey.event_id}/runs", headers=key)[1]
    runs = found.get("data") or []
    if runs:
        journey.run = runs[0]
    order = _request("GET", f"{journey.shop}/orders/{journey.order_id}")[1]
    effects: list[dict[str, Any]] = order.get("effects", [])
    for effect in effects[len(journey.seen) :]:
        outcome = effect.get("outcome", "done")
        mark = "[green]✓[/]" if outcome == "done" else "[yellow]↻[/]"
        after = time.monotonic() - journey.placed_at
        journey.console.print(f"  {mark} {effect.get('step', '?'):<18} {outcome:<8} {after:5.1f} s")
        journey.seen.append(effect)
    return journey.run.get("status") in FINAL


def _say_where(journey: _Journey, password: str) -> None:
    house, console, run = journey.house, journey.console, journey.run
    status = run.get("status", "not started")
    took = time.monotonic() - journey.placed_at
    colour = "green" if status == "Completed" else "red"
    console.print(f"[{colour}]the run is {status.lower()}[/] after {took:.1f} s")
    console.print()
    console.print(f"  address    {house.settings.base_url}")
    console.print(f"  login      {EMAIL}")
    console.print(f"  password   {password}")
    if run.get("run_id"):
        link = f"{house.settings.base_url}/env/{journey.keys['environment']}/runs/{run['run_id']}"
        console.print(f"  the run    {link}", soft_wrap=True)
    console.print(f"  logs       {house.state.folder / 'logs'}", soft_wrap=True)
    console.print()
    console.print("Send another:", f"curl -X POST {journey.shop}/orders -d '{{}}'", soft_wrap=True)


def _give_up(journey: _Journey, what: str) -> bool:
    logs = journey.house.state.folder / "logs"
    journey.console.print(f"[red]{what}[/]; the reason is in {logs}", soft_wrap=True)
    return False


def _wait(journey: _Journey, what: str, is_so: Callable[[], bool], seconds: float) -> bool:
    """Keep everything alive until something is so, with a sign of life on the screen."""
    supervisor = journey.house.supervisor
    next_look = 0.0

    def looked() -> bool:
        nonlocal next_look
        if time.monotonic() < next_look:
            return False
        next_look = time.monotonic() + POLL
        return is_so()

    with journey.console.status(what):
        came = supervisor.wait_until(looked, seconds)
    if supervisor.stop_asked:
        raise _Interrupted
    return came


def _request(
    method: str, url: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Make one request; status 0 means that nobody answered, {} that the answer was no JSON object."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=10.0)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, parts.path, content, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, {}
    finally:
        connection.close()
    try:
        document = json.loads(text)
    except ValueError:
        return status, {}
    return status, document if isinstance(document, dict) else {}


class _AllButOurs:
    """The names whose lines go to files: all but the supervisor's own."""

    def __contains__(self, name: object) -> bool:
        return name != "stepwell"
