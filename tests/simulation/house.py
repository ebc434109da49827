"""One history: a house of workers, web process, apps and people, played from a plan until nothing is left to do.

The engine is the real one, keepers and all (app/engine/engine.py); so are ingest, checkpoints and signals. Pretended are
the database (store.py, connection.py, sql/), the apps (apps.py), the clock and the network.
"""

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock
from uuid import UUID

import asyncpg

from app.domain.errors import Outside
from app.domain.event import NewEvent
from app.domain.ids import AccountId, AppId, EnvironmentId, RunId, millis, to_ulid
from app.domain.protocol.function_config import FunctionConfig, read_stored
from app.domain.run.happenings import CancelRequested
from app.domain.scope import Scope
from app.engine import apply as apply_module
from app.engine import (
    catalogue,
    changes,
    engine,
    execute,
    gateway,
    ingest,
    pause_points,
    queue,
    react,
    schedule,
    transition,
)
from app.engine import clock as clock_module
from app.engine import sync as sync_module
from app.engine.breaker import Breaker
from app.engine.catalogue import Catalogue
from app.engine.changes import Changes
from app.engine.clock import DatabaseClock
from app.engine.engine import Engine, EngineSettings
from app.engine.ingest import Ingest
from app.engine.pause import pause_function, resume_function
from app.engine.signals import deliver
from app.engine.sync import function_id_of
from app.engine.transition import ItemMoved, RunEnded, RunUnknown, change_run
from app.store.db import CONNECTION_LOST
from app.store.named import fetch, named
from tests.simulation import sql
from tests.simulation.apps import Dispatch, Gateway, HouseApp, app_for
from tests.simulation.connection import Lost, Pool, Server
from tests.simulation.laws import Breach, Laws
from tests.simulation.loop import ACTOR, Actor, SimulatedLoop, Stuck
from tests.simulation.plan import BUSY_S, Deed, Fault, FunctionPlan, Plan, Send
from tests.simulation.store import EPOCH, Store, Transaction

#: How long, in virtual seconds, a house may take to come to rest once nothing breaks any more.
REST_S = 90.0
_WORKERS = 2
_LEASE_S, _RENEW_S, _FORGOTTEN_S = 2.0, 0.5, 3.0
#: Retention and tidying never come in a history.
_NO_HOUSE_S = 1e6
_LONGEST_HOLD_S = 1.0
_RETRY = timedelta(milliseconds=200)
_PATIENCE_S = 1.5
_URL = "http://app.test/api/inngest"
_TIMED = (catalogue, clock_module, engine, execute, gateway, ingest, react)
_DRAWING = (apply_module, changes, engine, queue, schedule, transition)
#: What the engine says of crashes and freezes that were meant.
_OURS = ("lost all leases", "a call took its worker down too often")
_EXPECTED = (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError, TimeoutError, Outside)
_SCOPE = Scope(AccountId(UUID(int=1)), EnvironmentId(UUID(int=2)))
_APP = AppId(UUID(int=3))


class _Bell:
    """The door bell, which loses a ring now and then (rule 17)."""

    def __init__(self, house: "House") -> None:
        self._house = house
        self._waiting: list[tuple[asyncio.Event, list[bytes]]] = []
        self._listening: list[asyncio.Queue[Any]] = []

    def ring(self, lanes: Any = None) -> None:
        if self._house.rng.random() < 0.15:
            self._house.server.seen["ring lost"] += 1
            return
        for event, told in self._waiting:
            told.extend(lanes or ())
            event.set()

    async def wait(self, timeout: float) -> list[bytes]:
        event: asyncio.Event = asyncio.Event()
        mine: tuple[asyncio.Event, list[bytes]] = (event, [])
        self._waiting.append(mine)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await event.wait()
        self._waiting.remove(mine)
        return mine[1]

    def publish(self, channel: str, message: str) -> None:
        for listener in self._listening:
            listener.put_nowait(SimpleNamespace(channel=channel, message=message))

    async def subscribe(self, _pattern: str) -> AsyncIterator[Any]:
        listener: asyncio.Queue[Any] = asyncio.Queue()
        self._listening.append(listener)
        while True:
            yield await listener.get()


@dataclass
class _Web:
    """A web process."""

    actor: Actor
    ingest: Ingest
    changes: Changes
    clock: DatabaseClock


class House:
    """One history; `play` it once. `planted` names faults built into the model of the store."""

    def __init__(self, plan: Plan, planted: frozenset[str] = frozenset(), *, is_told: bool = False) -> None:
        self.plan, self.rng = plan, Random(plan.seed)
        self.loop = SimulatedLoop()  # type: ignore[abstract]
        self.laws = Laws(self)
        self.store = Store(self.loop.time, self._watched)
        self.server = Server(self.store, self.loop, Random(plan.seed + 1), self.uuid, sql.find, planted)
        self.pool = Pool(self.server)
        self.scope = _SCOPE
        self.outside = Actor("outside")
        self.bell = _Bell(self)
        self.apps: dict[RunId, HouseApp] = {}
        self.function_ids = [function_id_of(_SCOPE, f.slug) for f in plan.functions]
        self.acknowledged: list[UUID] = []
        self.unreachable = (*CONNECTION_LOST, Lost, asyncpg.PostgresError, Outside)
        self.workers: list[tuple[Actor, Engine] | None] = [None] * _WORKERS
        self.armed: list[Fault] = []
        self.complaints: list[str] = []
        self.left_to_do = 0
        self.lines: list[str] | None = [] if is_told else None
        self.web: _Web = cast("_Web", None)

    # ---- what the engine draws

    def uuid(self) -> UUID:
        """What `uuid4` answers in this house."""
        return UUID(int=self.rng.getrandbits(128), version=4)

    def latency(self) -> float:
        """Seconds an app or a client takes."""
        if self.plan.is_slow and not self.server.is_calm:
            return self.rng.uniform(0.05, 1.0)
        return (
            self.rng.uniform(0.001, 0.02) if self.server.is_calm or self.rng.random() < 0.9 else self.rng.uniform(0, 1)
        )

    @staticmethod
    def ulid(value: UUID) -> str:
        """An id as events name it."""
        return to_ulid(value)

    def app_of(self, hot: Any) -> HouseApp:
        """The app of a run."""
        run_id = hot.run.id
        if run_id not in self.apps:
            of = next(
                f for f, key in zip(self.plan.functions, self.function_ids, strict=True) if key == hot.run.function_id
            )
            self.apps[run_id] = app_for(of.program, of.style, f"{self.plan.seed} {run_id}")
        return self.apps[run_id]

    # ---- playing

    def play(self) -> None:
        """Live the history; raises `Breach`."""
        with self._pretending():
            self._furnish()
            self.loop.start(self.outside, self._live())
            try:
                self.loop.run(self._is_at_rest, BUSY_S + REST_S)
            except Stuck as stuck:
                self._hear_complaints()
                self.laws.must(False, f"law 2: {stuck}: {self._left()}")
            if not self.laws.breaches:
                self.laws.after_all()
            self._hear_complaints()
            self.loop.bury()
        if self.laws.breaches:
            raise Breach(self.laws.breaches[0])

    def _watched(self, t: Transaction, changes: Any) -> None:
        if self.lines is not None:
            self.lines += told(self.store, t, changes)
        self.laws.watch(t, changes)

    def _is_at_rest(self) -> bool:
        if self.laws.breaches:
            return True
        if self.loop.now < BUSY_S or self.left_to_do or self.store.table("inbox") or self.store.table("items"):
            return False
        if any(g["due_at"] is not None for g in self.store.table("gates").values()):
            return False
        return all(run["ended_at"] is not None for run in self.store.table("runs").values())

    def _left(self) -> str:
        runs = [
            (str(k)[-6:], r["status"], r["version"]) for k, r in self.store.table("runs").items() if not r["ended_at"]
        ]
        items = [
            (i["key"], i["fence"], str(i["due_at"] - EPOCH), bool(i["lease_id"]))
            for i in self.store.table("items").values()
        ]
        return f"runs {runs} items {items} inbox {len(self.store.table('inbox'))} to do {self.left_to_do}"

    def _hear_complaints(self) -> None:
        for told in self.complaints:
            self.laws.must(False, f"the engine met what it does not expect: {told}")
        for context in self.loop.complaints:
            error = context.get("exception")
            if not isinstance(error, (*_EXPECTED, asyncio.CancelledError)):
                self.laws.must(False, f"an exception nobody heard: {error!r}")
        for task in self.loop.tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                is_known = isinstance(error, (*_EXPECTED, RunEnded, RunUnknown, ItemMoved))
                self.laws.must(is_known, f"a task ended by {error!r}")

    # ---- the rooms

    def _furnish(self) -> None:
        environment = {"name": "Production", "slug": "production", "plan": "self_hosted", "catalogue_version": 1}
        t = Transaction(self.store)
        t.put("environments", _SCOPE.environment_id, environment)
        t.commit()

    async def _live(self) -> None:
        self._open_web()
        await self._sync(self.plan.functions)
        for number in range(_WORKERS):
            self._hire(number)
        self.left_to_do = len(self.plan.sends) + len(self.plan.deeds)
        for send in self.plan.sends:
            self.loop.start(self.outside, self._send(send))
        for deed in self.plan.deeds:
            self.loop.start(self.outside, self._do(deed))
        for fault in self.plan.faults:
            self.loop.start(self.outside, self._break(fault))
        await asyncio.sleep(BUSY_S)
        self.server.is_calm = True
        self.armed.clear()

    def _clock(self) -> DatabaseClock:
        clock = DatabaseClock()
        clock.saw(self.store.now())
        return clock

    def _open_web(self) -> None:
        actor = Actor("web")
        clock = self._clock()
        self.web = _Web(
            actor, Ingest(self.pool, self.bell.ring), Changes(self.pool, clock, _RETRY, self.loop.time), clock
        )
        self.loop.start(actor, _start(self.web.ingest, self.web.changes))

    def _hire(self, number: int) -> None:
        actor = Actor(f"worker {number}")
        name = f"worker-{number}" if self.rng.random() < 0.5 else ""
        settings = EngineSettings(
            name=name,
            lease_s=_LEASE_S,
            renew_s=_RENEW_S,
            max_calls=8,
            is_signed=False,
            retry_delay=_RETRY,
            forgotten_s=_FORGOTTEN_S,
            housekeeping_s=_NO_HOUSE_S,
        )

        async def no_keys(_environment: EnvironmentId) -> list[str]:
            return []

        views = Catalogue(self.pool, no_keys)
        sealer = cast("Any", SimpleNamespace(seal=lambda text, _scope: text.encode()))
        worker = Engine(
            self.pool,
            self.pool,
            cast("Any", None),
            self.bell,
            views,
            settings,
            sealer,
            self._clock(),
            cast("Any", self.uuid()),
        )
        worker.execute.dispatch = cast("Any", Dispatch(self))
        worker.execute.breaker = Breaker(longest_s=_LONGEST_HOLD_S, now=self.loop.time, chance=self.rng.random)
        worker.execute.gateway = cast("Any", Gateway(self))
        self.workers[number] = (actor, worker)
        self.loop.start(actor, worker.start())

    # ---- people

    async def _send(self, send: Send) -> None:
        await asyncio.sleep(send.at)
        seed = f"{millis(self.store.now())},{base64.b64encode(self.rng.randbytes(10)).decode()}"
        event = NewEvent(send.name, json.dumps({"k": send.key}).encode(), millis(self.store.now()), send.client_id)
        while True:
            try:
                adding = self.web.ingest.add(self.scope, [event], seed=seed, body=b"body")
                self.acknowledged += await asyncio.wait_for(adding, _PATIENCE_S)
                break
            except (*self.unreachable, TimeoutError):
                self.server.seen["event sent again"] += 1
                await asyncio.sleep(0.2)
        self.left_to_do -= 1

    def perhaps_answer_wait(self) -> None:
        """Somebody does at once what a run is about to wait for."""
        if not self.server.is_calm and self.rng.random() < 0.3:
            self.left_to_do += 1
            self.loop.start(self.outside, self._send(Send(self.rng.uniform(0, 0.02), "x", "a")))

    async def _do(self, deed: Deed) -> None:
        await asyncio.sleep(deed.at)
        while True:
            try:
                await self._try(deed)
                break
            except (*self.unreachable, TimeoutError):
                await asyncio.sleep(0.2)
        self.left_to_do -= 1

    async def _try(self, deed: Deed) -> None:
        runs = [key for key, run in self.store.table("runs").items() if run["ended_at"] is None]
        match deed.kind:
            case "cancel" if runs:
                run_id = runs[int(deed.pick * len(runs))]
                with contextlib.suppress(RunEnded, RunUnknown):
                    cancel = CancelRequested("api")
                    await change_run(
                        self.pool, run_id, cancel, clock=self.web.clock, retry_delay=_RETRY, scope=self.scope
                    )
                    self.server.seen["cancelled"] += 1
                self.laws.must(self.store.table("runs")[run_id]["ended_at"] is not None, "a cancelled run goes on")
            case "signal":
                found = await deliver(self.pool, self.web.clock, self.scope, "s", b"1", b'"s"')
                self.server.seen["signal delivered" if found else "signal nobody waited for"] += 1
            case "sync":
                one = self.plan.functions[0]
                gates = {k: v for k, v in one.settings.items() if k not in ("concurrency", "throttle", "priority")}
                self.server.seen["settings changed in mid-run"] += bool(runs)
                await self._sync((FunctionPlan(one.slug, gates | deed.settings, one.program, one.style, one.retries),))
            case "pause":
                await pause_function(self.pool, self.scope, self.function_ids[0], cancel_after=None)
                await asyncio.sleep(1.2)
                await resume_function(self.pool, self.scope, self.function_ids[0])
            case _:
                pass

    async def _sync(self, functions: tuple[FunctionPlan, ...]) -> None:
        """As `engine/sync.py` does."""
        configs = [_config(f) for f in functions]
        while True:
            try:
                async with self.pool.acquire() as connection, connection.transaction():
                    await fetch(connection, named("sync", "hold_environment"), environment=_SCOPE.environment_id)
                    await sync_module._put_functions(connection, _SCOPE, _APP, configs)
                    await sync_module._put_flow(connection, _SCOPE, configs)
                    await fetch(connection, named("functions", "raise_version"), environment=_SCOPE.environment_id)
                return
            except self.unreachable:
                await asyncio.sleep(0.1)

    def singleton_place(self, t: Transaction, run: Any) -> Any:
        """The place of a run among singletons, or none."""
        if run["function_id"] != self.function_ids[0]:
            return None
        rule = self.plan.functions[0].settings.get("singleton")
        if rule is None:
            return None
        event = t.get("events", (run["environment_id"], run["event_id"], run["event_received_at"]))
        assert event is not None
        return json.loads(event["payload"])["data"]["k"] if "key" in rule else ""

    # ---- faults

    async def _break(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        if fault.kind == "web crash":
            self.server.seen["web crash"] += 1
            self._kill(self.web.actor)
            self._open_web()
        elif fault.kind == "cut":
            mine = self.workers[fault.whom]
            if mine is not None:
                self.server.cuts[mine[0]] = self.loop.now + fault.length
        elif fault.point == "any":
            self._strike(fault)
        else:
            self.armed.append(fault)

    async def _reached(self, name: str, _ids: Any = ()) -> None:
        """The listener of the engine's pause points."""
        actor = ACTOR.get()
        for fault in self.armed:
            mine = self.workers[fault.whom]
            if fault.point == name and mine is not None and mine[0] is actor:
                self.armed.remove(fault)
                self._strike(fault)
                await asyncio.sleep(0)
                return

    def statement_sent(self, actor: Actor | None) -> None:
        """A worker sends a statement: perhaps its last."""
        for fault in self.armed:
            mine = self.workers[fault.whom]
            if fault.point == "statement" and mine is not None and mine[0] is actor:
                delay = self.rng.uniform(0, 0.03) * fault.nth
                self.armed.remove(fault)
                self.loop.call_later(delay, self._strike, fault)
                return

    def _strike(self, fault: Fault) -> None:
        mine = self.workers[fault.whom]
        if mine is None:
            return
        actor = mine[0]
        if self.lines is not None:
            self.lines.append(f"{self.loop.now:8.3f} {fault.kind} of {actor.name} at {fault.point}")
        self.server.seen[f"{fault.kind} at {fault.point}"] += 1
        if fault.kind == "freeze":
            actor.frozen_until = self.loop.now + fault.length
            return
        self._kill(actor)
        self.workers[fault.whom] = None
        self.loop.start(self.outside, self._replace(fault))

    def _kill(self, actor: Actor) -> None:
        actor.is_dead = True
        self.server.client_died(actor)

    async def _replace(self, fault: Fault) -> None:
        await asyncio.sleep(fault.length)
        self._hire(fault.whom)

    # ---- pretending

    @contextlib.contextmanager
    def _pretending(self) -> Iterator[None]:
        clock = SimpleNamespace(
            monotonic=self.loop.time,
            perf_counter=self.loop.time,
            time=lambda: EPOCH.timestamp() + self.loop.now,
            time_ns=lambda: int((EPOCH.timestamp() + self.loop.now) * 1_000_000_000),
        )
        uuids = SimpleNamespace(uuid4=self.uuid, UUID=UUID)
        heard = _Heard(self.complaints)
        log = logging.getLogger("app")
        with contextlib.ExitStack() as stack:
            for module in _TIMED:
                stack.enter_context(mock.patch.object(module, "time", clock))
            for module in _DRAWING:
                stack.enter_context(mock.patch.object(module, "uuid", uuids))
            stack.enter_context(mock.patch.object(ingest, "os", SimpleNamespace(urandom=self.rng.randbytes)))
            stack.enter_context(mock.patch.object(self.server, "sent", self.statement_sent))
            level, propagates = log.level, log.propagate
            log.addHandler(heard)
            log.setLevel(logging.ERROR)
            log.propagate = False
            pause_points.listen(self._reached)
            try:
                yield
            finally:
                pause_points.listen(None)
                log.removeHandler(heard)
                log.setLevel(level)
                log.propagate = propagates


class _Heard(logging.Handler):
    """What the engine logs as an error, unless it is the world's fault."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__()
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, _EXPECTED) or (error is None and record.msg.startswith(_OURS)):
            return
        self._complaints.append(f"{record.getMessage()}: {error!r} {record.__dict__.get('error', '')}")


async def _start(*parts: Any) -> None:
    for part in parts:
        part.start()


def _config(f: FunctionPlan) -> FunctionConfig:
    runtime = {"type": "http", "url": f"{_URL}?fnId={f.slug}&stepId=step"}
    step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": f.retries}}
    trigger = "go" if f.slug == "house-one" else "never"
    body = {"id": f.slug, "name": f.slug, "triggers": [{"event": trigger}], "steps": {"step": step}} | f.settings
    return read_stored(json.dumps(body).encode())


def told(store: Store, t: Transaction, changes: Any) -> list[str]:
    """A commit for people: who changed which run how, and whose lease."""
    by = t.by.name if t.by is not None else "people"
    lines: list[str] = []
    for run_id, row in changes.get("runs", {}).items():
        kinds = [r["kind"] + (f" {r['step_key'] or r['item_key']}" if r["step_key"] or r["item_key"] else "")
                 for key, r in changes.get("history", {}).items() if key[0] == run_id]  # fmt: skip
        lines.append(f"run {str(run_id)[-4:]} v{row['version']} {row['status']}: {', '.join(kinds)}")
    for key, row in changes.get("items", {}).items():
        old = store.table("items").get(key)
        was = "new" if old is None else f"fence {old['fence']}{' leased' if old['lease_id'] else ''}"
        now = "gone" if row is None else f"fence {row['fence']}{' leased' if row['lease_id'] else ''}"
        of = row or old or {}
        lines.append(f"item {str(of.get('run_id'))[-4:]} {of.get('key')}: {was} -> {now}")
    lines += [f"event {row['name']}" for row in changes.get("events", {}).values()]
    return [f"{store.time():8.3f} {by:10} {line}" for line in lines]
