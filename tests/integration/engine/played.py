"""An engine in this process and an app that is only played: enough to run a function and look at what it was asked."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from app.adapters.http import MAX_BODY, Answer
from app.domain.event import NewEvent
from app.domain.ids import AccountId, EnvironmentId, RunId, parse_ulid
from app.domain.protocol.registration import Registration, read_registration
from app.domain.scope import Scope
from app.engine.catalogue import Catalogue
from app.engine.engine import Engine, EngineSettings
from app.engine.ingest import Ingest
from app.engine.sync import checks, register
from app.store.db import Pool, open_engine_pool

PATIENCE_S = 20.0
URL = "http://app.test/api/inngest"
_HEADERS = {"x-inngest-sdk": "js:v4.24.0", "x-inngest-req-version": "2"}

Script = Callable[[dict[str, Any], str | None], Answer | Awaitable[Answer]]
"""(the steps the call brings, the targeted step or none) → the app's answer."""


def ops(*listed: dict[str, Any]) -> Answer:
    """A 206 with these ops."""
    return Answer(206, _HEADERS, json.dumps(listed).encode(), 1.0)


def result(value: object) -> Answer:
    """A 200: the function returned."""
    return Answer(200, _HEADERS, json.dumps(value).encode(), 1.0)


def ran(key: str, value: object) -> dict[str, Any]:
    """An op: the step ran inline."""
    return {"op": "StepRun", "id": key, "name": key, "data": value}


def failed(key: str) -> dict[str, Any]:
    """An op: the step failed for good."""
    return {"op": "StepFailed", "id": key, "name": key, "error": {"name": "Error", "message": "no"}}


def config(slug: str, url: str = URL, **more: Any) -> dict[str, Any]:
    """A function as SDKs register it; triggered by `{slug}/sent`."""
    runtime = {"type": "http", "url": f"{url}?fnId={slug}&stepId=step"}
    step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": 0}}
    return {"id": slug, "name": slug, "triggers": [{"event": f"{slug}/sent"}], "steps": {"step": step}} | more


def registration(*configs: dict[str, Any], app: str = "shop", url: str = URL) -> bytes:
    """The body of a registration."""
    body = {"appname": app, "url": url, "sdk": "js:v4.24.0", "framework": "", "functions": configs, "v": "0.1"}
    return json.dumps(body).encode()


def read(body: bytes) -> Registration:
    """A registration as the engine takes it."""
    return read_registration(body, checks=checks())


class _Bell:
    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self, lanes: Any = None) -> None:
        self._rung.set()

    async def wait(self, timeout: float) -> list[bytes]:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), timeout)
        self._rung.clear()
        return [b""]

    def publish(self, channel: str, message: str) -> None:
        """Nobody listens."""

    async def subscribe(self, pattern: str) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None


@dataclass
class Played:
    """See the module."""

    pool: Pool
    scope: Scope
    ingest: Ingest
    bell: _Bell
    scripts: dict[str, Script] = field(default_factory=dict)
    calls: list[tuple[UUID, dict[str, Any]]] = field(default_factory=list)
    """Run and steps of every call, in order."""

    #: Blocks of docs/invariants.sql that a test breaks on purpose.
    allowed: frozenset[str] = frozenset()

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        max_body: int = MAX_BODY,
    ) -> Answer:
        """As the app."""
        said = json.loads(body)
        target = said["ctx"]["step_id"]
        run_id = (await self.rows("select id from runs where id = $1", _uuid(said["ctx"]["run_id"])))[0]["id"]
        self.calls.append((run_id, said["steps"]))
        slug = parse_qs(urlsplit(url).query)["fnId"][0]
        answer = self.scripts[slug](said["steps"], None if target == "step" else target)
        return await answer if inspect.isawaitable(answer) else answer

    async def close(self) -> None:
        """Nothing is open."""

    async def function(self, slug: str, script: Script, **more: Any) -> None:
        """Register one function as the whole app."""
        self.scripts[slug] = script
        body = registration(config(slug, **more), app=f"app-{slug}")
        await register(self.pool, self.scope, read(body), kind="out_of_band", force=True)

    async def begin(self, slug: str) -> RunId:
        """Send the function's event and wait for the end of its run."""
        event = NewEvent(f"{slug}/sent", b'{"n":1}', 1_700_000_000_000)
        event_id = (await self.ingest.add(self.scope, [event]))[0]
        rows = await self.until("select id from runs where event_id = $1", event_id)
        return await self.ended(RunId(rows[0]["id"]))

    async def ended(self, run_id: RunId) -> RunId:
        """Wait for the end of a run."""
        await self.until("select id from runs where id = $1 and ended_at is not null", run_id)
        return run_id

    async def until(self, query: str, *values: Any) -> list[Any]:
        """Rows of a query, once there are some."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await self.rows(query, *values)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # Polling the database, bounded by the patience above.
        return found

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows of a query."""
        async with self.pool.acquire() as connection:
            found: list[Any] = await connection.fetch(query, *values)
        return found

    async def run(self, run_id: RunId) -> Any:
        """A run's row."""
        return (await self.rows("select * from runs where id = $1", run_id))[0]

    def calls_of_last(self) -> int:
        """How many calls the run has had whose call is being answered, this one included."""
        return len(self.calls_of(RunId(self.calls[-1][0])))

    def calls_of(self, run_id: RunId) -> list[dict[str, Any]]:
        """What the calls of a run said about steps."""
        return [steps for run, steps in self.calls if run == run_id]


async def tenant(pool: Pool) -> Scope:
    """A new account with one environment."""
    scope, word = Scope(AccountId(uuid4()), EnvironmentId(uuid4())), uuid4().hex[:8]
    async with pool.acquire() as connection:
        await connection.execute("insert into accounts (id, name, slug) values ($1, $2, $2)", scope.account_id, word)
        await connection.execute(
            "insert into environments (id, account_id, name, slug, kind) values ($1, $2, 'Production', $3, 'production')",
            scope.environment_id,
            scope.account_id,
            word,
        )
    return scope


@contextlib.asynccontextmanager
async def playing(database: str, kind: type[Played] = Played) -> AsyncIterator[Played]:
    """A tenant of its own with an engine that works for it."""
    pools = [await open_engine_pool(database, size=size) for size in (3, 4, 3)]
    bell = _Bell()
    ingest = Ingest(pools[0], bell.ring)
    played = kind(pools[0], await tenant(pools[0]), ingest, bell)

    async def no_keys(_environment: EnvironmentId) -> list[str]:
        return []

    settings = EngineSettings(retry_delay=timedelta(0), is_signed=False)
    engine = Engine(pools[1], pools[2], played, bell, Catalogue(pools[1], no_keys), settings)
    ingest.start()
    await engine.start()
    try:
        yield played
    finally:
        await engine.stop(1.0)
        await ingest.stop()
        for pool in pools:
            await pool.close()


def _uuid(ulid: str) -> UUID:
    found = parse_ulid(ulid)
    assert found is not None
    return found
