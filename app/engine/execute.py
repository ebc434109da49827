"""Station 4, a spine: load, call, read, hand over; and go on at once while the run is hot (D5).

    leased item ─► load run ─► timer? ─► TimerDue ────────────────────────┐
                       └─────► call the app ─► reply ─► Replied ─► submit ─┴─► won: successors under our lease: again
                                                                           └─► lost: somebody else has it, forget it

One task per leased item. It gives way after a budget when others wait for room, and when the worker is told to stop:
then the successor is committed ready, for anyone. A crash anywhere loses nothing: what was committed is in the rows,
what was leased is rescued with a higher fence.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from app import telemetry
from app.adapters.answer_room import until_committed
from app.adapters.http import Answer
from app.domain.ids import EnvironmentId, ItemId, RunId, derive_item_id, to_ulid
from app.domain.protocol.reply import Failed, Finished, Ops, Reply
from app.domain.run.happenings import DeadlineDue, Happening, Poisoned, Replied, TimerDue
from app.domain.run.keys import START
from app.domain.run.state import DEADLINES, TIMERS, ItemKind, RunStatus
from app.engine import pause_points
from app.engine.apply import Told
from app.engine.breaker import Breaker, Permit
from app.engine.catalogue import Catalogue, EnvironmentView, KnownFunction
from app.engine.clock import DatabaseClock
from app.engine.dispatch import Called, Dispatch
from app.engine.gateway import Gateway
from app.engine.hot import HotRun, LeasedItem, hot_run
from app.engine.pace import Pace
from app.engine.queue import Leased
from app.engine.transition import Committer
from app.logs import about
from app.store.db import Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Calls a run may make in a row, and seconds it may keep its place, while other work waits for room.
_BUDGET_CALLS = 50
_BUDGET_S = 2.0
#: A call not sent this long after its lease was committed reads its fence again first (rule 16).
_STALE_S = 1.0
#: Of an answer that failed: octets of the body, headers, and characters of each.
_KEPT_BODY = 2048
_KEPT_HEADERS = 24
_KEPT_VALUE = 256
#: How a call ends that did not reach its app, or got no answer of it.
_SILENT = frozenset({"app_unreachable", "app_tls_failed", "app_timeout"})
#: An item that lost this many workers is set aside (F17).
_POISON = 3


@dataclass(slots=True)
class Execute:
    """The drivers of one worker."""

    pool: Pool
    committer: Committer
    dispatch: Dispatch
    catalogue: Catalogue
    clock: DatabaseClock
    gateway: Gateway
    max_calls: int
    retry_delay: timedelta | None = None
    is_stopping: bool = False
    #: Whether other due work was seen waiting for room in the last round.
    is_crowded: bool = False
    on_room: Callable[[], None] = lambda: None
    breaker: Breaker = field(default_factory=Breaker)
    pace: Pace = field(init=False)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _hot: dict[RunId, HotRun] = field(default_factory=dict)
    _users: dict[RunId, int] = field(default_factory=dict)
    #: Octets of state of each run in memory, and their sum.
    _weights: dict[RunId, int] = field(default_factory=dict)
    _octets: int = 0
    _unsent: dict[ItemId, tuple[RunId, LeasedItem]] = field(default_factory=dict)
    #: Items a driver has in hand, how often (twice never, but a rescue may bring one back while the old driver ends).
    _held: Counter[ItemId] = field(default_factory=Counter)
    _doubted: set[ItemId] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin at full pace."""
        self.pace = Pace(self.max_calls)

    @property
    def room(self) -> int:
        """How many more items this worker may hold."""
        return 0 if self.is_stopping else self.pace.room(len(self._tasks), self._octets)

    def room_beyond(self, limit: int) -> int:
        """How many items may still be held when `limit` more than the pace allows are bearable."""
        return 0 if self.is_stopping else self.pace.room(len(self._tasks), self._octets, limit)

    @property
    def environments(self) -> set[EnvironmentId]:
        """The environments of whose runs this worker holds items."""
        return {hot.facts.scope.environment_id for hot in self._hot.values()}

    @property
    def in_flight(self) -> int:
        """Items held now."""
        return len(self._tasks)

    @property
    def held(self) -> list[ItemId]:
        """The items in memory; what the rows say this worker has beyond them was forgotten."""
        return list(self._held)

    def start(self, hot: HotRun, item: LeasedItem, leased_at: float) -> None:
        """Drive an item of a run that is in memory already. `leased_at`: monotonic seconds before the lease was asked for."""
        self._spawn(hot, item, leased_at)

    async def start_leased(self, leased: list[Leased], leased_at: float) -> None:
        """Load the runs of leased items, each once, and drive them."""
        wanted = {x.run_id for x in leased}
        async with self.pool.acquire(timeout=10) as connection:
            rows = await fetch(connection, named("lease", "load"), run_ids=list(wanted), with_memos=True)
        loaded: dict[RunId, HotRun] = {}
        for row in rows:
            run_id = row["id"]
            fresh = hot_run(row, self.retry_delay)
            known = self._hot.get(run_id)
            if known is not None:
                if fresh.facts.is_limited:
                    # A limit may be younger than our copy; the lease just taken holds a slot of it, to be given back.
                    known.facts = fresh.facts
                # Another branch of the run is being driven here: share its copy, brought to the newer version.
                if fresh.run.version > known.run.version:
                    known.run, known.memos = fresh.run, fresh.memos
                loaded[run_id] = known
            else:
                loaded[run_id] = fresh
        for x in leased:
            hot = loaded.get(x.run_id)
            if hot is not None:
                self._spawn(hot, x.item, leased_at)
            else:
                log.error("leased item of an unknown run", extra={"run_id": to_ulid(x.run_id)})

    def forget_all(self) -> None:
        """The worker's leases are lost: nothing held may be written or called any more (rule 10)."""
        for task in self._tasks:
            task.cancel()
        self._hot.clear()
        self._users.clear()
        self._weights.clear()
        self._octets = 0

    def doubt(self, run_id: RunId) -> None:
        """Somebody changed this run: a call of it that is not sent yet looks at its fence first (rule 16)."""
        self._doubted.update(item_id for item_id, (of, _) in self._unsent.items() if of == run_id)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the calls in flight to end; what is not sent yet is handed back."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def give_up(self) -> None:
        """End the calls that are still in flight; their items are handed back by whoever stops the worker."""
        late = list(self._tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)

    def _spawn(self, hot: HotRun, item: LeasedItem, leased_at: float) -> None:
        run_id = hot.run.id
        self._held[item.id] += 1
        hot = self._hot.setdefault(run_id, hot)
        self._users[run_id] = self._users.get(run_id, 0) + 1
        self._weigh(hot)
        task = asyncio.create_task(self._drive(hot, item, leased_at))
        self._tasks.add(task)
        task.add_done_callback(lambda t: self._ended(t, hot))

    def _ended(self, task: "asyncio.Task[None]", hot: HotRun) -> None:
        run_id = hot.run.id
        self._tasks.discard(task)
        left = self._users.get(run_id, 1) - 1
        if left <= 0:
            self._users.pop(run_id, None)
            self._hot.pop(run_id, None)
            self._octets -= self._weights.pop(run_id, 0)
        else:
            self._users[run_id] = left
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(
                "driver failed; its item will be given back",
                exc_info=error,
                extra={"run_id": to_ulid(run_id), "environment_id": str(hot.facts.scope.environment_id)},
            )
        self.on_room()

    def _weigh(self, hot: HotRun) -> None:
        """Note what a run in memory weighs now."""
        run_id, octets = hot.run.id, hot.run.state_bytes
        if run_id in self._users:
            self._octets += octets - self._weights.get(run_id, 0)
            self._weights[run_id] = octets

    async def _drive(self, hot: HotRun, item: LeasedItem, leased_at: float) -> None:
        about(run_id=to_ulid(hot.run.id), environment_id=str(hot.facts.scope.environment_id))
        began = time.monotonic()
        calls = 0
        todo: LeasedItem | None = item
        try:
            while todo is not None:
                with until_committed():
                    happening, told, heard_at = await self._happening(hot, todo, leased_at)
                    if happening is None:
                        return
                    calls += 1
                    leased_at = time.monotonic()
                    decision = await self.committer.submit(
                        hot, happening, todo, told=told, room=self._room_for(began, calls), heard_at=heard_at
                    )
                self._weigh(hot)
                done, todo = todo, None
                if decision.is_won and decision.successors:
                    todo = decision.successors[0]
                    self._held[todo.id] += 1
                    for other in decision.successors[1:]:
                        self._spawn(hot, other, leased_at)
                self._let_go(done)
        finally:
            if todo is not None:
                self._let_go(todo)

    def _let_go(self, item: LeasedItem) -> None:
        self._held[item.id] -= 1
        if self._held[item.id] <= 0:
            del self._held[item.id]

    def _room_for(self, began: float, calls: int) -> int:
        """How many successors this driver asks for: none when stopping or over budget while others wait."""
        if self.is_stopping:
            return 0
        if self.is_crowded and (calls >= _BUDGET_CALLS or time.monotonic() - began > _BUDGET_S):
            return 0
        return 1 + self.room

    async def _happening(
        self, hot: HotRun, item: LeasedItem, leased_at: float
    ) -> tuple[Happening | None, Told | None, datetime | None]:
        """What the item brings about, and when we heard of it: a timer that came due, an app's answer; or nothing,
        because it is no longer ours.
        """
        if item.kind in DEADLINES:
            return DeadlineDue(item.key, item.kind, is_calling=await self._is_calling(hot, item)), None, None
        if item.kind in TIMERS:
            return TimerDue(item.key), None, None
        if item.redeliveries >= _POISON:
            telemetry.count("stepwell_poison_work_total")
            log.error(
                "a call took its worker down too often; its run fails",
                extra={"run_id": to_ulid(hot.run.id), "item_id": str(item.id), "code": "poison_work"},
            )
            return Poisoned(item.key), None, None
        self._unsent[item.id] = (hot.run.id, item)
        try:
            await pause_points.reached("call.before", [hot.run.id])
            view = await self.catalogue.view(hot.facts.scope)
            is_doubtful = item.id in self._doubted or time.monotonic() - leased_at > _STALE_S
            if is_doubtful and not await self._still_ours(item):
                return None, None, None
        finally:
            self._unsent.pop(item.id, None)
            self._doubted.discard(item.id)
        if hot.run.is_ended:
            return None, None, None
        if self.is_stopping:
            await self.hand_back([item])
            return None, None, None
        known = view.functions.get(hot.facts.function_id)
        if known is not None and self._is_stopped(known) and await self._park(known, item):
            return None, None, None
        if known is not None and self._is_too_late(hot, item, known):
            return DeadlineDue(item.key, ItemKind.START_TIMEOUT, is_calling=False), None, None
        if item.kind is ItemKind.GATEWAY:
            return *(await self.gateway.perform(hot, item)), None
        permit = Permit()
        if known is not None:
            permit = self.breaker.ask(known.function.app_id, known.synced_at)
            if permit.wait_s > 0:
                await self._hold_back(item, permit.wait_s)
                return None, None, None
        started_at = self.clock.now()
        called = await self._call(hot, item, view, permit)
        heard_at = hot.heard(self.clock.now())
        await pause_points.reached("call.after", [hot.run.id])
        due_at = item.held_due or item.due_at
        queued_ms = (started_at - due_at) / timedelta(milliseconds=1) if due_at else 0.0
        told = Told(
            "call",
            _reported_step(item, called.reply),
            item.key,
            item.attempt,
            started_at,
            _detail(item, called, max(0.0, queued_ms)),
        )
        return Replied(item.key, called.reply), told, heard_at

    async def hand_back(self, items: list[LeasedItem]) -> None:
        """Items that were leased and not called: for another worker, and nothing is counted (F5)."""
        async with self.pool.acquire(timeout=10) as connection:
            await fetch(
                connection, named("workers", "release"), item_ids=[i.id for i in items], fences=[i.fence for i in items]
            )

    async def _call(self, hot: HotRun, item: LeasedItem, view: EnvironmentView, permit: Permit) -> Called:
        known = view.functions.get(hot.facts.function_id)
        if known is None:
            error = {
                "data": None,
                "message": f"Function {hot.facts.function_slug} is no longer part of its app.",
                "name": "FunctionRemoved",
            }
            reply = Failed(msgspec.json.encode(error), "function_removed", no_retry=True, is_fatal=True)
            return Called(reply, 0, 0.0, "")
        app_id = known.function.app_id
        try:
            called = await self.dispatch.call(hot, item, known, view.signing_keys)
        except BaseException:
            self.breaker.gave_up(app_id, permit)
            raise
        if called.answer is not None or _code_of(called.reply) in _SILENT:
            self.breaker.heard(app_id, permit, is_answer=called.answer is not None, synced_at=known.synced_at)
        else:
            self.breaker.gave_up(app_id, permit)
        return called

    async def _hold_back(self, item: LeasedItem, wait_s: float) -> None:
        """Put an item aside whose app is not called just now. No attempt and no redelivery is counted (F14)."""
        async with self.pool.acquire(timeout=10) as connection:
            await fetch(
                connection,
                named("workers", "hold_back"),
                item=item.id,
                fence=item.fence,
                wait=timedelta(seconds=wait_s),
            )

    def _is_stopped(self, known: KnownFunction) -> bool:
        """Whether the function is paused, or held for a time."""
        held_until = known.function.held_until
        return known.function.is_paused or (held_until is not None and held_until > self.clock.now())

    async def _park(self, known: KnownFunction, item: LeasedItem) -> bool:
        """Put an item of a paused or held function aside; false when the function goes on already."""
        async with self.pool.acquire(timeout=10) as connection:
            rows = await fetch(connection, named("pause", "park"), function=known.id, item=item.id, fence=item.fence)
        return bool(rows)

    def _is_too_late(self, hot: HotRun, item: LeasedItem, known: KnownFunction) -> bool:
        """Whether a run's first call became possible only after its start was due: the item of the deadline may come
        to a busy worker together with this one, or after it.
        """
        within = known.function.timeouts.start
        if within is None or item.key != START or hot.run.status is not RunStatus.QUEUED:
            return False
        return self.clock.now() > hot.facts.queued_at + within

    async def _is_calling(self, hot: HotRun, item: LeasedItem) -> bool:
        """Whether the first call of a run whose start is due is under way: then it has started in time."""
        if item.kind is not ItemKind.START_TIMEOUT:
            return False
        async with self.pool.acquire(timeout=10) as connection:
            rows = await fetch(connection, named("cancel", "is_leased"), item=derive_item_id(hot.run.id, START))
        return bool(rows)

    async def _still_ours(self, item: LeasedItem) -> bool:
        async with self.pool.acquire(timeout=10) as connection:
            rows = await fetch(connection, named("workers", "fence"), item=item.id)
        return bool(rows) and rows[0]["fence"] == item.fence


def _code_of(reply: Reply) -> str:
    return reply.code if isinstance(reply, Failed) else ""


def _reported_step(item: LeasedItem, reply: Reply) -> str | None:
    """The step an attempt belongs to: the target, or the one step a discovery call ran inline."""
    if item.step_key is not None:
        return item.step_key
    if (
        isinstance(reply, Ops)
        and len(reply.ops) == 1
        and reply.ops[0].code in {"StepRun", "StepError", "StepFailed", "Step"}
    ):
        return reply.ops[0].id
    return None


def _detail(item: LeasedItem, called: Called, queued_ms: float) -> bytes:
    """The journal's line of a call, as the run page reads it."""
    reply = called.reply
    error: bytes | None = None
    outcome = "ok"
    if isinstance(reply, Failed):
        error, outcome = reply.error, "error"
    elif isinstance(reply, Ops):
        failed = next((op for op in reply.ops if op.code in {"StepError", "StepFailed"}), None)
        if failed is not None and failed.memo is not None:
            outcome = "error"
            error = bytes(msgspec.json.decode(failed.memo, type=dict[str, msgspec.Raw])["error"])
    retry_after = reply.retry_after if not isinstance(reply, Finished) else None
    told = {"answer": _kept_of(called.answer)} if outcome == "error" and called.answer is not None else {}
    return msgspec.json.encode(
        {
            "status": called.status,
            "ms": round(called.millis, 2),
            "outcome": outcome,
            "error": msgspec.Raw(error) if error else None,
            "retry_after_ms": int(retry_after / timedelta(milliseconds=1)) if retry_after else None,
            "sdk": reply.sdk,
            "redeliveries": item.redeliveries,
            "queued_ms": round(queued_ms, 1),
            **({"held_back": True} if item.held_due is not None else {}),
            "request_id": called.request_id,
            **told,
        }
    )


def _kept_of(answer: Answer) -> dict[str, object]:
    """What history keeps of a failed answer, which may be anybody's, as a proxy's page: cookies are left out."""
    headers = {name: value[:_KEPT_VALUE] for name, value in answer.headers.items() if "cookie" not in name}
    body = answer.body[:_KEPT_BODY].decode(errors="replace").replace("\x00", "\ufffd")
    return {"headers": dict(list(headers.items())[:_KEPT_HEADERS]), "body": body}
