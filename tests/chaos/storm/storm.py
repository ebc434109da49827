"""One storm from its first process to its verdict.

    start without Redis ─► load and strikes ─► everything mended ─► the database restarted under load ─► quiet ─► audit

`Storm.run` is the spine. While it storms the invariants are asked again and again too: they hold in every snapshot, not
only in the end.
"""

import asyncio
import contextlib
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.chaos.storm import audit, strikes
from tests.chaos.storm.client import Client
from tests.chaos.storm.rest import STALLED_S, Rest
from tests.chaos.storm.strikes import BY_NAME, Field, end_database
from tests.chaos.storm.yard import GONE, Yard, open_yard
from tests.invariants import blocks, violations

RARE = (
    "503 with Retry-After",
    "event requests repeated",
    "event requests repeated though acknowledged",
    "event ids sent twice",
    "events duplicate",
    "events filtered",
    "events rate_limited",
    "events debounced",
    "events batched",
    "batches",
    "calls with redeliveries",
    "checkpoint saved",
    "checkpoint failed, steps answered",
    "executions repeated",
    "step retried by script",
    "waits answered",
    "waits answered about when they end",
    "signals taken",
    "cancelled by event",
    "cancelled by the API",
    "runs made again",
    "journal wait.resumed",
    "journal wait.timed_out",
    "journal late",
    "ticks of a schedule",
    "late cancelled",
    "fragile completed",
)
"""Paths that a storm of four minutes takes; one that it did not take was not tested, so the storm does not count."""
LONG_S = 240.0
_LOOK_S = 4.0
_ORPHAN_LOOKS = 3
_AGAIN = 5
"""Times a fault that hit nothing is struck again before it counts as one that cannot be struck."""


@dataclass(slots=True)
class Storm:
    """What to do, and what came of it."""

    seed: int
    seconds: float
    per_s: float = 2.0
    plant: str = ""
    only: tuple[str, ...] = ()
    #: Engine seconds without any progress after which what is open is stuck (`rest.py`).
    stalled_s: float = STALLED_S
    say: Callable[[str], None] = print
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    planned: Counter[str] = field(default_factory=Counter)
    otherwise: dict[str, str] = field(default_factory=dict)
    #: What did not come to rest, and why that is held to be stuck.
    open: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    _log: list[audit.Struck] = field(default_factory=list)
    _began: float = 0.0

    @property
    def is_long(self) -> bool:
        """Whether it lasts long enough to demand that everything happened."""
        return self.seconds >= LONG_S

    async def run(self) -> bool:
        """Storm; true when nothing is wrong."""
        async with open_yard(self.seed, self.plant) as yard:
            client = Client(yard, random.Random(f"client {self.seed}"), self.per_s)
            looks = [asyncio.create_task(client.serve())]
            try:
                await client.register()
                await self._start_without_redis(yard, client)
                looks.append(asyncio.create_task(self._look(yard)))
                await self._storm(yard, client)
                await self._calm_down(yard, client)
                self.wrong += [f"a look failed: {look.exception()!r}" for look in looks if look.done()]
                for look in looks:
                    look.cancel()
                await client.close()
                self._judge(client, await audit.audit(client, self._log, stuck=self.open))
            finally:
                for look in looks:
                    look.cancel()
                await asyncio.gather(*looks, return_exceptions=True)
                await client.close()
        return not self.wrong

    async def _start_without_redis(self, yard: Yard, client: Client) -> None:
        """G9: nobody answers for Redis, mail or telemetry, and the first run completes."""
        self._began = began = time.monotonic()
        await client.send([{"name": "storm/small", "id": "first", "data": {"odd": False}}])

        async def is_done() -> bool:
            connection = await yard.connect()
            try:
                return bool(await connection.fetchval("select count(*) from runs where status = 'completed'"))
            finally:
                await connection.close()

        await yard.until(is_done, "a run completes without Redis")
        self.figures["first run without Redis, mail and telemetry, s"] = time.monotonic() - began
        yard.add(yard.valkey.spec())
        connection = await yard.connect()
        await connection.execute(audit.SLOT_LOG)
        await connection.close()
        self._tell("a run completed with Redis, mail and telemetry down")

    async def _storm(self, yard: Yard, client: Client) -> None:
        field = Field(yard, client)
        sending = asyncio.create_task(client.run())
        plan = [x for x in strikes.plan(self.seed, self.seconds) if not self.only or x[1] in self.only]
        began = time.monotonic()
        again = random.Random(f"again {self.seed}")
        under_way: set[asyncio.Task[None]] = set()
        for at, name, number in plan:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            self.planned[name] += 1
            task = asyncio.create_task(self._strike(field, name, number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.sleep(max(0.0, began + self.seconds - time.monotonic()))
        if under_way:
            await asyncio.wait(under_way)
        # What hit nothing in the turmoil (a road nobody took, a process that another strike had just ended) is struck again.
        for _ in range(_AGAIN):
            for name in [name for name in self.planned if not field.struck[name]]:
                self.counts["strikes that hit nothing and were planned again"] += 1
                await self._strike(field, name, again.randrange(1 << 30))
        self.struck, self.otherwise = field.struck, field.otherwise
        await yard.settle()
        began_at = time.time()
        if await end_database(yard, client, signal.SIGINT):
            self.figures["first good ingest after a restart of the database under load, s"] = client.back_s.pop()
        self._log.append(audit.Struck("restart the database", began_at, time.time()))
        client.is_over = True
        await sending

    async def _strike(self, field: Field, name: str, number: int) -> None:
        began = time.time()
        self._tell(f"strikes: {name}")
        try:
            is_hit = await BY_NAME[name].strike(field, random.Random(number))
        except Exception as error:  # noqa: BLE001 - a strike that fails is a finding, not the end of the storm
            self.wrong.append(f"the strike {name!r} failed: {error!r}")
            is_hit = False
        field.struck[name] += is_hit
        self._log.append(audit.Struck(name, began, time.time()))

    async def _look(self, yard: Yard) -> None:
        """Ask the invariants while it storms, count connections, and show how far it is.

        A round of a worker that is given up while the round is under way leases under a dead id. Keepers rescue that every
        second, so an item is a breach of I10 when look after look finds it so, with the database up all the time.
        """
        while True:
            orphans: Counter[UUID] = Counter()
            with contextlib.suppress(*GONE):
                connection = await yard.connect()
                try:
                    while True:
                        for line in await violations(connection, but=frozenset({"I10-leases"})):
                            self._wrong_now(line)
                        held = {row["id"] for row in await connection.fetch(blocks()["I10-leases"])}
                        orphans = Counter({item: orphans[item] + 1 for item in held})
                        for item in (item for item, looks in orphans.items() if looks == _ORPHAN_LOOKS):
                            self._wrong_now(f"I10-leases: item {item} is held by a worker on no list and not rescued")
                        self.counts["items held by a worker just given up"] += len(held)
                        used = await connection.fetchval(
                            "select count(*) from pg_stat_activity where application_name like 'stepwell %'"
                        )
                        yard.most_connections = max(yard.most_connections, used)
                        self.counts["times the invariants were asked"] += 1
                        rows = await connection.fetch("select status, count(*) as n from runs group by 1 order by 1")
                        self._tell("runs: " + ", ".join(f"{row['n']} {row['status']}" for row in rows))
                        await asyncio.sleep(_LOOK_S)
                finally:
                    with contextlib.suppress(*GONE):
                        await connection.close()
            await asyncio.sleep(0.5)

    async def _calm_down(self, yard: Yard, client: Client) -> None:
        """Wait until everything has ended; what does not is in `open`."""
        began = time.monotonic()
        self._tell("quiet: no more strikes, nobody sends")
        rest = Rest(yard, client, self.stalled_s)
        await rest.wait()
        self.figures["seconds until everything had ended"] = time.monotonic() - began
        self.figures["of which the engine had the machine, s"] = rest.engine_s
        self.open = rest.why
        for line in rest.why:
            self._tell(f"no rest: {line}")

    def _wrong_now(self, line: str) -> None:
        self._tell(f"WRONG {line}")
        self.wrong.append(f"while it stormed, {line}")

    def _judge(self, client: Client, found: audit.Findings) -> None:
        self.wrong += found.wrong
        self.counts += found.counts + client.did
        for name in self.planned:
            if not self.struck[name]:
                self.wrong.append(f"a planned fault never struck: {name}")
        if self.is_long:
            self.wrong += [f"a rare path was never taken: {name}" for name in RARE if not self.counts[name]]
            self.wrong += [f"a fault was not planned: {x}" for x in BY_NAME if not self.only and not self.planned[x]]
        self.counts["most connections to the database"] = client.yard.most_connections
        if client.back_s:
            self.figures["median from a struck database's return to good ingest, s"] = statistics.median(client.back_s)
        self.wrong = list(dict.fromkeys(self.wrong))

    def _tell(self, what: str) -> None:
        self.say(f"[{time.monotonic() - self._began:5.0f} s] {what}")

    def report(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {
            "seed": self.seed,
            "minutes": round(self.seconds / 60, 2),
            "verdict": "FAIL" if self.wrong else "PASS",
            "wrong": self.wrong,
            "figures": {name: round(value, 2) for name, value in self.figures.items()},
            "struck": {name: self.struck[name] for name in sorted(self.planned)},
            "struck in another way": self.otherwise,
            "did not come to rest": self.open,
            "counts": dict(sorted(self.counts.items())),
        }
