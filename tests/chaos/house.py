"""`stepwell up` with the sample shop beside it, to be maltreated: who is killed, what the shop did, what the rows say."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import psutil

from app.accounts.bootstrap import bootstrap
from app.supervise.state import Running, State, free_port
from tests.invariants import violations
from tests.processes import Process, await_so, environ, our_command, running, status_of

STEPS = ("reserve-stock", "check-fraud", "price-tax", "charge-payment", "pack-order", "send-confirmation")
FINAL = frozenset({"Completed", "Failed", "Cancelled", "Skipped"})
_MARKS = {"web": "web", "worker": "workers.main"}
"""The word in the command line of each kind of process."""


class House:
    """A running `up` and its shop."""

    def __init__(self, folder: Path, port: int, up: Process, now: Running, keys: dict[str, str]) -> None:
        self.folder = folder
        self.base_url = f"http://127.0.0.1:{port}"
        self.up = up
        self.now = now
        self.keys = keys
        self.shop_url = ""
        self.shop: Process | None = None
        self.ledger = folder / "effects.jsonl"

    def pid_of(self, kind: str) -> int | None:
        """The process id of the `web` or the `worker` process, none while it is being started again."""
        for child in psutil.Process(self.up.pid).children():
            try:
                if child.status() != psutil.STATUS_ZOMBIE and _MARKS[kind] in child.cmdline():
                    return int(child.pid)
            except psutil.NoSuchProcess:
                continue
        return None

    def kill(self, kind: str) -> None:
        """Kill -9 the web or the worker process, as soon as there is one."""
        os.kill(await_so(lambda: self.pid_of(kind), f"a {kind} process runs", [self.up]), signal.SIGKILL)

    def place(self, order_id: str) -> str:
        """Place an order as a patient customer does, who sends it again until it is taken; give its event's id."""
        order = {"id": order_id, "items": ["mug"], "cents": 1200}

        def taken() -> str | None:
            try:
                answer = httpx2.post(f"{self.shop_url}/orders", json=order, timeout=60.0)
            except httpx2.TransportError:
                return None
            return answer.json()["event_id"] if answer.status_code == 202 else None

        return await_so(taken, f"order {order_id} is taken", self.processes)

    def place_together(self, order_ids: list[str]) -> None:
        """Place many orders with one request to the event API, all or none."""
        events = [
            {
                "name": "shop/order.placed",
                "id": x,
                "data": {"order_id": x, "items": ["mug"], "cents": 1200, "email": ""},
            }
            for x in order_ids
        ]
        answer = httpx2.post(f"{self.base_url}/e/{self.keys['event_key']}", json=events, timeout=60.0)
        assert answer.status_code == 200, answer.text

    @property
    def processes(self) -> list[Process]:
        """What must stay alive: the supervisor and the shop."""
        return [self.up, *([self.shop] if self.shop else [])]

    def effects(self) -> list[dict[str, Any]]:
        """Everything the shop did, oldest first."""
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_text(encoding="utf-8").splitlines()]

    def statuses(self) -> Counter[str]:
        """How many runs of the shop's function there are of each status."""
        rows = self.query(
            "select r.status, count(*) as n from runs r where r.event_name = 'shop/order.placed' group by 1"
        )
        return Counter({row["status"]: row["n"] for row in rows})

    def await_completed(self, count: int) -> None:
        """Wait until so many orders are through."""
        await_so(lambda: self.statuses()["completed"] >= count, f"{count} orders complete", self.processes)

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Ask the database directly, as its owner."""

        async def ask() -> list[Any]:
            connection = await asyncpg.connect(self.now.database_url)
            try:
                return await connection.fetch(statement, *values)
            finally:
                await connection.close()

        return asyncio.run(ask())

    def check_orders(self, order_ids: list[str], *, repeats: int) -> None:
        """Check what must hold of completed orders whatever was killed.

        `repeats`: how many steps may at most have been done twice over all orders, because their result was lost with
        the process that was to commit it. Never twice is what was committed: no effect is later than its step's commit.
        """
        effects = self.effects()
        done = Counter((line["order_id"], line["step"]) for line in effects if line["outcome"] == "done")
        for order_id in order_ids:
            missing = [step for step in STEPS if done[order_id, step] == 0]
            assert not missing, f"{order_id}: never done: {missing}"
            assert done[order_id, "charge-payment"] == 1, f"{order_id}: charged more than once"
        again = Counter({key: n - 1 for key, n in done.items() if n > 1})
        again += Counter((x["order_id"], x["step"]) for x in effects if x["outcome"] == "repeated")
        assert again.total() <= repeats, f"done again: {again}"
        committed = self._committed()
        late = [
            (line, committed[line["order_id"], line["step"]])
            for line in effects
            if _time(line) > committed[line["order_id"], line["step"]]
        ]
        assert not late, f"done after its result was committed: {late}"
        self.check_rows(len(order_ids))

    def check_rows(self, runs: int) -> None:
        """Check what must hold of the rows when everything is over."""

        async def ask() -> list[str]:
            connection = await asyncpg.connect(self.now.database_url)
            try:
                return await violations(connection)
            finally:
                await connection.close()

        assert self.statuses() == Counter({"completed": runs})
        assert asyncio.run(ask()) == []

    def _committed(self) -> dict[tuple[str, str], datetime]:
        """When the result of each step of each order was committed."""
        rows = self.query(
            "select e.client_id, s.name, s.settled_at from steps s join runs r on r.id = s.run_id join events e"
            " on (e.environment_id, e.id, e.received_at) = (r.environment_id, r.event_id, r.event_received_at)"
            " where s.settled_at is not null"
        )
        return {(row["client_id"], row["name"]): row["settled_at"] for row in rows}


def _time(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["time"]).astimezone(UTC)


@contextmanager
def running_house(folder: Path, *, grace_s: float = 0.5, **settings: str) -> Iterator[House]:
    """Run `stepwell up` and a registered shop for the time of a block.

    `grace_s`: how long an order sleeps, in seconds. `settings` are added to the environment of `up`.
    """
    port = free_port()
    wanted = environ(
        STEPWELL_DATA_DIR=str(folder),
        STEPWELL_HOST="127.0.0.1",
        STEPWELL_PORT=str(port),
        STEPWELL_ALLOW_PRIVATE_APPS="1",
        STEPWELL_WORKERS="1",
        STEPWELL_RETRY_DELAY_MS="200",
        STEPWELL_LEASE_SECONDS="6",
        **settings,
    )
    with running("up", our_command("app.cli", "up"), wanted, folder) as up:
        await_so(lambda: "Stepwell is ready" in up.said(), "up is ready", [up])
        now = State(folder, "up").running()
        assert now is not None
        keys = asyncio.run(
            bootstrap(
                now.database_url,
                now.secret_key,
                email="ann@example.com",
                password="a long enough passphrase",
                organization="Shop",
                base_url=now.base_url,
            )
        )
        house = House(folder, port, up, now, keys)
        with _running_shop(house, grace_s):
            yield house


@contextmanager
def _running_shop(house: House, grace_s: float) -> Iterator[None]:
    port = free_port()
    settings = environ(
        INNGEST_BASE_URL=house.base_url,
        INNGEST_EVENT_KEY=house.keys["event_key"],
        INNGEST_SIGNING_KEY=house.keys["signing_key"],
        SHOP_LOG=str(house.ledger),
        SHOP_GRACE_S=str(grace_s),
    )
    command = our_command("tests.chaos.quick_shop", "--port", str(port))
    house.shop_url = f"http://127.0.0.1:{port}"
    with running("shop", command, settings, house.folder) as shop:
        house.shop = shop
        serve_url = f"{house.shop_url}/api/inngest"
        await_so(lambda: status_of(serve_url), "the shop answers", [shop])
        await_so(lambda: httpx2.put(serve_url, timeout=60.0).status_code == 200, "the shop registers", house.processes)
        yield
