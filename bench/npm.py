"""The app with the npm SDK: what TypeScript users get by default, ten steps in one call, each saved over the API.

The raw app measures the server alone; this one holds the SDK and node as well, and its rate is that of one node process
on cores it shares with everything else. Where node or its packages are missing the part is left out, and said so.
"""

import http.client
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psutil

from bench.load import Address, Control
from bench.measures import Bench, Figures, idle, saturation
from bench.product import ROOT, Server, end, free_port
from tests.protocol import node

FN = "npm-cp10"
#: Runs in flight: more than one node process can do at once, few enough to be drained quickly.
_WINDOW = 32
#: Figures of the parts that say something of this app, and the names they get.
_KEPT = {
    "first_call_ms_p50": "npm_first_call_ms_p50",
    "checkpoint_ms_p50": "npm_checkpoint_ms_p50",
    "checkpoint_ms_p95": "npm_checkpoint_ms_p95",
    f"done_{FN}_ms_p50": f"done_{FN}_ms_p50",
    f"steps_per_s_{FN}": f"steps_per_s_{FN}",
    f"cpu_per_1000_{FN}": f"cpu_per_1000_{FN}",
}


@dataclass(frozen=True, slots=True)
class NpmApp:
    """The running app."""

    control: Control
    pid: int


def install(say: Callable[[str], None]) -> bool:
    """Bring the packages; false, and said why, where that is not possible. Not part of the measured time."""
    if shutil.which("node") is None:
        say("no node here: the npm SDK's figures are left out")
        return False
    try:
        node.install()
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        say(f"the npm SDK could not be installed, its figures are left out: {str(error)[:200]}")
        return False
    return True


@contextmanager
def npm_app(server: Server) -> Iterator[NpmApp]:
    """The app as a process of its own, registered with the server. Raises RuntimeError if it was not taken."""
    port = free_port()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    signed = {"INNGEST_BASE_URL": server.url, "INNGEST_SIGNING_KEY": server.signing_key}
    told = signed if server.signing_key else {"INNGEST_DEV": server.url}
    environ = kept | told | {"PORT": str(port), "INNGEST_EVENT_KEY": server.event_key, "NODE_ENV": "production"}
    command = [*node.node(), os.fspath(node.FOLDER / "bench.mjs")]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != b"listening":
            raise RuntimeError("the app with the npm SDK did not start")
        address = Address("127.0.0.1", port)
        _register(address)
        yield NpmApp(Control(f"http://{address.host}:{address.port}"), process.pid)
    finally:
        end(process)
        if process.stdout is not None:
            process.stdout.close()


def _register(address: Address) -> None:
    """Ask the app to tell its functions, as a deploy hook does."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    try:
        connection.request("PUT", "/api/inngest")
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"the server did not take the app with the npm SDK: {said[:300].decode(errors='replace')}")


async def npm(bench: Bench, app: NpmApp) -> Figures:
    """Latency and rate of its ten steps, and the CPU that the app itself took for a thousand of them."""
    sizes = replace(bench.sizes, window=_WINDOW)
    theirs = Bench(bench.server, app.control, sizes, bench.say, bench.ledger, bench.number)
    process = psutil.Process(app.pid)
    figures = await idle(theirs, (FN,))
    before = _spent(process)
    figures |= await saturation(theirs, FN)
    # It counts from the reset with which the part begins.
    steps = (await app.control.counts())[FN]["steps"]
    bench.number = theirs.number
    return {name: figures[found] for found, name in _KEPT.items() if found in figures} | {
        "npm_app_cpu_per_1000": (_spent(process) - before) / max(steps, 1) * 1000
    }


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
