"""One function per fault. Each strikes, waits for its time, and takes the fault back; the counters say what was really hit.

A strike is planned by its name and a number that chooses its victim, so the same seed gives the same plan.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import psutil

from tests.chaos.storm.client import Client
from tests.chaos.storm.proxy import Fault
from tests.chaos.storm.yard import GONE, LEASE_S, MAX_CONNECTIONS, WORKERS, Yard


@dataclass(slots=True)
class Field:
    """What strikes work on, and what they hit."""

    yard: Yard
    client: Client
    struck: Counter[str] = field(default_factory=Counter)
    #: Faults that were struck in another way on this machine, and how.
    otherwise: dict[str, str] = field(default_factory=dict)
    #: Held while a part is struck. Two faults of one part would take each other back, and sessions of a database that
    #: stay frozen would keep its memory from the next.
    parts: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def database(self) -> asyncio.Lock:
        """The processes of the database; each road to it is a part of its own."""
        return self.parts["postgres"]


type_of_strike = Callable[[Field, random.Random], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault: what it is called, which of the catalogue it is, and how to strike it. True when something was hit."""

    name: str
    faults: str
    strike: type_of_strike


def _end(*names: str, how: signal.Signals = signal.SIGKILL) -> type_of_strike:
    async def strike(field: Field, _dice: random.Random) -> bool:
        hit = [field.yard.child(name).send(how) for name in names]
        return all(hit)

    return strike


def _one_worker(how: signal.Signals) -> type_of_strike:
    async def strike(field: Field, dice: random.Random) -> bool:
        return field.yard.child(dice.choice(WORKERS)).send(how)

    return strike


def _down(name: str, seconds: float) -> type_of_strike:
    """Kill it, and let it stay away for a while."""

    async def strike(field: Field, _dice: random.Random) -> bool:
        async with field.parts[name]:
            child = field.yard.child(name)
            child.is_wanted = False
            hit = child.send(signal.SIGKILL)
            await asyncio.sleep(seconds)
            child.is_wanted = True
            return hit

    return strike


def _database(how: signal.Signals) -> type_of_strike:
    """End the database, and measure from its first answer to the first acknowledged event (F7)."""

    async def strike(field: Field, _dice: random.Random) -> bool:
        async with field.database:
            return await end_database(field.yard, field.client, how)

    return strike


async def end_database(yard: Yard, client: Client, how: signal.Signals) -> bool:
    """Signal the database, wait until it is back, and note how long the first good ingest takes from then (F7)."""
    child = yard.child("postgres")
    life = child.starts
    if not child.send(how):
        return False
    while child.starts == life:  # noqa: ASYNC110 - the keeper starts it again
        await asyncio.sleep(0.02)
    await yard.until(yard.is_database_up, "the database is back")
    loop = asyncio.get_running_loop()
    back = loop.time()
    await client.send([{"name": "storm/nobody", "data": {}}])
    client.back_s.append(loop.time() - back)
    return True


def _frozen(names: tuple[str, ...], seconds: float) -> type_of_strike:
    async def strike(field: Field, dice: random.Random) -> bool:
        name = dice.choice(names)
        async with field.parts[name]:
            child = field.yard.child(name)
            hit = child.send(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            child.send(signal.SIGCONT)
            return hit

    return strike


async def _frozen_database(field: Field, _dice: random.Random) -> bool:
    """Each session of Postgres is a session of the system's, too: all are frozen, and all are thawed, whoever lives."""
    async with field.database:
        pids = database_pids(field.yard)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number is signal.SIGSTOP:
                await asyncio.sleep(4)
        return bool(pids)


def database_pids(yard: Yard) -> list[int]:
    """The server and its sessions."""
    pid = yard.child("postgres").pid
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))] if pid else []
    return []


def _road(names: tuple[str, ...], fault: Fault, seconds: float, counter: str, *, cut: bool = False) -> type_of_strike:
    """Make one road bad for a while; it was struck when the proxy counted."""

    async def strike(field: Field, dice: random.Random) -> bool:
        name = dice.choice(names)
        proxy = field.yard.proxies[name]
        async with field.parts["valkey" if name == "redis" else name]:
            before = proxy.struck[counter]
            proxy.fault = fault
            hit = proxy.cut() if cut else 0
            await asyncio.sleep(seconds)
            for _ in range(40):  # A quiet road is struck by the first who takes it.
                if hit or proxy.struck[counter] > before:
                    break
                await asyncio.sleep(0.25)
            proxy.fault = Fault()
            if fault.swallow:
                proxy.cut()  # The network is back, and whoever still waits on the old connection hears it.
            return bool(hit or proxy.struck[counter] > before)

    return strike


async def _backend(field: Field, _dice: random.Random) -> bool:
    """Kill -9 one session of the database: Postgres throws all out and recovers by itself."""
    async with field.database:
        for pid in database_pids(field.yard)[1:]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if "stepwell" in " ".join(psutil.Process(pid).cmdline()):
                    os.kill(pid, signal.SIGKILL)
                    return True
    return False


async def _flush(field: Field, _dice: random.Random) -> bool:
    from redis.asyncio import Redis

    client = Redis.from_url(field.yard.valkey.url)
    hits = 0
    for _ in range(10):
        with contextlib.suppress(Exception):
            hits += bool(await client.flushall())
        await asyncio.sleep(0.1)
    await client.aclose()
    return hits > 0


async def _sick(field: Field, _dice: random.Random) -> bool:
    url = f"http://127.0.0.1:{field.yard.proxies['app'].target[1]}/sick?p=0.7&s=3"
    for _ in range(20):  # Another strike may have taken it away just now.
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with field.client.http.post(url) as answer:
                await asyncio.sleep(3)
                return answer.status == 200
        await asyncio.sleep(0.5)
    return False


async def _wrong_clock(field: Field, dice: random.Random) -> bool:
    """A worker's next life is an hour off; the one after is right again."""
    name = dice.choice(WORKERS)
    field.yard.skew(name, dice.choice([-3600, 3600]))
    hit = field.yard.child(name).send(signal.SIGKILL)
    await asyncio.sleep(6)
    field.yard.skew(name, 0)
    return field.yard.child(name).send(signal.SIGTERM) and hit


async def _lock_rows(field: Field, _dice: random.Random) -> bool:
    """Somebody holds the rows of all open runs for longer than anyone waits for a lock (F9)."""
    with contextlib.suppress(*GONE):
        connection = await field.yard.connect()
        try:
            async with connection.transaction():
                rows = await connection.fetch(
                    "select id from runs where ended_at is null limit 200 for update skip locked"
                )
                await asyncio.sleep(3)
            return bool(rows)
        finally:
            await connection.close()
    return False


async def _all_connections(field: Field, _dice: random.Random) -> bool:
    """Strangers take every free connection of the database, after those in use were cut (F10)."""
    held: list[Any] = []
    with contextlib.suppress(*GONE):
        while len(held) < MAX_CONNECTIONS:
            held.append(await field.yard.connect())
    field.yard.proxies[f"db {WORKERS[0]}"].cut()
    await asyncio.sleep(3)
    for connection in held:
        with contextlib.suppress(*GONE):
            await connection.close()
    return 0 < len(held) < MAX_CONNECTIONS


async def _disk_full(field: Field, _dice: random.Random) -> bool:
    """Not a byte left under the database, until somebody makes room (F11)."""
    yard = field.yard
    async with field.database:
        pids = database_pids(yard)
        how = yard.disk.fill(pids)
        if not yard.disk.is_mounted:
            field.otherwise["disk full"] = how
        await asyncio.sleep(4)
        yard.disk.release()
        if not yard.disk.is_mounted:
            yard.child("postgres").send(signal.SIGINT)
        await yard.until(yard.is_database_up, "the database is back after its disk was full")
        return bool(pids)


async def _rude_clients(field: Field, _dice: random.Random) -> bool:
    """Fifty clients hang up in the middle of a request (F26)."""
    host, _, port = field.yard.web_url.removeprefix("http://").partition(":")
    hit = 0
    for _ in range(50):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            body = b'[{"name":"storm/rude","data":{}}]'
            head = f"POST /e/{field.yard.keys['event_key']} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body[: 10 + hit % len(body)])
            await writer.drain()
            writer.transport.abort()
            hit += 1
    return hit > 0


_DATABASES = ("db web", *(f"db {name}" for name in WORKERS))
_WORKER_DATABASES = _DATABASES[1:]
_SLOW = Fault(delay_s=0.15)
_HALF_OPEN = replace(Fault(), swallow="both")

STRIKES: tuple[Strike, ...] = (
    Strike("kill web", "F1", _end("web")),
    Strike("kill a worker", "F2", _one_worker(signal.SIGKILL)),
    Strike("kill all workers", "F2 F3", _end(*WORKERS)),
    Strike("kill web and workers", "F1 F2", _end("web", *WORKERS)),
    Strike("kill the app", "F12", _end("app")),
    Strike("kill the database", "F7", _database(signal.SIGKILL)),
    Strike("kill a database session", "F7", _backend),
    Strike("restart the database", "F7", _database(signal.SIGINT)),
    Strike("stop the database at once", "F7", _database(signal.SIGQUIT)),
    Strike("kill Redis", "F6", _end("valkey")),
    Strike("Redis is away", "F6", _down("valkey", 5)),
    Strike("FLUSHALL", "F6", _flush),
    Strike("the app is away", "F12", _down("app", 4)),
    Strike("restart a worker", "F5", _one_worker(signal.SIGTERM)),
    Strike("restart web", "F5", _end("web", how=signal.SIGTERM)),
    Strike("freeze a worker beyond its lease", "F4", _frozen(WORKERS, LEASE_S + 3)),
    Strike("freeze web", "F4", _frozen(("web",), 4)),
    Strike("freeze the database", "F4 F8", _frozen_database),
    Strike("freeze Redis", "F6", _frozen(("valkey",), 4)),
    Strike("freeze the app", "F12", _frozen(("app",), 5)),
    Strike("cut the road to the database", "F8", _road(_DATABASES, Fault(refuse=True), 2, "refused", cut=True)),
    Strike("half-open road to the database", "F8", _road(_WORKER_DATABASES, _HALF_OPEN, LEASE_S + 3, "swallowed")),
    Strike("half-open road of web to the database", "F8", _road(("db web",), _HALF_OPEN, 4, "swallowed")),
    Strike("slow road to the database", "F8", _road(_DATABASES, _SLOW, 3, "delayed")),
    Strike("narrow road to the database", "F8", _road(_DATABASES, Fault(bytes_per_s=60_000), 3, "throttled")),
    Strike("cut within answers", "F8 G11", _road(_DATABASES, Fault(cut_after=3000), 3, "cut after bytes")),
    Strike(
        "lose commits' answers",
        "F3 G11",
        _road(_WORKER_DATABASES, Fault(cut_commits=0.2), 3, "lost commit answers"),
    ),
    Strike("lose ingest's answers", "F1 G11", _road(("db web",), Fault(cut_commits=0.3), 3, "lost commit answers")),
    Strike("cut the road to Redis", "F6", _road(("redis",), Fault(refuse=True), 3, "refused", cut=True)),
    Strike("slow road to Redis", "F6", _road(("redis",), Fault(delay_s=0.4), 3, "delayed")),
    Strike("half-open road to Redis", "F6", _road(("redis",), _HALF_OPEN, 5, "swallowed")),
    Strike("cut the road to the app", "F12", _road(("app",), Fault(refuse=True), 2, "refused", cut=True)),
    Strike("slow road to the app", "F12", _road(("app",), Fault(delay_s=0.5), 3, "delayed")),
    Strike("half-open road to the app", "F12", _road(("app",), Fault(swallow="down"), 5, "swallowed")),
    Strike("cut within the app's answers", "F12", _road(("app",), Fault(cut_after=150), 2, "cut after bytes")),
    Strike("a sick app", "F12 F13", _sick),
    Strike("a wrong clock", "F15", _wrong_clock),
    Strike("rows locked", "F9", _lock_rows),
    Strike("no connections left", "F10", _all_connections),
    Strike("disk full", "F11", _disk_full),
    Strike("clients hang up", "F26", _rude_clients),
)
"""Every fault a storm can strike; a storm of four minutes strikes each at least once."""

BY_NAME = {strike.name: strike for strike in STRIKES}


def plan(seed: int, seconds: float) -> list[tuple[float, str, int]]:
    """What is struck when: seconds from the beginning, the strike's name, and the number that chooses its victim.

    All strikes once in random order, again and again; the pause between two is drawn, and short enough that the whole
    list fits when there are four minutes or more.
    """
    dice = random.Random(f"plan {seed}")
    planned: list[tuple[float, str, int]] = []
    at, mean = 1.0, min(6.0, max(1.5, seconds / (len(STRIKES) * 1.05)))
    names: list[str] = []
    while at < seconds:
        if not names:
            names = [strike.name for strike in STRIKES]
            dice.shuffle(names)
        planned.append((at, names.pop(), dice.randrange(1 << 30)))
        at += dice.uniform(0.5, 1.5) * mean
    return planned
