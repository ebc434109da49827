"""Starts the product and the bench app, watches their processes, and ends what it started.

Only processes started here are ever signalled, each by its own handle. CPU and memory are read per group: supervisor,
web, worker, postgres, valkey.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
#: Seconds until the first answer of a fresh installation, and until a stop is forced.
_READY_S = 120.0
_STOP_S = 40.0
#: The login that the bench makes for itself.
EMAIL, PASSWORD = "bench@example.com", "bench-bench-bench"
GROUPS = ("supervisor", "web", "worker", "postgres", "valkey")


@dataclass(frozen=True, slots=True)
class Server:
    """What is measured: where it is, the keys, and the processes whose CPU and memory count (none: not ours to see)."""

    url: str
    event_key: str
    signing_key: str
    roots: tuple[int, ...] = ()
    database_url: str = ""
    #: Seconds to the first answer, with a new database and on the second start.
    start_s: float | None = None
    start_again_s: float | None = None
    #: Event key and signing key of another tenant of the same server.
    neighbour: tuple[str, str] | None = None


@dataclass(slots=True)
class Usage:
    """CPU seconds since their start, and resident bytes (shared pages once), by group; `largest` is the largest single process."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)

    @property
    def cpu_all_s(self) -> float:
        """All groups together."""
        return sum(self.cpu_s.values())

    @property
    def bytes_without_postgres(self) -> int:
        """Memory of the server processes and Redis, as architecture 4 counts it."""
        return sum(size for group, size in self.bytes.items() if group != "postgres")


def usage_of(roots: tuple[int, ...]) -> Usage:
    """Usage of process trees. Pages that several processes share count once (proportional share) where the system tells."""
    usage = Usage()
    for root in roots:
        try:
            top = psutil.Process(root)
            processes = [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in processes:
            try:
                group = _group_of(process, is_root=process.pid == root)
                times = process.cpu_times()
                # What ended children of a server used is only known to their parent.
                spent = times.user + times.system + times.children_user + times.children_system
                size = _proportional(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            usage.cpu_s[group] = usage.cpu_s.get(group, 0.0) + spent
            usage.bytes[group] = usage.bytes.get(group, 0) + size
            usage.largest[group] = max(usage.largest.get(group, 0), size)
    return usage


def _proportional(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))


def _group_of(process: psutil.Process, *, is_root: bool) -> str:
    words = " ".join(process.cmdline()[:8])
    if process.name().startswith("postgres") or words.startswith("postgres"):
        return "postgres"
    if "valkey-server" in words or "redis-server" in words:
        return "valkey"
    if "workers.main" in words or " worker" in words:
        return "worker"
    if "app.cli web" in words or "uvicorn" in words or "app.main" in words:
        return "web"
    return "supervisor" if is_root else "web"


@contextmanager
def own_server(*, is_dev: bool, workers: int | None) -> Iterator[Server]:
    """A fresh installation on a free port with an empty database, gone at the end.

    `is_dev` runs `stepwell dev` (nothing is signed); else `stepwell up` with keys made by `stepwell bootstrap`.
    Raises RuntimeError with the end of its log when it gives no answer.
    """
    folder = Path(tempfile.mkdtemp(prefix="stepwell-bench-"))
    folder.chmod(0o755)  # The database's own user must get through.
    port = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "STEPWELL_DATA_DIR": str(folder / "state"),
        "STEPWELL_HOST": "127.0.0.1",
        "STEPWELL_PORT": str(port),
        "STEPWELL_ALLOW_PRIVATE_APPS": "1",
        "STEPWELL_LOG_LEVEL": "warning",
    }
    for given in ("DATABASE_URL", "REDIS_URL", "STEPWELL_BASE_URL"):
        environ.pop(given, None)
    if workers is not None:
        environ["STEPWELL_WORKERS"] = str(workers)
    command = [sys.executable, "-m", "app.cli", *(["dev", "--no-discovery"] if is_dev else ["up"])]
    log = folder / "bench.log"
    url = f"http://127.0.0.1:{port}"
    try:
        # The first start makes the database; how long a start takes otherwise is seen by the second.
        with _running(command, environ, log, url) as (_, first_s):
            pass
        with _running(command, environ, log, url) as (pid, again_s):
            database = _database_of(folder / "state", is_dev)
            if is_dev:
                yield Server(url, "bench", "", (pid,), database, first_s, again_s)
                return
            keys = _bootstrap(environ, EMAIL, "Bench")
            neighbour = _bootstrap(environ, f"neighbour.{EMAIL}", "Neighbour")
            yield Server(url, *keys, (pid,), database, first_s, again_s, neighbour)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: list[str], environ: dict[str, str], log: Path, url: str) -> Iterator[tuple[int, float]]:
    """The product for the time of a block: its process id, and the seconds to its first answer."""
    began = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
    try:
        _wait_until_healthy(url, process, log)
        yield process.pid, time.monotonic() - began
    finally:
        end(process)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310 - our own loopback address
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:]
    raise RuntimeError(f"the product gave no answer at {url}/health; the end of its log:\n{tail}")


def _bootstrap(environ: dict[str, str], email: str, organization: str) -> tuple[str, str]:
    words = ["bootstrap", "--email", email, "--password", PASSWORD, "--organization", organization, "--json"]
    made = subprocess.run(
        [sys.executable, "-m", "app.cli", *words], cwd=ROOT, env=environ, capture_output=True, timeout=120, check=False
    )
    if made.returncode != 0:
        raise RuntimeError(f"bootstrap failed: {made.stderr.decode(errors='replace')[-2000:]}")
    keys = json.loads(made.stdout)
    return keys["event_key"], keys["signing_key"]


def _database_of(folder: Path, is_dev: bool) -> str:
    """The embedded database's address, as the running house notes it; empty when it cannot be found."""
    from app.supervise.state import State

    running = State(folder, "dev" if is_dev else "up").running()
    return running.database_url if running is not None else ""


@contextmanager
def bench_app(server: Server, name: str = "bench") -> Iterator[str]:
    """The bench app as a process of its own, registered; gives its address. Raises RuntimeError if it was not taken."""
    command = [sys.executable, "-m", "bench.app", "--server", server.url, "--name", name]
    if server.signing_key:
        command += ["--signing-key", server.signing_key]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().decode().strip()
        if not url:
            raise RuntimeError(process.stderr.read().decode(errors="replace").strip()[-2000:])
        yield url
    finally:
        end(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here: politely, then at once."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
