"""Engines on a real database, calling pretended apps: functions of a dozen lines that answer as SDKs do.

    async with staged(database) as stage:
        stage.plays("shop-pay", sequence(ran("charge", 1)), event="order/made")
        await stage.sync()
        run = await stage.ended(await stage.send("order/made", {}))

Nothing is listened to on a port: the caller of the engine is `Apps`, which finds the script of a function by its slug
and answers other addresses from `outside`. The bell is a fake that also tells the test when a run changed.
"""

import asyncio
import inspect
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from app.adapters.http import MAX_BODY, Answer, CallFailed
from app.adapters.redis import Heard
from app.domain.event import NewEvent, read_events
from app.domain.ids import AccountId, EnvironmentId, WorkerId, to_ulid
from app.domain.protocol.registration import read_registration
from app.domain.run.happenings import CancelRequested
from app.domain.scope import Scope
from app.engine.catalogue import Catalogue
from app.engine.clock import DatabaseClock
from app.engine.engine import Engine, EngineSettings
from app.engine.ingest import Ingest
from app.engine.react import React
from app.engine.sync import checks, register
from app.engine.transition import change_run
from app.store.db import Pool, open_engine_pool

#: How long a test waits for what must come.
PATIENCE_S = 20.0
URL = "http://app.test/api/inngest"
SDK = {"x-inngest-sdk": "inngest-js:v4.24.0", "x-inngest-req-version": "2", "content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as the pretended app sees it."""

    slug: str
    target: str
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int = 0

    @property
    def steps(self) -> dict[str, Any]:
        """The memos, by step id."""
        found: dict[str, Any] = self.body["steps"]
        return found

    @property
    def event(self) -> dict[str, Any]:
        """The run's first event."""
        found: dict[str, Any] = self.body["event"]
        return found

    @property
    def attempt(self) -> int:
        """Which attempt of its item this is, from 0."""
        return int(self.body["ctx"]["attempt"])


@dataclass(frozen=True, slots=True)
class Request:
    """A request to an address that is no app's, as gateway steps make them."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


Script = Callable[[Asked], Any]
Op = dict[str, Any]


def done(value: object = None, **headers: str) -> Answer:
    """The function returned."""
    return _answer(200, value, headers)


def ops(*listed: Op, **headers: str) -> Answer:
    """The app reports these ops."""
    return _answer(206, list(listed), headers)


def failed(message: str = "no", *, status: int = 500, **headers: str) -> Answer:
    """The function threw."""
    return _answer(status, {"name": "Error", "message": message, "data": None}, headers)


def _answer(status: int, value: object, headers: Mapping[str, str]) -> Answer:
    more = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, {**SDK, **more}, json.dumps(value).encode(), 1.0)


def op(code: str, step: str, **more: Any) -> Op:
    """Any op; keywords are its keys."""
    return {"op": code, "id": step, "displayName": step, **more}


def ran(step: str, value: object = None) -> Op:
    """A step with its result."""
    return op("StepRun", step, data=value)


def planned(step: str) -> Op:
    """A step that wants a call of its own."""
    return op("StepPlanned", step)


def sleeps(step: str, length: str) -> Op:
    """A sleep."""
    return op("Sleep", step, name=length, opts={})


def waits(step: str, event: str, timeout: str = "1h", expression: str | None = None) -> Op:
    """A wait for an event."""
    return op("WaitForEvent", step, name=event, opts={"timeout": timeout, "if": expression})


def waits_signal(step: str, signal: str, timeout: str = "1h", conflict: str = "fail") -> Op:
    """A wait for a signal."""
    return op("WaitForSignal", step, name=signal, opts={"signal": signal, "timeout": timeout, "conflict": conflict})


def invokes(step: str, function: str, payload: dict[str, Any] | None = None, timeout: str = "") -> Op:
    """An invoke of another function."""
    return op("InvokeFunction", step, opts={"function_id": function, "payload": payload or {}, "timeout": timeout})


def sequence(*steps: Op, returns: Callable[[dict[str, Any]], Any] = lambda memos: memos) -> Script:
    """A function whose steps come one after the other; it returns its memos, or what `returns` makes of them."""

    def script(asked: Asked) -> Answer:
        if asked.target != "step":
            return ops(*(step for step in steps if step["id"] == asked.target))
        for step in steps:
            if step["id"] not in asked.steps:
                return ops(step)
        return done(returns(asked.steps))

    return script


class Apps:
    """The caller of the engines."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.outside: Callable[[Request], Any] | None = None
        self.asked: dict[str, list[Asked]] = defaultdict(list)
        self.requests: list[Request] = []

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
        """Answer as the script of the function does."""
        query = parse_qs(urlsplit(url).query)
        if not url.startswith(URL):
            request = Request(method, url, dict(headers), body)
            self.requests.append(request)
            if self.outside is None:
                raise CallFailed("app_unreachable")
            return await _settled(self.outside(request))
        slug = query["fnId"][0]
        asked = Asked(slug, query["stepId"][0], json.loads(body), dict(headers), len(body))
        self.asked[slug].append(asked)
        return await _settled(self.scripts[slug](asked))

    async def close(self) -> None:
        """Nothing is open."""


async def _settled(value: Any) -> Answer:
    found = await value if inspect.isawaitable(value) else value
    if isinstance(found, Exception):
        raise found
    answer: Answer = found
    return answer


class Bell:
    """Wakes every engine, and tells the test that a run changed."""

    def __init__(self) -> None:
        self._rung: list[asyncio.Event] = []
        self.changed = asyncio.Event()

    def ring(self, lanes: Any = None) -> None:
        """Wake all."""
        for event in self._rung:
            event.set()

    async def wait(self, timeout: float) -> list[bytes]:
        """Until somebody rings."""
        mine = asyncio.Event()
        self._rung.append(mine)
        try:
            await asyncio.wait_for(mine.wait(), timeout)
        except TimeoutError:
            pass
        finally:
            self._rung.remove(mine)
        return []

    def publish(self, channel: str, message: str) -> None:
        """A run changed."""
        self.changed.set()

    async def subscribe(self, pattern: str) -> AsyncIterator[Heard]:
        """Nothing is ever heard: hints may be lost (rule 17)."""
        await asyncio.Event().wait()
        yield Heard("", None)


@dataclass
class Stage:
    """A tenant, its functions, and the engines that drive them."""

    pool: Pool
    scope: Scope
    apps: Apps
    bell: Bell
    ingest: Ingest
    settings: EngineSettings
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    engines: list[Engine] = field(default_factory=list)
    clock: DatabaseClock = field(default_factory=DatabaseClock)
    catalogue: Catalogue = field(init=False)

    def __post_init__(self) -> None:
        self.catalogue = Catalogue(self.pool, _no_keys)

    def plays(self, slug: str, script: Script, event: str | None = None, retries: int = 0, **config: Any) -> None:
        """A function, started by `event` or only invoked; keywords are settings of protocol 8. Call `sync` after the last."""
        self.apps.scripts[slug] = script
        self.configs[slug] = {
            "id": slug,
            "name": slug,
            "triggers": [{"event": event}] if event else [],
            "steps": {
                "step": {
                    "id": "step",
                    "name": "step",
                    "runtime": {"type": "http", "url": f"{URL}?fnId={slug}&stepId=step"},
                    "retries": {"attempts": retries},
                }
            },
            **config,
        }

    async def sync(self, app: str = "shop", sdk: str = "js:v4.24.0") -> None:
        """Register what `plays` was told."""
        body = {"url": URL, "deployType": "ping", "sdk": sdk, "appName": app, "framework": "test", "v": "0.1"}
        registration = read_registration(
            json.dumps({**body, "functions": list(self.configs.values())}).encode(), checks=checks()
        )
        await register(self.pool, self.scope, registration, kind="out_of_band")

    async def start(self, count: int = 1) -> None:
        """Start engines."""
        for _ in range(count):
            engine = Engine(self.pool, self.pool, self.apps, self.bell, Catalogue(self.pool, _no_keys), self.settings)
            self.engines.append(engine)
            await engine.start()

    async def make_runs(self) -> None:
        """React to what lies in the inbox without an engine: runs are made, nothing is called."""

        async def never(_run_id: Any, _happening: Any) -> None:
            raise AssertionError("nothing waits here")

        react = React(self.pool, self.catalogue, self.clock, WorkerId(uuid4()), never)
        while (await react.round(0)).events:
            pass

    async def send(self, name: str, data: dict[str, Any] | None = None, **more: Any) -> UUID:
        """Store an event; its internal id."""
        return (await self.send_all([{"name": name, "data": data or {}, **more}]))[0]

    async def send_all(self, events: list[dict[str, Any]]) -> list[UUID]:
        """Store the events of one request."""
        read: list[NewEvent] = read_events(
            json.dumps(events).encode(), max_event_bytes=3_000_000, received_ms=time.time_ns() // 1_000_000
        )
        return await self.ingest.add(self.scope, read)

    async def runs(self, event_id: UUID | None = None, function: str | None = None) -> list[Any]:
        """Rows of runs, by their event or their function."""
        rows: list[Any] = await self.pool.fetch(
            "select r.*, f.slug, (select h.detail from history h where h.run_id = r.id and h.kind = 'run.' || r.status"
            " order by h.version desc limit 1) as detail from runs r join functions f on f.id = r.function_id"
            " where r.environment_id = $1 and ($2::uuid is null or r.event_id = $2) and ($3::text is null or f.slug = $3)"
            " order by r.queued_at, r.id",
            self.scope.environment_id,
            event_id,
            function,
        )
        return rows

    async def until(self, reached: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again after every change of a run until the answer is true; what it was."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.bell.changed.clear()
            found = await reached()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not reached: {await self._picture()}")
            try:
                await asyncio.wait_for(self.bell.changed.wait(), 0.1)
            except TimeoutError:
                continue

    async def ended(self, event_id: UUID | None = None, function: str | None = None, count: int = 1) -> Any:
        """The run of an event (or of a function) once it has ended; the first of them when several are waited for."""

        async def all_ended() -> Any:
            rows = await self.runs(event_id, function)
            return rows if len(rows) >= count and all(row["ended_at"] for row in rows) else None

        rows = await self.until(all_ended)
        return rows[0]

    async def waiting(self, event_id: UUID) -> Any:
        """The run of an event once it waits for something."""

        async def is_waiting() -> Any:
            rows = await self.runs(event_id)
            if not rows:
                return None
            open_waits = await self.pool.fetchval(
                "select count(*) from pauses where run_id = $1 and kind <> 'cancel'", rows[0]["id"]
            )
            return rows[0] if open_waits else None

        return await self.until(is_waiting)

    async def cancel(self, run_id: Any, cause: str = "api") -> None:
        """Cancel a run as the API does."""
        await change_run(self.pool, run_id, CancelRequested(cause), clock=self.clock, scope=self.scope)
        self.bell.ring()
        self.bell.changed.set()

    async def memo(self, run: Any, step: str) -> Any:
        """The stored memo of a step, decoded."""
        text = await self.pool.fetchval("select memo from steps where run_id = $1 and step_key = $2", run["id"], step)
        return None if text is None else json.loads(text)

    async def events(self, name: str) -> list[dict[str, Any]]:
        """Stored events of a name, as apps would get them."""
        rows = await self.pool.fetch(
            "select payload from events where environment_id = $1 and name = $2 order by received_at, id",
            self.scope.environment_id,
            name,
        )
        return [json.loads(row["payload"]) for row in rows]

    async def left_over(self) -> dict[str, int]:
        """Rows that an environment without open runs must not have."""
        return {
            table: count
            for table in ("items", "pauses", "slots", "gateway_calls")
            if (
                count := await self.pool.fetchval(
                    f"select count(*) from {table} where environment_id = $1", self.scope.environment_id
                )
            )
        }

    async def _picture(self) -> dict[str, Any]:
        """What a failing test wants to know."""
        return {
            "runs": [(row["slug"], row["status"], row["error_message"]) for row in await self.runs()],
            "items": [dict(row) for row in await self.pool.fetch("select kind, key, attempt, due_at from items")],
            "pauses": [dict(row) for row in await self.pool.fetch("select kind, step_key, event_name from pauses")],
            "calls": {slug: len(calls) for slug, calls in self.apps.asked.items()},
        }


def output(run: Any) -> Any:
    """What a run returned, or its error object."""
    detail = json.loads(run["detail"] or "{}")
    return detail.get("output", detail.get("error"))


def run_text(run: Any) -> str:
    """The run's id as apps see it."""
    return to_ulid(run["id"])


async def new_scope(pool: Pool, plan: str = "self_hosted") -> Scope:
    """An account of its own with one environment."""
    scope = Scope(AccountId(uuid4()), EnvironmentId(uuid4()))
    await pool.execute(
        "insert into accounts (id, name, slug, plan) values ($1, 'Shop', $2, $3)",
        scope.account_id,
        str(scope.account_id),
        plan,
    )
    await pool.execute(
        "insert into environments (id, account_id, name, slug, kind) values ($1, $2, 'production', 'production', 'production')",
        scope.environment_id,
        scope.account_id,
    )
    return scope


async def _no_keys(_environment: EnvironmentId) -> list[str]:
    return []


@asynccontextmanager
async def staged(database: str, *, plan: str = "self_hosted", **settings: Any) -> AsyncIterator[Stage]:
    """A stage with no engine yet; retries come after 10 ms."""
    pool = await open_engine_pool(database, size=8)
    bell = Bell()
    ingest = Ingest(pool, bell.ring)
    ingest.start()
    stage = Stage(
        pool,
        await new_scope(pool, plan),
        Apps(),
        bell,
        ingest,
        EngineSettings(**{"is_signed": False, "retry_delay": timedelta(milliseconds=10), **settings}),
    )
    try:
        yield stage
    finally:
        for engine in stage.engines:
            await engine.stop(grace_s=1.0)
        await ingest.stop()
        await pool.close()
