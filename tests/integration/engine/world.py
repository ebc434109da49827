"""A small world around real engines: two tenants in a real database, pretended apps, doors that tests hold shut.

    world.function("order", answer)   an app's function; `answer(call)` says what the app answers to each call
    world.engine()                    a worker in this process, with a bell that rings only here
    world.send("order/made", {…})     through the real ingest
    world.stop_at("commit.before")    the next one to come there waits until it is let go
    world.ended(run)                  waits for the news of a commit, never by the clock

Nothing here knows how the engine decides; it only plays the outside: apps, senders, the network, a dying database.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import asyncpg

from app.adapters.http import MAX_BODY, Answer, CallFailed
from app.adapters.redis import RUN_CHANGED
from app.domain.event import NewEvent
from app.domain.ids import AccountId, EnvironmentId, ItemId, RunId, derive_item_id, parse_ulid, to_ulid
from app.domain.protocol.opcodes import read_ops
from app.domain.protocol.registration import read_registration
from app.domain.run.happenings import CancelRequested, Checkpointed, Resumed
from app.domain.scope import Scope
from app.engine import pause_points
from app.engine.apply import Entry
from app.engine.catalogue import Catalogue
from app.engine.clock import DatabaseClock
from app.engine.engine import Engine, EngineSettings
from app.engine.ingest import Ingest
from app.engine.sync import checks, function_id_of, register
from app.engine.transition import change_run
from app.store.db import Pool, open_engine_pool
from tests.invariants import violations

#: No step of a test takes longer on a loaded machine; reaching it is a failure, never a pace.
PATIENCE_S = 20.0
URL = "http://app.test/api/inngest"
_HOT = [
    "events",
    "inbox",
    "ingest_seeds",
    "dedupe",
    "dispositions",
    "runs",
    "run_events",
    "repairs",
    "steps",
    "history",
    "items",
    "pauses",
    "slots",
    "lanes",
    "flow_keys",
    "flow_limits",
    "gates",
    "schedules",
    "schedule_answers",
    "workers",
    "overrides",
    "functions",
    "function_versions",
    "apps",
    "syncs",
    "environments",
    "accounts",
]


@dataclass
class Call:
    """One call as an app sees it."""

    slug: str
    run_id: RunId
    target: str | None
    attempt: int
    fence: int
    item_id: ItemId
    steps: dict[str, Any]
    number: int
    """How many calls this app has had before, of all functions."""
    body: dict[str, Any]

    @property
    def done(self) -> set[str]:
        """The steps whose outcome the call brings."""
        return set(self.steps)


Script = Callable[[Call], Answer | Awaitable[Answer]]


def ops(*listed: dict[str, Any], version: int = 2, headers: dict[str, str] | None = None) -> Answer:
    """A 206 with these ops."""
    head = {"x-inngest-sdk": "js:v4.24.0", "x-inngest-req-version": str(version), **(headers or {})}
    return Answer(206, head, json.dumps(listed).encode(), 1.0)


def result(value: object = "done") -> Answer:
    """A 200: the function returned."""
    return Answer(200, {"x-inngest-sdk": "js:v4.24.0"}, json.dumps(value).encode(), 1.0)


def failure(message: str = "no", **headers: str) -> Answer:
    """A 500: the function threw."""
    body = json.dumps({"name": "Error", "message": message}).encode()
    return Answer(500, {"x-inngest-sdk": "js:v4.24.0", **headers}, body, 1.0)


def ran(key: str, value: object = 1) -> dict[str, Any]:
    """An op: a step ran inline."""
    return {"op": "StepRun", "id": key, "name": key, "data": value}


def planned(key: str, **opts: object) -> dict[str, Any]:
    """An op: a step to be called by itself."""
    return {"op": "StepPlanned", "id": key, "name": key, "opts": opts}


def sleeps(key: str, time: str = "1h") -> dict[str, Any]:
    """An op: a sleep."""
    return {"op": "Sleep", "id": key, "name": time, "displayName": key}


def waits(key: str, event: str, *, timeout: str = "1h", when: str | None = None) -> dict[str, Any]:
    """An op: a wait for an event."""
    opts = {"event": event, "timeout": timeout} | ({"if": when} if when is not None else {})
    return {"op": "WaitForEvent", "id": key, "name": event, "displayName": key, "opts": opts}


def signals(key: str, name: str, *, conflict: str = "fail") -> dict[str, Any]:
    """An op: a wait for a signal."""
    opts = {"signal": name, "timeout": "1h", "conflict": conflict}
    return {"op": "WaitForSignal", "id": key, "name": name, "displayName": key, "opts": opts}


def invokes(key: str, function: str, **payload: object) -> dict[str, Any]:
    """An op: another function is called."""
    opts = {"function_id": function, "payload": payload, "timeout": "1h"}
    return {"op": "InvokeFunction", "id": key, "name": key, "displayName": key, "opts": opts}


def in_turn(*names: str, last: object = "done") -> Script:
    """A function of steps in a row that all run inline."""

    def answer(call: Call) -> Answer:
        for name in names:
            if name not in call.steps:
                return ops(ran(name))
        return result(last)

    return answer


class Apps:
    """All apps of the world as one `Caller`: counts calls, and how many are in flight at once."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.calls: list[Call] = []
        self.at_once: dict[str, int] = {}
        self.most_at_once: dict[str, int] = {}

    async def call(
        self, method: str, url: str, *, headers: Any, body: bytes, timeout_s: float, max_body: int = MAX_BODY
    ) -> Answer:
        slug = parse_qs(urlsplit(url).query)["fnId"][0]
        said = json.loads(body)
        context = said["ctx"]
        target = context["step_id"]
        run_id = parse_ulid(context["run_id"])
        assert run_id is not None
        call = Call(
            slug, RunId(run_id), None if target == "step" else target, context["attempt"],
            context.get("generation_id", 0), ItemId(UUID(context["qi_id"])), said["steps"], len(self.calls), said,
        )  # fmt: skip
        self.calls.append(call)
        self.at_once[slug] = self.at_once.get(slug, 0) + 1
        self.most_at_once[slug] = max(self.most_at_once.get(slug, 0), self.at_once[slug])
        try:
            answer = self.scripts[slug](call)
            if not isinstance(answer, Answer):
                answer = await answer
            return answer
        finally:
            self.at_once[slug] -= 1

    async def close(self) -> None:
        """Nothing is open."""

    def of(self, run_id: RunId) -> list[Call]:
        """The calls of one run, in order."""
        return [call for call in self.calls if call.run_id == run_id]


class LocalBell:
    """The door bell without Redis: wakes the engines of this process, and tells tests that a run changed."""

    def __init__(self, *, is_deaf: bool = False) -> None:
        """`is_deaf`: every hint is lost, as with Redis gone."""
        self.is_deaf = is_deaf
        self._waiters: set[asyncio.Event] = set()
        self._listeners: set[asyncio.Queue[tuple[str, str]]] = set()
        self.changed = asyncio.Event()

    def ring(self, lanes: Any = None) -> None:
        if not self.is_deaf:
            for waiter in self._waiters:
                waiter.set()

    async def wait(self, timeout: float) -> list[bytes]:
        rung = asyncio.Event()
        self._waiters.add(rung)
        try:
            async with asyncio.timeout(timeout):
                await rung.wait()
        except TimeoutError:
            return []
        finally:
            self._waiters.discard(rung)
        return [b""]

    def publish(self, channel: str, message: str) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
        if not self.is_deaf:
            for listener in self._listeners:
                listener.put_nowait((channel, message))

    async def subscribe(self, pattern: str) -> AsyncIterator[Any]:
        heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._listeners.add(heard)
        try:
            while True:
                channel, message = await heard.get()
                yield Said(channel, message)
        finally:
            self._listeners.discard(heard)


@dataclass(frozen=True)
class Said:
    """A message of the bell, as `app.adapters.redis.Heard` has it."""

    channel: str
    message: Any


@dataclass
class Stop:
    """A pause point held shut. Whoever comes first waits there; `go` lets it on, or makes it fail with an exception."""

    name: str
    run_id: UUID | None
    place: int
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    ids: Sequence[Any] = ()
    _go: asyncio.Event = field(default_factory=asyncio.Event)
    _error: BaseException | None = None
    _seen: int = 0

    async def reached(self) -> Sequence[Any]:
        """Wait until somebody stands here; gives the ids it came with."""
        async with asyncio.timeout(PATIENCE_S):
            await self.arrived.wait()
        return self.ids

    def go(self, error: BaseException | None = None) -> None:
        """Let it on."""
        self._error = error
        self._go.set()

    def takes(self, name: str, ids: Sequence[Any]) -> bool:
        """Whether this one stops here."""
        if name != self.name or self.arrived.is_set() or (self.run_id is not None and self.run_id not in ids):
            return False
        self._seen += 1
        return self._seen >= self.place

    async def hold(self, ids: Sequence[Any]) -> None:
        """Stand until let go."""
        self.ids = ids
        self.arrived.set()
        await self._go.wait()
        if self._error is not None:
            raise self._error


class Gate:
    """An answer that comes when the test says so: `script=gate` holds every call of a function."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[tuple[Call, asyncio.Future[Answer]]] = asyncio.Queue()

    async def __call__(self, call: Call) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._calls.put_nowait((call, answer))
        return await answer

    async def next(self) -> tuple[Call, "asyncio.Future[Answer]"]:
        """The next call, and where its answer goes (`set_result`)."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._calls.get()

    @property
    def waiting(self) -> int:
        """Calls that arrived and were not taken by `next`."""
        return self._calls.qsize()


@dataclass
class World:
    """See the module."""

    url: str
    pool: Pool
    owner: Any
    mine: Scope
    theirs: Scope
    apps: Apps = field(default_factory=Apps)
    bell: LocalBell = field(default_factory=LocalBell)
    stops: list[Stop] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    ingest: Ingest = field(init=False)
    clock: DatabaseClock = field(default_factory=DatabaseClock)
    _configs: dict[UUID, list[dict[str, Any]]] = field(default_factory=dict)
    #: Blocks of docs/invariants.sql that a test breaks on purpose.
    allowed: set[str] = field(default_factory=set)

    # ---- what apps are

    async def function(
        self,
        slug: str,
        script: Script,
        *,
        event: str | None = None,
        scope: Scope | None = None,
        retries: int = 3,
        **more: Any,
    ) -> None:
        """Register a function beside those the tenant has; it is triggered by `event`, by default `{slug}/sent`."""
        scope = scope or self.mine
        self.apps.scripts[slug] = script
        configs = self._configs.setdefault(scope.environment_id, [])
        configs[:] = [c for c in configs if c["id"] != slug]
        configs.append({
            "id": slug, "name": slug, "triggers": [{"event": event or f"{slug}/sent"}],
            "steps": {"step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": f"{URL}?fnId={slug}&stepId=step"},
                               "retries": {"attempts": retries}}},
            **more,
        })  # fmt: skip
        body = json.dumps(
            {"appname": "shop", "url": URL, "sdk": "js:v4.24.0", "framework": "", "functions": configs, "v": "0.1"}
        )
        await register(
            self.pool, scope, read_registration(body.encode(), checks=checks()), kind="out_of_band", force=True
        )

    async def engine(self, *, starts: bool = True, **settings: Any) -> Engine:
        """A worker of its own, with pools of its own."""
        pool = await open_engine_pool(self.url, size=4)
        cold = await open_engine_pool(self.url, size=3)
        self.pools += [pool, cold]
        given: dict[str, Any] = {
            "retry_delay": timedelta(0),
            "is_signed": False,
            "renew_s": 3600.0,
            "lease_s": 3600.0,
        } | settings

        async def keys(_environment: EnvironmentId) -> list[str]:
            return []

        engine = Engine(pool, cold, self.apps, self.bell, Catalogue(pool, keys), EngineSettings(**given))
        self.engines.append(engine)
        if starts:
            await engine.start()
        return engine

    async def kill(self, engine: Engine) -> None:
        """`kill -9`, as far as the database can tell: nothing is handed back, connections end, the lease runs out now."""
        self.engines.remove(engine)
        tasks = [*engine._tasks, *engine.execute._tasks, *engine.committer._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.expire(engine)

    async def expire(self, engine: Engine) -> None:
        """The worker's lease is over; it may not know."""
        await self.owner.execute("update workers set lease_until = clock() where id = $1", engine.worker_id)

    # ---- what comes in

    async def send(
        self,
        name: str,
        data: object = None,
        *,
        scope: Scope | None = None,
        client_id: str | None = None,
        seed: str | None = None,
    ) -> UUID:
        """Send one event; returns its internal id."""
        return (await self.send_many([(name, data)], scope=scope, client_id=client_id, seed=seed))[0]

    async def send_many(
        self, listed: Sequence[tuple[str, object]], *, scope: Scope | None = None, client_id: str | None = None,
        seed: str | None = None,
    ) -> list[UUID]:  # fmt: skip
        """Send several events as one request."""
        events = [
            NewEvent(name, json.dumps(data if data is not None else {}, sort_keys=True, separators=(",", ":")).encode(),
                     1_700_000_000_000, client_id=client_id)
            for name, data in listed
        ]  # fmt: skip
        return await self.ingest.add(scope or self.mine, events, seed=seed, body=repr(listed).encode())

    def function_id(self, slug: str, scope: Scope | None = None) -> UUID:
        """The id of a function."""
        return function_id_of(scope or self.mine, slug)

    async def begin(self, slug: str, data: object = None) -> RunId:
        """Send a function's event and wait until its run exists."""
        event_id = await self.send(f"{slug}/sent", data)
        return (await self.runs_of(event_id))[0]

    async def runs_of(self, event_id: UUID, count: int = 1) -> list[RunId]:
        """The runs an event started, once there are `count` of them."""
        found: list[RunId] = await self.until(
            lambda: self.column("select id from runs where event_id = $1 order by id", event_id),
            lambda ids: len(ids) >= count,
        )
        return found

    # ---- waiting and looking

    async def until(self, look: Callable[[], Awaitable[Any]], is_good: Callable[[Any], bool] = bool) -> Any:
        """What `look` sees as soon as it is good; looks again whenever something was committed."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                changed = self.bell.changed
                seen = await look()
                if is_good(seen):
                    return seen
                # Rows may also be written by a transaction that publishes nothing (react): look again soon.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await changed.wait()

    async def ended(self, run_id: RunId) -> Any:
        """The run's row once it has ended."""
        return await self.until(lambda: self.run(run_id), lambda row: row is not None and row["ended_at"] is not None)

    async def all_ended(self) -> list[Any]:
        """All runs, once every one has ended and no event is left to react to."""
        await self.until(
            lambda: self.value(
                "select not exists (select from inbox) and not exists (select from runs where ended_at is null)"
            )
        )
        return await self.rows("select * from runs order by id")

    async def quiet(self, run_id: RunId, state: str = "waiting") -> Any:
        """The run's row once it has a step in this state and nothing leased: it waits for the outside."""
        return await self.until(lambda: self.row(
            "select r.* from runs r where r.id = $1 and exists (select from steps s where s.run_id = r.id and s.state = $2)"
            " and not exists (select from items i where i.run_id = r.id and i.lease_id is not null)", run_id, state,
        ))  # fmt: skip

    async def run(self, run_id: RunId) -> Any:
        """The run's row."""
        return await self.row("select * from runs where id = $1", run_id)

    async def steps(self, run_id: RunId) -> dict[str, str]:
        """States of the run's steps by key."""
        return {
            r["step_key"]: r["state"]
            for r in await self.rows("select step_key, state from steps where run_id = $1", run_id)
        }

    async def told(self, run_id: RunId, *kinds: str) -> list[str]:
        """The journal's kinds, in order; of all kinds or of these."""
        kept = await self.column("select kind from history where run_id = $1 order by version, position", run_id)
        return [kind for kind in kept if not kinds or kind in kinds]

    async def rows(self, query: str, *values: Any) -> list[Any]:
        async with self.pool.acquire() as connection:
            found: list[Any] = await connection.fetch(query, *values)
            return found

    async def row(self, query: str, *values: Any) -> Any:
        found = await self.rows(query, *values)
        return found[0] if found else None

    async def column(self, query: str, *values: Any) -> list[Any]:
        return [row[0] for row in await self.rows(query, *values)]

    async def value(self, query: str, *values: Any) -> Any:
        return (await self.rows(query, *values))[0][0]

    # ---- what others do to a run

    async def checkpoint(self, call: Call, *listed: dict[str, Any]) -> Entry:
        """What the web process does with steps that a running call reports."""
        said = Checkpointed(_item_key(call), read_ops(list(listed), datetime.now(UTC)))
        return await change_run(
            self.pool,
            call.run_id,
            lambda _hot: said,
            clock=self.clock,
            scope=self.mine,
            item=(call.item_id, call.fence),
        )

    async def cancel(self, run_id: RunId) -> Entry:
        """What the web process does when somebody cancels."""
        entry = await change_run(self.pool, run_id, CancelRequested("api"), clock=self.clock, scope=self.mine)
        self.bell.publish(f"{RUN_CHANGED}{self.mine.environment_id}", to_ulid(run_id))
        return entry

    async def resume(self, run_id: RunId, step_key: str, memo: bytes = b'{"name":"x"}') -> Entry:
        """What react does with an event that ends a wait."""
        return await change_run(self.pool, run_id, Resumed(step_key, memo), clock=self.clock)

    @contextlib.asynccontextmanager
    async def locked(self, run_id: RunId) -> AsyncIterator[None]:
        """Somebody sits on the run's row."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                await connection.execute("select from runs where id = $1 for no key update", run_id)
                yield
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def locked_table(self, name: str) -> AsyncIterator[None]:
        """No writer of a table gets on."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                await connection.execute(f"lock table {name} in exclusive mode")
                yield
        finally:
            await connection.close()

    async def kill_connection_waiting_for_a_lock(self) -> None:
        """End the one session that waits for a lock, as a dying network would."""
        await self.until(lambda: self.owner.fetchval(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and wait_event_type = 'Lock' limit 1"
        ))  # fmt: skip

    def item_id(self, run_id: RunId, key: str) -> ItemId:
        """The id of an item of a run."""
        return derive_item_id(run_id, key)

    async def make_due(self, run_id: RunId, kind: str) -> None:
        """Time passes for the timers of one run."""
        await self.owner.execute(
            "update items set due_at = clock() where run_id = $1 and kind = $2 and lease_id is null", run_id, kind
        )
        await self.owner.execute(
            "update lanes set next_due = clock() where id = (select lane_id from runs where id = $1)", run_id
        )
        self.wake()

    def wake(self) -> None:
        """Every engine looks for work now."""
        for engine in self.engines:
            engine.wake()

    # ---- standing in the way

    def stop_at(self, name: str, run_id: UUID | None = None, *, place: int = 1) -> Stop:
        """Hold the next one (or the one at `place`) to reach a pause point, with this run if one is given."""
        stop = Stop(name, run_id, place)
        self.stops.append(stop)
        return stop

    async def _listen(self, name: str, ids: Sequence[Any]) -> None:
        for stop in self.stops:
            if stop.takes(name, ids):
                await stop.hold(ids)
                return

    async def check(self) -> None:
        """All invariants hold."""
        found = await violations(self.owner, but=frozenset(self.allowed))
        assert found == []


@contextlib.asynccontextmanager
async def new_world(url: str) -> AsyncIterator[World]:
    """A world in an emptied database; at its end the engines stop, and what must always hold is checked."""
    owner = await asyncpg.connect(url)
    await owner.execute(f"truncate {', '.join(_HOT)} cascade")
    mine, theirs = await _tenant(owner, "mine"), await _tenant(owner, "theirs")
    pool = await open_engine_pool(url, size=4)
    world = World(url, pool, owner, mine, theirs)
    world.ingest = Ingest(pool, world.bell.ring)
    world.ingest.start()
    pause_points.listen(world._listen)
    is_good = False
    try:
        yield world
        is_good = True
    finally:
        pause_points.listen(None)
        for stop in world.stops:
            stop.go()
        if is_good:
            await world.check()
        for engine in list(world.engines):
            await _end(engine)
        await world.ingest.stop()
        for one in (*world.pools, pool):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(one.close(), 3)
            one.terminate()
        await owner.close()


async def _tenant(owner: Any, word: str) -> Scope:
    scope = Scope(AccountId(uuid.uuid4()), EnvironmentId(uuid.uuid4()))
    await owner.execute("insert into accounts (id, name, slug) values ($1, $2, $2)", scope.account_id, word)
    await owner.execute(
        "insert into environments (id, account_id, name, slug, kind) values ($1, $2, $3, $3, 'production')",
        scope.environment_id, scope.account_id, word,
    )  # fmt: skip
    return scope


def _item_key(call: Call) -> str:
    """The key of a call's item; discoveries are told apart by trying."""
    if call.target is not None:
        return f"step:{call.target}"
    names = ["start", *(f"discover:{n}" for n in range(50)), *(f"discover:again:{n}" for n in range(50))]
    return next(name for name in names if derive_item_id(call.run_id, name) == call.item_id)


async def _end(engine: Engine) -> None:
    tasks = [*engine._tasks, *engine.execute._tasks, *engine.committer._tasks]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def unreachable() -> CallFailed:
    """What the caller raises when nobody answers."""
    return CallFailed("app_unreachable")
