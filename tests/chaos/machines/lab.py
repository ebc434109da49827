"""The processes of the test, each on a machine of its own, and what may be asked of them.

    stores: Postgres, Valkey · web · app: the app with the ledger, and the bench's app · worker-1 · worker-2

Made by `open_lab`; ends everything it started and removes its folder. A lab that was killed leaves a folder with its
process id in the name and nothing else; the next one removes it.
"""

import asyncio
import json
import os
import re
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
from app.domain.ids import to_ulid
from app.supervise.children import ChildSpec
from app.supervise.servers import prepare_postgres, prepare_valkey
from app.supervise.state import State, free_port
from tests.chaos.machines.app import EVENT, registration
from tests.chaos.machines.network import SUBNET, Network
from tests.chaos.storm.yard import Child
from tests.processes import ROOT, environ

WORKERS = ("worker-1", "worker-2")
LEASE_S = 3
"""The shortest that may be set."""
START_S = 120.0
"""Seconds for anything to become so on a machine that many share."""
_FOLDER = "stepwell-machines-"
#: Only processes and cables are struck here, never the machine under them: what the system has taken is not lost.
_POSTGRES = (("fsync", "off"), ("listen_addresses", "*"), ("shared_buffers", "64MB"))


class Lab:
    """What runs. Made by `open_lab`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network()
        self.children: dict[str, Child] = {}
        self.keys: dict[str, str] = {}
        self.accepted: set[str] = set()
        self._secret = secrets.token_hex(32)
        for name in ("stores", "web", "app", *WORKERS):
            self.network.add(name)
        self.web_url = f"http://{self.address_of('web')}:{free_port()}"
        self.app_url = f"http://{self.address_of('app')}:{free_port()}/api/inngest"
        self.ledger_file = folder / "app.jsonl"
        self.database_url = ""
        self._redis_url = ""
        self._http: aiohttp.ClientSession | None = None
        self.asker: Any = None

    def address_of(self, machine: str) -> str:
        """The machine's address."""
        return self.network.machines[machine].address

    def start(self, machine: str, spec: ChildSpec) -> Child:
        """Start a process on a machine."""
        child = self.children[spec.name] = Child(spec, self.folder)
        with self.network.inside(self.network.machines[machine]):
            child.start()
        return child

    def start_ours(self, machine: str, *words: str) -> Child:
        """Start one of our own modules on a machine, set to use the stores."""
        spec = ChildSpec(machine, [sys.executable, "-P", "-m", *words], self._environ(machine), stop_rank=0)
        return self.start(machine, spec)

    def start_worker(self, name: str) -> None:
        """Start a worker on its machine."""
        self.start_ours(name, "workers.main")

    def start_bench_app(self) -> subprocess.Popen[bytes]:
        """Start the bench's app beside ours; the caller reads its address and ends it."""
        words = ["bench.app", "--host", self.address_of("app"), "--server", self.web_url]
        command = [sys.executable, "-P", "-m", *words, "--signing-key", self.keys["signing_key"]]
        with self.network.inside(self.network.machines["app"]):
            return subprocess.Popen(command, stdout=subprocess.PIPE, env=environ(), cwd=ROOT)

    async def start_stores(self) -> None:
        """Make and start Postgres and Valkey, and bring the database up to date."""
        address = self.address_of("stores")
        state = State(self.folder, "machines")
        state.lock()
        postgres, valkey = prepare_postgres(state, _POSTGRES), prepare_valkey(state)
        with (postgres.folder / "pg_hba.conf").open("a", encoding="utf-8") as who_may:
            who_may.write(f"host all all {SUBNET} scram-sha-256\n")
        self.database_url = postgres.url.replace("127.0.0.1", address)
        self._redis_url = valkey.url.replace("127.0.0.1", address)
        self.start("stores", postgres.spec())
        spec = valkey.spec()
        words = [*spec.command, "--bind", address]
        self.start("stores", ChildSpec("valkey", words, spec.environ, stop_rank=0, user=spec.user, folder=spec.folder))
        await self.until(self._is_database_up, "the database answers")
        migrated = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "app.cli",
            "migrate",
            env=self._environ("web"),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        if await migrated.wait() != 0:
            raise RuntimeError("the database could not be migrated")
        self.asker = await asyncpg.connect(self.database_url, timeout=10, command_timeout=60)

    async def start_the_rest(self) -> None:
        """Start web, the app and the first worker, and register the app."""
        self.start_ours("web", "app.cli", "web")
        self.start_worker(WORKERS[0])
        host, port = self.address_of("app"), self.app_url.split(":")[2].partition("/")[0]
        words = ["tests.chaos.machines.app", "--host", host, "--port", port, "--ledger", str(self.ledger_file)]
        self.start("app", ChildSpec("app", [sys.executable, "-P", "-m", *words], environ(), stop_rank=0))
        self.keys = await bootstrap(
            self.database_url,
            self._secret,
            email="ann@example.com",
            password="a long enough passphrase",
            organization="Machines",
            base_url=self.web_url,
        )
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        await self.until(lambda: self._answers(f"{self.web_url}/health"), "web answers")
        await self.until(lambda: self._answers(self.app_url.replace("/api/inngest", "/")), "the app answers")
        headers = {"authorization": f"Bearer {self.keys['signing_key']}"}
        await self.until(lambda: self._post("/fn/register", registration(self.app_url), headers), "the app is known")

    async def send(self, number: int) -> None:
        """Send an event until it is accepted."""
        event = {"name": EVENT, "id": f"e{number}", "data": {}}
        answer = await self.until(lambda: self._post(f"/e/{self.keys['event_key']}", event, {}), "an event is accepted")
        self.accepted |= set(answer["ids"])

    async def ask(self, query: str) -> list[Any]:
        """Rows, as the database's owner; the way to the stores is never cut."""
        rows: list[Any] = await self.asker.fetch(query)
        return rows

    async def runs(self) -> list[dict[str, Any]]:
        """Every run of the app, as `judge` wants them."""
        found = await self.ask(_RUNS)
        made = []
        for row in found:
            detail = json.loads(row["detail"]) if row["detail"] else {}
            ids = {"id": to_ulid(row["id"]), "event_id": to_ulid(row["event_id"])}
            made.append(ids | {"status": row["status"], "output": detail.get("output")})
        return made

    async def stored(self) -> dict[tuple[str, str], tuple[str, float]]:
        """Every settled step: its token (none: a sleep) and when it was committed."""
        rows = await self.ask(_STORED)
        return {
            (to_ulid(row["run_id"]), row["step_key"]): (_token(row["memo"]), row["settled_at"].timestamp())
            for row in rows
        }

    def ledger(self) -> list[dict[str, Any]]:
        """What the app wrote down."""
        if not self.ledger_file.exists():
            return []
        return [json.loads(line) for line in self.ledger_file.read_text(encoding="utf-8").splitlines()]

    async def until(self, is_so: Callable[[], Any], what: str, within: float = START_S) -> Any:
        """Wait until something is so and give it. Raises TimeoutError with what was expected and who said what last."""
        deadline = time.monotonic() + within
        while not (found := await is_so()):
            dead = [child.spec.name for child in self.children.values() if child.is_wanted and child.pid is None]
            if dead or time.monotonic() > deadline:
                why = f"{', '.join(dead)} ended" if dead else f"not within {within:.0f} s"
                logs = [
                    f"--- {child.log.stem}\n{child.log.read_text(errors='replace')[-1500:]}"
                    for child in self.children.values()
                ]
                raise TimeoutError(f"{what}: {why}\n" + "\n".join(logs))
            await asyncio.sleep(0.05)
        return found

    async def close(self) -> None:
        """End everything."""
        if self._http is not None:
            await self._http.close()
        if self.asker is not None:
            self.asker.terminate()
        for child in reversed(self.children.values()):
            child.end()

    def _environ(self, name: str) -> dict[str, str]:
        given = environ(
            DATABASE_URL=self.database_url,
            REDIS_URL=self._redis_url,
            STEPWELL_SECRET_KEY=self._secret,
            STEPWELL_HOST=self.address_of("web"),
            STEPWELL_PORT=self.web_url.rpartition(":")[2],
            STEPWELL_DATA_DIR=str(self.folder),
            STEPWELL_ALLOW_PRIVATE_APPS="1",
            STEPWELL_LEASE_SECONDS=str(LEASE_S),
            STEPWELL_RETRY_DELAY_MS="200",
            STEPWELL_LOG_LEVEL="info",
        )
        return given | ({"STEPWELL_WORKER_NAME": name} if name in WORKERS else {})

    async def _is_database_up(self) -> bool:
        try:
            connection = await asyncpg.connect(self.database_url, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        connection.terminate()
        return True

    async def _answers(self, url: str) -> bool:
        assert self._http is not None
        try:
            async with self._http.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def _post(self, path: str, body: Any, headers: dict[str, str]) -> Any:
        assert self._http is not None
        try:
            async with self._http.post(f"{self.web_url}{path}", json=body, headers=headers) as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


def _token(memo: str | None) -> str:
    value = json.loads(memo) if memo else None
    return str(value["data"]["token"]) if value else ""


@asynccontextmanager
async def open_lab() -> AsyncIterator[Lab]:
    """Give an empty lab; the caller's first words are `start_stores` and `start_the_rest`."""
    _sweep()
    folder = _open_folder()
    lab = Lab(folder)
    try:
        yield lab
    finally:
        await lab.close()
        shutil.rmtree(folder, ignore_errors=True)


def _open_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    folder.chmod(0o755)  # The user of the stores must be able to walk to it.
    return folder


def _sweep() -> None:
    """Remove the folders of labs that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        owner = re.match(rf"{_FOLDER}(\d+)-", left.name)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            shutil.rmtree(left, ignore_errors=True)


def kill(child: Child) -> None:
    """End a process as a power cut does."""
    child.is_wanted = False
    child.send(signal.SIGKILL)


_RUNS = f"""
  select r.id, r.event_id, r.status,
    (select h.detail from history h where h.run_id = r.id and h.kind = 'run.completed') as detail
  from runs r where r.event_name = '{EVENT}'
"""
_STORED = f"""
  select s.run_id, s.step_key, s.memo, s.settled_at from steps s join runs r on r.id = s.run_id
  where s.settled_at is not null and r.event_name = '{EVENT}'
"""
