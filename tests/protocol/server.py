"""One Stepwell as many machines would run it: a web process and a worker against given servers, and its API.

`Server` starts both; `Tenant` is who an app belongs to; `Api` asks what people and programs ask.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx2

from app.accounts.bootstrap import DEV_SCOPE, bootstrap
from app.domain.ids import AccountId, EnvironmentId
from app.domain.scope import Scope
from app.supervise.state import free_port
from tests.processes import Process, await_so, environ, our_command, running, status_of

Mode = Literal["signed", "dev"]

SECRET_KEY = "0123456789abcdef" * 4
PASSWORD = "a long enough passphrase"
RETRY_DELAY_MS = 200
FINAL = frozenset({"Completed", "Failed", "Cancelled", "Skipped"})


class Api:
    """What `/v1` and `/v0` answer to the bearer of a token; none sends no `Authorization`."""

    def __init__(self, base_url: str, token: str | None, needs: list[Process]) -> None:
        self._base_url = base_url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._needs = needs

    def call(self, method: str, path: str) -> httpx2.Response:
        """Make one request."""
        return httpx2.request(method, f"{self._base_url}{path}", headers=self._headers, timeout=30.0)

    def run(self, run_id: str) -> dict[str, Any]:
        """The run object."""
        answer = self.call("GET", f"/v1/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        run: dict[str, Any] = answer.json()["data"]
        return run

    def runs_of(self, event_id: str) -> list[dict[str, Any]]:
        """The runs an event started, [] while there is none."""
        answer = self.call("GET", f"/v1/events/{event_id}/runs")
        assert answer.status_code == 200, answer.text
        runs: list[dict[str, Any]] = answer.json()["data"]
        return runs

    def await_run(self, event_id: str) -> dict[str, Any]:
        """The first run of an event, as soon as there is one."""
        return await_so(lambda: self.runs_of(event_id), f"event {event_id} starts a run", self._needs)[0]

    def await_end(self, event_id: str) -> dict[str, Any]:
        """The run object of an event's one run, when it has ended."""
        run_id = self.await_run(event_id)["run_id"]

        def ended() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["status"] in FINAL else None

        return await_so(ended, f"run {run_id} ends", self._needs)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who an app belongs to, and the keys it is given; both empty in dev mode."""

    scope: Scope
    event_key: str = ""
    signing_key: str = ""


class Server:
    """A running Stepwell."""

    def __init__(self, mode: Mode, database_url: str, redis_url: str, folder: Path) -> None:
        self.mode: Mode = mode
        self.database_url = database_url
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.processes: list[Process] = []
        self._tenants = 0
        self.environ = environ(
            DATABASE_URL=database_url,
            REDIS_URL=redis_url,
            STEPWELL_SECRET_KEY=SECRET_KEY,
            STEPWELL_HOST="127.0.0.1",
            STEPWELL_PORT=str(self.port),
            STEPWELL_MODE="dev" if mode == "dev" else "server",
            STEPWELL_ALLOW_PRIVATE_APPS="1",
            STEPWELL_RETRY_DELAY_MS=str(RETRY_DELAY_MS),
            STEPWELL_LOG_FORMAT="console",
        )

    def tenant(self) -> Tenant:
        """Give a new organization with its keys; in dev mode there is only the one that is always there."""
        if self.mode == "dev":
            return Tenant(DEV_SCOPE)
        self._tenants += 1
        made = asyncio.run(
            bootstrap(
                self.database_url,
                SECRET_KEY,
                email=f"owner{self._tenants}@example.com",
                password=PASSWORD,
                organization=f"Organization {self._tenants}",
                base_url=self.base_url,
            )
        )
        scope = Scope(AccountId(UUID(made["organization_id"])), EnvironmentId(UUID(made["environment_id"])))
        return Tenant(scope, made["event_key"], made["signing_key"])

    def api(self, tenant: Tenant) -> Api:
        """The API for a tenant's own programs."""
        return self.api_with(tenant.signing_key or None)

    def api_with(self, token: str | None) -> Api:
        """The API for whoever sends this bearer token."""
        return Api(self.base_url, token, self.processes)


@contextmanager
def running_server(mode: Mode, database_url: str, redis_url: str, folder: Path) -> Iterator[Server]:
    """Run a web process and a worker for the time of a block, ready when it begins."""
    server = Server(mode, database_url, redis_url, folder)
    with (
        running("web", our_command("app.cli", "web"), server.environ, folder) as web,
        running("worker", our_command("app.cli", "worker"), server.environ, folder) as worker,
    ):
        server.processes += [web, worker]
        await_so(lambda: status_of(f"{server.base_url}/health") == 200, "the web process answers", server.processes)
        await_so(lambda: "worker ready" in worker.said(), "the worker is ready", server.processes)
        yield server
