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
import sys
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.load import Control
from bench.machine import machine_factor
from bench.measures import FULL, QUICK, Bench, Figures, idle, ingest, memory_idle, saturation, settle
from bench.product import ROOT, Server, bench_app, own_server
from bench.table import summary, table, write_json

RESULTS = ROOT / "bench" / "results"
#: Seconds for everything; a bench that takes longer is not run.
_QUICK_S, _FULL_S = 90.0, 480.0
#: Seconds kept for printing and for ending what was started.
_ENDING_S = 12.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def main() -> int:
    """Run the bench; 0 when all was measured and every accepted run ended once, 1 otherwise, 2 for a wrong command line."""
    given = _arguments().parse_args()
    if given.against and urlsplit(given.against).hostname not in _LOOPBACK:
        print("bench: only servers on this machine are measured", file=sys.stderr)
        return 2
    began = time.monotonic()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # However it is ended, what was started here is ended too.
    try:
        with ExitStack() as started:
            if given.against:
                roots = tuple(given.pid)
                server = Server(given.against, given.event_key, given.signing_key, roots, given.database_url)
            else:
                _say("starting Stepwell on an empty database …")
                server = started.enter_context(own_server(is_dev=given.dev, workers=given.workers))
                _say(f"ready at {server.url} after {server.start_s:.1f} s")
            app_url = started.enter_context(bench_app(server))
            return uvloop.run(_measure(given, server, app_url, began))
    except RuntimeError as refused:
        print(f"bench: {refused}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _arguments() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="make bench", description="Measure latencies and saturation of Stepwell.")
    words.add_argument("--quick", action="store_true", help="smaller sizes, at most 90 seconds")
    words.add_argument("--repeat", type=int, default=3, choices=range(1, 11), help="repetitions (3)")
    words.add_argument("--dev", action="store_true", help="measure `stepwell dev`: no signatures")
    words.add_argument("--workers", type=int, help="worker processes (the product's default)")
    words.add_argument("--parts", default="idle,saturation,ingest", help="which parts, with commas")
    words.add_argument("--against", metavar="URL", help="measure a running server of the same protocol instead")
    words.add_argument("--event-key", default="bench", help="with --against")
    words.add_argument("--signing-key", default="", help="with --against: signed mode")
    words.add_argument("--pid", type=int, action="append", default=[], help="with --against: a process tree to watch")
    words.add_argument("--database-url", default="", help="with --against: for the machine factor")
    return words


async def _measure(given: argparse.Namespace, server: Server, app_url: str, began: float) -> int:
    allowed = _QUICK_S if given.quick else _FULL_S
    control = Control(app_url)
    bench = Bench(server, control, QUICK if given.quick else FULL, _say)
    repetitions: list[Figures] = []
    machine: Figures = {}
    is_complete = True
    try:
        if not await settle(bench):
            raise RuntimeError("the first run did not come back within its deadline; nothing can be measured")
        if server.database_url:
            machine = await machine_factor(server.database_url, seconds=1.0 if given.quick else 3.0)
        async with asyncio.timeout(allowed - _ENDING_S - (time.monotonic() - began)):
            for number in range(1, given.repeat + 1):
                if repetitions and time.monotonic() - began > allowed * 2 / 3:
                    _say(f"no time for repetition {number}")
                    break
                _say(f"repetition {number} of {given.repeat} …")
                repetitions.append({})
                await _repetition(bench, given.parts.split(","), repetitions[-1])
    except TimeoutError:
        is_complete = False
        _say("out of time: what was not measured is missing below")
    finally:
        control.close()
    once = {**machine, **({"start_s": server.start_s} if server.start_s is not None else {})}
    figures = summary(repetitions) | summary([once])
    print(f"\n{table(figures)}\n")
    ledger = bench.ledger
    print(
        f"runs asked for {ledger.sent:,}, ended {ledger.done:,}, missing {ledger.missing:,}, "
        f"more than one run for an event {ledger.twice:,}; requests refused {ledger.refused:,} {ledger.last_refusal}"
    )
    written = write_json(RESULTS, dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ"), _result(given, figures, ledger))
    print(f"{time.monotonic() - began:.0f} s in all; JSON in {written.relative_to(ROOT)}")
    return 0 if is_complete and ledger.missing == 0 and ledger.twice == 0 else 1


async def _repetition(bench: Bench, parts: list[str], figures: Figures) -> None:
    await asyncio.sleep(0.5)  # What was just started or drained comes to rest.
    figures |= memory_idle(bench.server)
    if "idle" in parts:
        figures |= await idle(bench)
    if "saturation" in parts:
        figures |= await saturation(bench, "bench-1")
        figures |= await saturation(bench, "bench-3")
    if "ingest" in parts:
        figures |= await ingest(bench)


def _result(given: argparse.Namespace, figures: dict[str, dict[str, Any]], ledger: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "measured": "another server" if given.against else "stepwell dev" if given.dev else "stepwell up",
        "is_quick": given.quick,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "figures": figures,
        "runs": {"sent": ledger.sent, "done": ledger.done, "missing": ledger.missing, "twice": ledger.twice},
        "requests_refused": ledger.refused,
    }


def _say(line: str) -> None:
    print(line, flush=True)
