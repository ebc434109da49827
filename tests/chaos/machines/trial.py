"""One trial from its first process to its verdict.

    one worker, its rate ─► two workers, their rate ─► a steady load ─► worker-1 cut off and back ─► worker-2 killed ─► verdict

A strike comes while the struck worker has a call under way, so that something is always lost with it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

from bench.load import Control
from bench.measures import QUICK, Bench, saturation, settle
from bench.product import Server
from tests.chaos.machines.judge import Strike, Verdict, judge
from tests.chaos.machines.lab import LEASE_S, WORKERS, Lab, kill, open_lab
from tests.invariants import violations

#: Calls a worker has under way when it is struck.
_CALLS = 2


@dataclass(slots=True)
class Trial:
    """How much of it there is, and what came of it."""

    #: Seconds at full load for each of the two rates; 0: not measured.
    rate_s: float
    #: Whether the second worker is killed after the first has come back.
    kills: bool = True
    #: Events per second while it strikes, and the seconds the cable is out at least.
    per_s: float = 8.0
    cut_s: float = LEASE_S + 2.0
    say: Callable[[str], None] = print
    wrong: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    _strikes: list[Strike] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    async def run(self) -> bool:
        """Go through all of it; true when nothing is wrong."""
        async with open_lab() as lab:
            await lab.start_stores()
            await lab.start_the_rest()
            self._tell("stores, web, app and worker-1 run, each on a machine of its own")
            if self.rate_s:
                await self._rates(lab)
            else:
                lab.start_worker(WORKERS[1])
            async with self._load(lab):
                await self._cut(lab, WORKERS[0])
                if self.kills:
                    await self._kill(lab, WORKERS[1], heir=WORKERS[0])
            await self._judge(lab)
        return not self.wrong

    async def _rates(self, lab: Lab) -> None:
        with _bench_app(lab) as control:
            server = Server(lab.web_url, lab.keys["event_key"], lab.keys["signing_key"])
            bench = Bench(server, control, replace(QUICK, full_s=self.rate_s), self.say)
            for count in (1, 2):
                if count == 2:
                    lab.start_worker(WORKERS[1])
                    await lab.until(lambda: self._are_registered(lab), "both workers are there")
                await settle(bench)
                figures = await saturation(bench, "bench-3")
                name = f"steps/s with {count} worker{'s' if count > 1 else ''}"
                self.figures[name] = figures["steps_per_s_bench-3"]
                self._tell(f"{self.figures[name]:,.0f} {name}")
            if bench.ledger.missing or bench.ledger.twice:
                self.wrong.append(f"at full load {bench.ledger.missing} runs did not end, {bench.ledger.twice} twice")

    async def _are_registered(self, lab: Lab) -> bool:
        rows = await lab.ask("select name from workers where lease_until > now()")
        return {row["name"] for row in rows} >= set(WORKERS)

    @asynccontextmanager
    async def _load(self, lab: Lab) -> AsyncIterator[None]:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            # What is on its way is not given up when the load ends: an id that was acknowledged must be known here.
            tasks.create_task(self._send(lab, over))
            try:
                yield
            finally:
                over.set()

    async def _send(self, lab: Lab, over: asyncio.Event) -> None:
        number = 0
        while not over.is_set():
            number += 1
            await lab.send(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 1 / self.per_s)

    async def _cut(self, lab: Lab, name: str) -> None:
        machine = lab.network.machines[name]
        await self._is_busy(lab, name)
        began = time.time()
        lab.network.cut(machine)
        theirs = self._open_runs_of(lab, name, began)
        self._tell(f"{name} is cut off with {len(theirs)} runs")
        before = set(lab.accepted)
        until = time.monotonic() + self.cut_s
        await lab.until(lambda: self._are_done(lab, before), "all runs go on at the other worker")
        self.figures["s until the runs of the cut worker had ended elsewhere"] = time.time() - began
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        back = time.time()
        lab.network.mend(machine)
        self._strikes.append(Strike(machine.address, began, back))
        self._tell(f"{name} is back after {back - began:.1f} s; all runs of before have ended meanwhile")
        await lab.until(lambda: self._works(lab, name, back), f"{name} works again by itself")
        self.figures["s until the cut worker worked again"] = time.time() - back
        self._tell(f"{name} works again")

    async def _kill(self, lab: Lab, name: str, *, heir: str) -> None:
        await self._is_busy(lab, name)
        began = time.time()
        kill(lab.children[name])
        theirs = self._open_runs_of(lab, name, began)
        self._tell(f"{name} is killed with {len(theirs)} runs")
        before = set(lab.accepted)
        await lab.until(lambda: self._are_done(lab, before), f"{heir} takes over what {name} had")
        self.figures["s until the runs of the killed worker had ended elsewhere"] = time.time() - began
        self._strikes.append(Strike(lab.address_of(name), began, time.time()))

    async def _is_busy(self, lab: Lab, name: str) -> None:
        """Wait until a worker has a few calls under way."""

        async def is_so() -> bool:
            ledger = lab.ledger()
            ended = {line["token"] for line in ledger if line["k"] == "ended"}
            theirs = {x["token"] for x in ledger if x["k"] == "began" and x["by"] == lab.address_of(name)}
            return len(theirs - ended) >= _CALLS

        await lab.until(is_so, f"{name} has {_CALLS} calls under way")

    def _open_runs_of(self, lab: Lab, name: str, at: float) -> set[str]:
        """Runs whose last call was the worker's and which have not returned."""
        last: dict[str, str] = {}
        for line in lab.ledger():
            if line["k"] == "told" and line["at"] <= at:
                last[line["run"]] = line["by"]
            elif line["k"] == "done":
                last.pop(line["run"], None)
        return {run for run, by in last.items() if by == lab.address_of(name)}

    async def _are_done(self, lab: Lab, events: set[str]) -> bool:
        done = {run["event_id"] for run in await lab.runs() if run["status"] == "completed"}
        return events <= done

    async def _works(self, lab: Lab, name: str, since: float) -> bool:
        """Whether a worker was called for, and had its answer stored, after some moment."""
        stored = {token for token, _ in (await lab.stored()).values()}
        return any(
            line["k"] == "began"
            and line["by"] == lab.address_of(name)
            and line["sent"] > since
            and line["token"] in stored
            for line in lab.ledger()
        )

    async def _judge(self, lab: Lab) -> None:
        await lab.until(lambda: self._are_done(lab, set(lab.accepted)), "everything ends")
        await lab.until(lambda: self._is_quiet(lab), "nothing is left to do")
        verdict = judge(lab.accepted, await lab.runs(), await lab.stored(), lab.ledger(), self._strikes)
        self.wrong += verdict.wrong + await violations(lab.asker)
        self._count(verdict, lab)

    async def _is_quiet(self, lab: Lab) -> bool:
        rows = await lab.ask("select exists (select from items) or exists (select from inbox) as is_busy")
        return not rows[0]["is_busy"]

    def _count(self, verdict: Verdict, lab: Lab) -> None:
        self.figures |= {
            "events accepted": len(lab.accepted),
            "executions of steps": verdict.executions,
            "  of them repeated": verdict.repeated,
            "steps taken over from a struck worker": verdict.taken_over,
        }
        if verdict.taken_over == 0:
            self.wrong.append("nothing was taken over from a struck worker: the strikes did not strike")

    def _tell(self, what: str) -> None:
        self.say(f"[{time.monotonic() - self._began:5.1f} s] {what}")


@contextmanager
def _bench_app(lab: Lab) -> Iterator[Control]:
    with lab.start_bench_app() as process:
        try:
            assert process.stdout is not None
            control = Control(process.stdout.readline().decode().strip())
            yield control
            control.close()
        finally:
            process.kill()
