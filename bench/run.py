"""The command: starts what is measured, runs the parts in turns, prints the table, writes the JSON.

Bounded: parts are bounded in runs and seconds, and no repetition begins after two thirds of the allowed time have gone.
Speaks to loopback only, and ends only what it started.
"""

import argparse
import asyncio
import datetime as dt
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import uvloop

from bench import goals
from bench.crowds import Neighbour, backlog, sleepers
from bench.load import Address, Control
from bench.machine import machine_factor
from bench.measures import FULL, QUICK, Bench, Figures, idle, ingest, memory_idle, saturation, settle
from bench.npm import NpmApp, install, npm, npm_app
from bench.pages import pages
from bench.product import ROOT, Server, bench_app, own_server
from bench.table import Summary, summary, table, write_json

RESULTS = ROOT / "bench" / "results"
#: Seconds for everything; a bench that takes longer is not run.
_QUICK_S, _FULL_S = 90.0, 480.0
#: Seconds kept for printing and for ending what was started.
_ENDING_S = 12.0
#: The share of the time that repetitions may take; the rest is for the parts that are run once.
_REPEATED_SHARE = 0.7
_PARTS = "idle,saturation,npm,ingest,backlog,sleepers,pages"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(slots=True)
class Contender:
    """One server under measurement, and its figures by repetition; those of parts that are run once are in `once`."""

    name: str
    bench: Bench
    neighbour: Neighbour | None = None
    npm: NpmApp | None = None
    repetitions: list[Figures] = field(default_factory=list)
    once: Figures = field(default_factory=dict)
    #: Seconds that each part took, all repetitions together.
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def took(self, part: str) -> Iterator[None]:
        """Note the time that a part takes, and show it."""
        began = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - began
            self.seconds[part] = self.seconds.get(part, 0.0) + spent
            _say(f"  {part}: {spent:.1f} s")

    def figures(self) -> Summary:
        """Median and range of everything."""
        return summary(self.repetitions) | summary([self.once])

    def close(self) -> None:
        """Hang up."""
        self.bench.control.close()
        if self.neighbour:
            self.neighbour.control.close()
        if self.npm:
            self.npm.control.close()


def main() -> int:
    """Run the bench; 0 when all was measured and every accepted run ended once, 1 otherwise, 2 for a wrong command line."""
    given = _arguments().parse_args()
    refusal = _refusal(given)
    if refusal:
        print(f"bench: {refusal}", file=sys.stderr)
        return 2
    has_npm = "npm" in given.parts and install(_say)
    began = time.monotonic()
    # However it is ended, what was started here is ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as started:
            _say("starting Stepwell on an empty database …")
            server = started.enter_context(own_server(is_dev=given.dev, workers=given.workers))
            _say(
                f"ready at {server.url} after {server.start_s:.1f} s, the second time after {server.start_again_s:.1f} s"
            )
            contenders = [_contender(given, "Stepwell", server, started, has_npm=has_npm)]
            if given.against:
                other = Server(given.against, given.event_key, given.signing_key, tuple(given.pid))
                contenders.append(_contender(given, given.against, other, started, has_npm=has_npm))
            return uvloop.run(_measure(given, contenders, began))
    except RuntimeError as refused:
        print(f"bench: {refused}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _refusal(given: argparse.Namespace) -> str:
    """What is wrong with the command line; empty when nothing is."""
    unknown = set(given.parts.split(",")) - set(_PARTS.split(","))
    if unknown:
        return f"no part is called {', '.join(sorted(unknown))}; there are {_PARTS}"
    if not given.against:
        return ""
    try:
        address = Address.of(given.against)
    except ValueError as error:
        return str(error)
    if address.host not in _LOOPBACK:
        return "only servers on this machine are measured"
    try:
        socket.create_connection((address.host, address.port), timeout=5).close()
    except OSError as error:
        return f"nobody answers at {given.against}: {error}"
    return ""


def _contender(given: argparse.Namespace, name: str, server: Server, started: ExitStack, *, has_npm: bool) -> Contender:
    """Start the app, that with the npm SDK if it `has_npm`, and the neighbour's app where there is a neighbour."""
    control = Control(started.enter_context(bench_app(server)))
    neighbour = None
    if server.neighbour and "backlog" in given.parts.split(","):
        theirs = replace(server, event_key=server.neighbour[0], signing_key=server.neighbour[1])
        neighbour = Neighbour(theirs, Control(started.enter_context(bench_app(theirs, "neighbour"))))
    npm = started.enter_context(npm_app(server)) if has_npm else None
    contender = Contender(name, Bench(server, control, QUICK if given.quick else FULL, _say), neighbour, npm)
    started.callback(contender.close)
    return contender


def _arguments() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="make bench", description="Measure latencies and saturation of Stepwell.")
    words.add_argument("--quick", action="store_true", help="smaller sizes, at most 90 seconds")
    words.add_argument("--repeat", type=int, choices=range(1, 11), help="repetitions (3, quick 2)")
    words.add_argument("--dev", action="store_true", help="measure `stepwell dev`: no signatures")
    words.add_argument("--workers", type=int, help="worker processes (the product's default)")
    words.add_argument("--parts", default=_PARTS, help=f"which parts, with commas ({_PARTS})")
    words.add_argument("--write-docs", action="store_true", help="write the goals' table into docs/performance.md")
    words.add_argument("--against", metavar="URL", help="measure a running server of the same protocol too")
    words.add_argument("--event-key", default="bench", help="with --against")
    words.add_argument("--signing-key", default="", help="with --against: signed mode")
    words.add_argument("--pid", type=int, action="append", default=[], help="with --against: a process tree to watch")
    return words


async def _measure(given: argparse.Namespace, contenders: list[Contender], began: float) -> int:
    allowed = (_QUICK_S if given.quick else _FULL_S) * len(contenders)
    repeat = given.repeat or (2 if given.quick else 3)
    parts = given.parts.split(",")
    own = contenders[0]
    is_complete = True
    try:
        for contender in contenders:
            if not await settle(contender.bench):
                raise RuntimeError(f"{contender.name}: the first run did not come back; nothing can be measured")
        database = own.bench.server.database_url
        if database:
            own.once |= await machine_factor(database, seconds=1.0 if given.quick else 3.0)
        for name, seconds in (("start_s", own.bench.server.start_s), ("start_again_s", own.bench.server.start_again_s)):
            if seconds is not None:
                own.once[name] = seconds
        async with asyncio.timeout(allowed - _ENDING_S - (time.monotonic() - began)):
            for number in range(1, repeat + 1):
                # The parts that are run once come last, because they leave a crowd behind.
                if number > 1 and time.monotonic() - began > allowed * (number / (number + 1)) * _REPEATED_SHARE:
                    _say(f"no time for repetition {number}")
                    break
                for contender in contenders:
                    _say(f"repetition {number} of {repeat}: {contender.name} …")
                    contender.repetitions.append({})
                    await _repetition(contender, parts, contender.repetitions[-1])
            for contender in contenders:
                await _once(contender, parts)
    except TimeoutError:
        is_complete = False
        _say("out of time: what was not measured is missing below")
    _report(given, contenders, began)
    ledgers = [contender.bench.ledger for contender in contenders]
    return 0 if is_complete and not any(ledger.missing or ledger.twice for ledger in ledgers) else 1


def _report(given: argparse.Namespace, contenders: list[Contender], began: float) -> None:
    own, *others = contenders
    print(f"\n{table(own.figures(), others[0].figures() if others else None)}\n")
    for contender in contenders:
        ledger = contender.bench.ledger
        print(
            f"{contender.name}: runs asked for {ledger.sent:,}, ended {ledger.done:,}, missing {ledger.missing:,}, more "
            f"than one run for an event {ledger.twice:,}; requests refused {ledger.refused:,} {ledger.last_refusal}"
        )
    at = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    result = _result(given, contenders)
    written = write_json(RESULTS, at, result)
    if given.write_docs:
        goals.write(result)
    shares = ", ".join(f"{part} {spent:.0f}" for part, spent in own.seconds.items())
    print(f"seconds by part: {shares}")
    print(f"{time.monotonic() - began:.0f} s in all; JSON in {written.relative_to(ROOT)}")


async def _repetition(contender: Contender, parts: list[str], figures: Figures) -> None:
    bench, took = contender.bench, contender.took
    await asyncio.sleep(0.5)  # What was just started or drained comes to rest.
    figures |= memory_idle(bench.server)
    if "idle" in parts:
        with took("idle"):
            figures |= await idle(bench)
    if "saturation" in parts:
        for fn in ("bench-1", "bench-3", "bench-cp10"):
            with took(f"saturation {fn}"):
                figures |= await saturation(bench, fn)
    if contender.npm:
        with took("npm"):
            figures |= await npm(bench, contender.npm)
    if "ingest" in parts:
        with took("ingest"):
            figures |= await ingest(bench)


async def _once(contender: Contender, parts: list[str]) -> None:
    bench, took = contender.bench, contender.took
    if "backlog" in parts:
        _say(f"backlog of {bench.sizes.backlog:,}: {contender.name} …")
        with took("backlog"):
            contender.once |= await backlog(bench, contender.neighbour)
    if "sleepers" in parts and bench.server.database_url:
        _say(f"{bench.sizes.sleepers:,} sleeping runs …")
        with took("sleepers"):
            contender.once |= await sleepers(bench)
    if "pages" in parts and bench.server.neighbour:
        _say("pages …")
        with took("pages"):
            contender.once |= await asyncio.to_thread(pages, bench.server, bench.sizes.page_loads)


def _result(given: argparse.Namespace, contenders: list[Contender]) -> dict[str, Any]:
    own, *others = contenders
    ledger = own.bench.ledger
    return {
        "format": 3,
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "measured": "stepwell dev" if given.dev else "stepwell up",
        "is_quick": given.quick,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "figures": own.figures(),
        "seconds": {part: round(spent, 1) for part, spent in own.seconds.items()},
        "against": {other.name: other.figures() for other in others},
        "runs": {"sent": ledger.sent, "done": ledger.done, "missing": ledger.missing, "twice": ledger.twice},
        "requests_refused": ledger.refused,
    }


def _say(line: str) -> None:
    print(line, flush=True)
