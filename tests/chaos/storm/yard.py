"""The processes of a storm: Postgres, Valkey, web, workers and the app, each a child of ours that can be struck alone.

    client ──────────────► web ──┐
    app ◄─ proxy "app" ◄─ workers ├─ proxies "db web", "db worker-1", "db worker-2" ─► Postgres (on a small tmpfs)
                                  └─ proxy "redis" ─► Valkey

A child that ends is started again after a moment, as any supervisor does. Only processes started here are ever signalled,
each by the handle we hold; the children end with us.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from app.accounts.bootstrap import bootstrap
from app.supervise.children import ChildSpec, _die_with_parent
from app.supervise.postgres import Postgres
from app.supervise.servers import prepare_postgres, prepare_valkey
from app.supervise.state import State, free_port
from app.supervise.valkey import Valkey
from tests.chaos.storm.proxy import Fault, Proxy
from tests.processes import ROOT, environ

WORKERS = ("worker-1", "worker-2")
LEASE_S, CALL_TIMEOUT_S, RETRY_MS = 5, 4, 1500
START_S = 120.0
"""Seconds for anything to start on a machine that many share."""
MAX_CONNECTIONS = 60
GONE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asking a database that is being struck may raise."""
_DISK_BYTES = 600 * 1024 * 1024
_AGAIN_S = 0.3
_POSTGRES = (
    # The storm kills processes, never the machine: what the system has taken is not lost.
    ("fsync", "off"),
    ("max_connections", str(MAX_CONNECTIONS)),
    ("min_wal_size", "32MB"),
    ("max_wal_size", "96MB"),
    ("shared_buffers", "64MB"),
)


class Child:
    """One process, started again whenever it ends, until nobody wants it."""

    def __init__(self, spec: ChildSpec, folder: Path) -> None:
        self.spec = spec
        self.log = folder / f"{spec.name}.log"
        self.popen: subprocess.Popen[bytes] | None = None
        self.is_wanted = True
        self.starts = 0
        self.again_at = 0.0
        self.is_frozen = False

    @property
    def pid(self) -> int | None:
        """The process id while it lives."""
        return self.popen.pid if self.popen is not None and self.popen.poll() is None else None

    def start(self) -> None:
        """Start it as its spec says."""
        if self.spec.before_start is not None:
            self.spec.before_start()
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                [os.fspath(part) for part in self.spec.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.spec.environ),
                cwd=self.spec.folder or ROOT,
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one thread starts children
                **self.spec.user.popen,
            )
        self.starts += 1

    def send(self, number: signal.Signals) -> bool:
        """Signal it if it lives. SIGSTOP and SIGCONT go to its whole session, so that a database freezes as one."""
        pid = self.pid
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            if number in (signal.SIGSTOP, signal.SIGCONT):
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
            return True
        return False

    def end(self) -> None:
        """End it for good, whatever state it is in."""
        self.is_wanted = False
        if self.popen is not None and self.popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait(30)


class Yard:
    """Everything that runs. Made by `open_yard`."""

    def __init__(self, folder: Path, on_disk: "Disk", plant: str) -> None:
        self.folder = folder
        self.disk = on_disk
        self.plant = plant
        self.children: dict[str, Child] = {}
        self.proxies: dict[str, Proxy] = {}
        self.keys: dict[str, str] = {}
        self.web_url = f"http://127.0.0.1:{free_port()}"
        self.ledger = folder / "app.jsonl"
        self.most_connections = 0
        self.postgres: Postgres
        self.valkey: Valkey
        self._keeper: asyncio.Task[None] | None = None
        self._asker: Any = None
        self._asking = asyncio.Lock()
        self._secret = secrets.token_hex(32)

    @property
    def database_url(self) -> str:
        """The database, past the proxies."""
        return self.postgres.url

    @property
    def app_url(self) -> str:
        """Where Stepwell calls the app: through its proxy."""
        return f"http://127.0.0.1:{self.proxies['app'].port}/api/inngest"

    def child(self, name: str) -> Child:
        """A child by its name: postgres, valkey, web, worker-1, worker-2, app."""
        return self.children[name]

    def add(self, spec: ChildSpec) -> Child:
        """Start a child and keep it."""
        child = self.children[spec.name] = Child(spec, self.folder)
        child.start()
        return child

    async def keep(self) -> None:
        """Start again what has ended."""
        while True:
            now = time.monotonic()
            for child in self.children.values():
                if child.pid is None and child.is_wanted:
                    if child.again_at == 0.0:
                        child.again_at = now + _AGAIN_S
                    elif now >= child.again_at:
                        child.again_at, child.is_frozen = 0.0, False
                        await asyncio.sleep(0)
                        child.start()
            await asyncio.sleep(0.05)

    async def connect(self) -> Any:
        """A connection of the database's owner, past the proxies; raises what asyncpg does when it is down."""
        return await asyncpg.connect(self.database_url, timeout=5, command_timeout=60)

    async def ask(self, query: str, *values: Any) -> list[Any] | None:
        """Rows by the one connection that all who look share; None while the database does not answer."""
        async with self._asking:
            try:
                if self._asker is None or self._asker.is_closed():
                    self._asker = await self.connect()
                rows: list[Any] = await self._asker.fetch(query, *values)
            except GONE:
                if self._asker is not None:
                    self._asker.terminate()
                self._asker = None
                return None
            return rows

    async def until(self, is_so: Callable[[], Any], what: str, within: float = START_S) -> None:
        """Wait until something is so. Raises TimeoutError with what was expected."""
        deadline = time.monotonic() + within
        while not await is_so():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {within:.0f} s; logs are in {self.folder}")
            await asyncio.sleep(0.05)

    async def is_database_up(self) -> bool:
        """Whether the database answers."""
        try:
            connection = await asyncpg.connect(self.database_url, timeout=2)
        except GONE:
            return False
        connection.terminate()
        return True

    async def answers(self, url: str) -> bool:
        """Whether a GET is answered with 200."""
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http, http.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def spec_of(self, name: str, *, skew_s: int = 0) -> ChildSpec:
        """How web and workers are started. `skew_s`: seconds by which the process's clock is wrong."""
        database = self.proxies[f"db {name}"]
        given = environ(
            DATABASE_URL=self.database_url.replace(f":{self.postgres.port}/", f":{database.port}/"),
            REDIS_URL=self.valkey.url.replace(f":{self.valkey.port}/", f":{self.proxies['redis'].port}/"),
            STEPWELL_SECRET_KEY=self._secret,
            STEPWELL_HOST="127.0.0.1",
            STEPWELL_PORT=self.web_url.rpartition(":")[2],
            STEPWELL_DATA_DIR=str(self.folder),
            STEPWELL_ALLOW_PRIVATE_APPS="1",
            STEPWELL_LEASE_SECONDS=str(LEASE_S),
            STEPWELL_CALL_TIMEOUT_SECONDS=str(CALL_TIMEOUT_S),
            STEPWELL_RETRY_DELAY_MS=str(RETRY_MS),
            STEPWELL_LOG_LEVEL="info",
            STEPWELL_MAX_CALLS="64",
        )
        kind = "web" if name == "web" else "worker"
        if kind == "worker":
            given["STEPWELL_WORKER_NAME"] = name
        words = ["app.cli", "web"] if kind == "web" else ["workers.main"]
        if self.plant or skew_s:
            given |= {"STEPWELL_TEST_PLANT": self.plant, "STEPWELL_TEST_SKEW_S": str(skew_s)}
            words = ["tests.chaos.storm.planted", kind]
        return ChildSpec(name, [sys.executable, "-P", "-m", *words], given, stop_rank=0)

    def skew(self, name: str, seconds: int) -> None:
        """Let the next life of a process have a wrong clock (0: a right one)."""
        self.children[name].spec = self.spec_of(name, skew_s=seconds)

    async def settle(self) -> None:
        """Take every fault away and wait until everything answers."""
        self.disk.release()
        for proxy in self.proxies.values():
            proxy.fault = Fault()
        for name in WORKERS:
            self.skew(name, 0)
        for child in self.children.values():
            child.is_wanted, child.is_frozen = True, False
            child.send(signal.SIGCONT)
        await self.until(self.is_database_up, "the database is back")
        await self.until(lambda: self.answers(f"{self.web_url}/health"), "web answers")


class Disk:
    """The small disk under Postgres: a tmpfs that can be filled; where mounting is not allowed, a limit on file sizes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o755)
        self.is_mounted = self._mount(b"tmpfs", f"size={_DISK_BYTES},mode=0711".encode())
        self._ballast = folder / "ballast"

    def _mount(self, kind: bytes, options: bytes) -> bool:
        if sys.platform != "linux" or os.geteuid() != 0:
            return False
        libc = ctypes.CDLL(None, use_errno=True)
        return int(libc.mount(b"storm", os.fsencode(self.folder), kind, 0, options)) == 0

    def fill(self, pids: list[int]) -> str:
        """Leave no room; gives how it was done. `pids`: the processes of the database."""
        if self.is_mounted:
            with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
            # A last page here and there, until not a byte is free.
            with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            return "tmpfs filled"
        import resource

        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 20, hard))
        return "files limited to 1 MiB (no tmpfs: mounting is not allowed here)"

    def release(self) -> None:
        """Give the room back. A limit on file sizes ends with the database's next start."""
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount."""
        if self.is_mounted:
            ctypes.CDLL(None).umount2(os.fsencode(self.folder), 2)  # MNT_DETACH


def _open_folder() -> Path:
    """A folder that the user of the embedded servers can walk to."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-storm-"))
    folder.chmod(0o755)
    return folder


@asynccontextmanager
async def open_yard(seed: int, plant: str = "") -> AsyncIterator[Yard]:
    """Start everything but Redis on free ports and an empty database; ends and removes everything in the end."""
    folder = _open_folder()
    disk = Disk(folder / "storm")
    yard = Yard(folder, disk, plant)
    try:
        await _start(yard, seed)
        yield yard
    finally:
        if yard._keeper is not None:
            yard._keeper.cancel()
        for child in reversed(yard.children.values()):
            child.end()
        for proxy in yard.proxies.values():
            await proxy.stop()
        disk.remove()
        if not os.environ.get("STORM_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)


async def _start(yard: Yard, seed: int) -> None:
    state = State(yard.folder, "storm")
    state.lock()
    yard.postgres, yard.valkey = prepare_postgres(state, _POSTGRES), prepare_valkey(state)
    yard.add(yard.postgres.spec())
    yard._keeper = asyncio.create_task(yard.keep())
    targets = {f"db {name}": yard.postgres.port for name in ("web", *WORKERS)} | {"redis": yard.valkey.port}
    app_port = free_port()
    for name, port in (targets | {"app": app_port}).items():
        yard.proxies[name] = Proxy(name, ("127.0.0.1", port), free_port())
        await yard.proxies[name].start()
    await yard.until(yard.is_database_up, "the database answers")
    given = {**yard.spec_of("web").environ, "DATABASE_URL": yard.database_url}
    migrated = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "app.cli", "migrate", env=given, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    if await migrated.wait() != 0:
        raise RuntimeError("the database could not be migrated")
    for name in ("web", *WORKERS):
        yard.add(yard.spec_of(name))
    yard.keys = await bootstrap(
        yard.database_url,
        given["STEPWELL_SECRET_KEY"],
        email="ann@example.com",
        password="a long enough passphrase",
        organization="Storm",
        base_url=yard.web_url,
    )
    words = ["--port", str(app_port), "--server", yard.web_url, "--event-key", yard.keys["event_key"]]
    words += ["--signing-key", yard.keys["signing_key"], "--ledger", str(yard.ledger), "--seed", str(seed)]
    command = [sys.executable, "-P", "-m", "tests.chaos.storm.app", *words]
    yard.add(ChildSpec("app", command, environ(), stop_rank=0))
    await yard.until(lambda: yard.answers(f"{yard.web_url}/health"), "web answers")
    await yard.until(lambda: yard.answers(f"http://127.0.0.1:{app_port}/"), "the app answers")
