"""The parts of the bench: idle latencies, saturation, ingest. Each gives named figures of one repetition."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.functions import FUNCTIONS, IDLE, NPM_FUNCTIONS, Kind
from bench.load import Control, Sender, Sent, sending
from bench.product import Server, Usage, usage_of

Figures = dict[str, float]

#: Connections of the load generator: for events one at a time, and for batches.
_SINGLES, _BATCHES = 16, 4
_BATCH = 100
#: Seconds the last runs of a part may take before they count as stuck.
DRAIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long and how often, in seconds and runs."""

    idle_runs: int
    idle_s: float
    warm_s: float
    full_s: float
    window: int
    ingest_s: float
    backlog: int
    sleepers: int
    page_loads: int


FULL = Sizes(150, idle_s=6, warm_s=2, full_s=8, window=256, ingest_s=4, backlog=20_000, sleepers=100_000, page_loads=30)
QUICK = Sizes(20, 1.5, warm_s=0.6, full_s=2, window=192, ingest_s=1, backlog=3_000, sleepers=10_000, page_loads=5)


@dataclass(slots=True)
class Ledger:
    """Every run asked for, and what became of it, over all parts."""

    sent: int = 0
    done: int = 0
    missing: int = 0
    twice: int = 0
    refused: int = 0
    last_refusal: str = ""

    def add(self, sent: Sent, rows: list[dict[str, Any]]) -> None:
        """Compare what was accepted with what the app saw end."""
        ended: dict[str, int] = {}
        runs: dict[str, int] = {}
        for row in rows:
            ended[row["tag"]] = ended.get(row["tag"], 0) + (row["ends"] > 0)
            runs[row["tag"]] = runs.get(row["tag"], 0) + 1
        self.sent += len(sent.times)
        self.done += sum(1 for tag in sent.times if ended.get(tag, 0) > 0)
        self.missing += sum(1 for tag in sent.times if ended.get(tag, 0) == 0)
        self.twice += sum(1 for tag in sent.times if runs.get(tag, 0) > 1)
        self.refused += sent.refused
        self.last_refusal = sent.last_refusal or self.last_refusal


@dataclass(slots=True)
class Bench:
    """One server under measurement."""

    server: Server
    control: Control
    sizes: Sizes
    say: Callable[[str], None]
    ledger: Ledger = field(default_factory=Ledger)
    number: int = 0

    def tag(self) -> str:
        """A name for one event that no other has."""
        self.number += 1
        return f"t{self.number}"


async def idle(bench: Bench, functions: Sequence[str] = IDLE) -> Figures:
    """One run at a time: nothing waits for anything but the product."""
    figures: Figures = {}
    gaps: list[float] = []
    saves: list[float] = []
    firsts_sent: list[float] = []
    firsts_accepted: list[float] = []
    async with sending(bench.server.url, bench.server.event_key, 1) as sender:
        for fn in functions:
            await bench.control.reset()
            sent = Sent()
            until = time.monotonic() + bench.sizes.idle_s
            for count in range(1, bench.sizes.idle_runs + 1):
                await sender.send(f"bench/{fn}", [bench.tag()], sent)
                if not await bench.control.wait(fn, count, within_s=DRAIN_S) or time.monotonic() > until:
                    break
                await asyncio.sleep(0.004 + 0.003 * (count % 4))  # Off the beat of any clock of the product.
            rows = await bench.control.report()
            bench.ledger.add(sent, rows)
            totals = []
            for row in rows:
                if row["tag"] not in sent.times or not row["ends"]:
                    continue
                began, accepted = sent.times[row["tag"]]
                times = row["times"]
                totals.append((times[-1] - began) / 1e6)
                firsts_sent.append((times[0] - began) / 1e6)
                firsts_accepted.append(max(0.0, (times[0] - accepted) / 1e6))
                # Answer (or checkpoint) sent → next call (or its answer) received, within one run.
                between = [(times[n + 1] - times[n]) / 1e6 for n in range(1, len(times) - 1, 2)]
                match (FUNCTIONS | NPM_FUNCTIONS)[fn].kind:
                    case Kind.SEQUENCE:
                        gaps += between
                    case Kind.CHECKPOINTED:
                        saves += between
                    case Kind.PARALLEL | Kind.SLEEP:
                        pass
            figures |= percentiles(f"done_{fn}_ms", totals, (50, 95))
    figures |= percentiles("first_call_ms", firsts_accepted, (50, 95))
    figures |= percentiles("first_call_from_send_ms", firsts_sent, (50, 95))
    figures |= percentiles("checkpoint_ms", saves, (50, 95))
    return figures | percentiles("step_ms", gaps, (50, 95, 99))


async def saturation(bench: Bench, fn: str) -> Figures:
    """As many runs in flight as `window`, measured between two moments of full load, then drained."""
    await bench.control.reset()
    sent = Sent()
    async with sending(bench.server.url, bench.server.event_key, _BATCHES) as sender:
        stop = asyncio.Event()
        feeding = asyncio.create_task(_feed(bench, sender, fn, sent, stop))
        try:
            await asyncio.sleep(bench.sizes.warm_s)
            before = await _moment(bench, fn)
            await asyncio.sleep(bench.sizes.full_s)
            after = await _moment(bench, fn)
        finally:
            stop.set()
            await feeding
        drained = await bench.control.wait(fn, len(sent.times), within_s=DRAIN_S)
    rows = await bench.control.report()
    bench.ledger.add(sent, rows)
    if not drained:
        bench.say(f"  {fn}: not all runs ended within {DRAIN_S:.0f} s")
    seconds = after.at - before.at
    steps = after.steps - before.steps
    figures = {f"runs_per_s_{fn}": (after.done - before.done) / seconds, f"steps_per_s_{fn}": steps / seconds}
    if bench.server.roots and steps:
        for group, spent in after.usage.cpu_s.items():
            used = spent - before.usage.cpu_s.get(group, 0.0)
            figures[f"cpu_per_1000_{group}_{fn}"] = used / steps * 1000
        figures[f"cpu_per_1000_{fn}"] = (after.usage.cpu_all_s - before.usage.cpu_all_s) / steps * 1000
        figures[f"memory_loaded_mb_{fn}"] = after.usage.bytes_without_postgres / 1e6
        for group, size in after.usage.bytes.items():
            figures[f"memory_loaded_mb_{group}_{fn}"] = size / 1e6
    return figures


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    done: int
    steps: int
    usage: Usage


async def _moment(bench: Bench, fn: str) -> _Moment:
    usage = usage_of(bench.server.roots)
    counts = (await bench.control.counts())[fn]
    return _Moment(time.monotonic(), counts["done"], counts["steps"], usage)


async def _feed(bench: Bench, sender: Sender, fn: str, sent: Sent, stop: asyncio.Event) -> None:
    """Keep the window full until told to stop. Bounded: never more than the window is unanswered."""
    control = Control(f"http://{bench.control.address.host}:{bench.control.address.port}")
    try:
        while not stop.is_set():
            done = (await control.counts())[fn]["done"]
            room = bench.sizes.window - (len(sent.times) - done)
            sends = []
            while room >= 1:
                size = min(room, 32)
                room -= size
                sends.append(sender.send(f"bench/{fn}", [bench.tag() for _ in range(size)], sent))
            if sends and not all(await asyncio.gather(*sends)):
                await asyncio.sleep(0.2)  # Refused: the server asks for air.
            elif not sends:
                await asyncio.sleep(0.01)
    finally:
        control.close()


async def ingest(bench: Bench) -> Figures:
    """Events that start nothing, accepted per second: one per request, and a hundred per request."""
    figures: Figures = {}
    for name, connections, size in (("single", _SINGLES, 1), ("batch", _BATCHES, _BATCH)):
        sent = Sent()
        until = time.monotonic() + bench.sizes.ingest_s
        async with sending(bench.server.url, bench.server.event_key, connections) as sender:

            async def send_again(
                size: int = size, until: float = until, sender: Sender = sender, sent: Sent = sent
            ) -> None:
                while time.monotonic() < until:
                    if not await sender.send("bench/nobody-listens", [bench.tag() for _ in range(size)], sent):
                        await asyncio.sleep(0.1)

            began = time.monotonic()
            await asyncio.gather(*(send_again() for _ in range(connections)))
            figures[f"ingest_{name}_per_s"] = sent.accepted / (time.monotonic() - began)
        bench.ledger.refused += sent.refused
        bench.ledger.last_refusal = sent.last_refusal or bench.ledger.last_refusal
    # The next part starts when what was sent here has been looked at.
    await settle(bench)
    return figures


async def settle(bench: Bench) -> bool:
    """Run one run through everything that is queued before it; false if it does not come back in time."""
    await bench.control.reset()
    sent = Sent()
    async with sending(bench.server.url, bench.server.event_key, 1) as sender:
        if not await sender.send("bench/bench-1", [bench.tag()], sent):
            return False
        return await bench.control.wait("bench-1", 1, within_s=DRAIN_S)


def memory_idle(server: Server) -> Figures:
    """Megabytes of each group while nothing is asked of it."""
    if not server.roots:
        return {}
    usage = usage_of(server.roots)
    figures = {f"memory_idle_mb_{group}": size / 1e6 for group, size in usage.bytes.items()}
    return figures | {"memory_idle_mb": usage.bytes_without_postgres / 1e6}


def percentiles(name: str, values: list[float], wanted: tuple[int, ...]) -> Figures:
    """Nearest-rank percentiles as `NAME_pNN`; nothing for an empty list."""
    ordered = sorted(values)
    return {f"{name}_p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in wanted if ordered}
