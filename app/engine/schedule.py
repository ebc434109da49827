"""Station 2, runs: which of an event's functions start one, when, and in which lane; the others get a recorded reason.

    wish (function, event) ─► paused? ─► event id seen? ─► gates (domain/flow/gates.py) ─► backlog? ─► run with first item
                               │           └ duplicate       ├ a reason                     └ starts later
                               └ skipped run                 ├ held by a debounce or batch, whose timer is in `gates`
                                                             └ skipped run (singleton)
    timer of a gate ─► fire_due ─► run of the newest event, or of the batch

Everything happens in the transaction of the caller, so a crash before its commit has counted nothing (docs/adr/0011).
Functions without gates and limits touch none of this: one statement makes their runs.

Who is authoritative for what
- rows of `gates`: locked in the order of their ids before anything is decided, changed once at the end
- `dedupe`: the event ids and who claimed them first
- lanes and keys: frozen into the run here; what a limit allows is read when an item is leased (queue.py)
"""

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.flow.gates import (
    Arrival,
    GateKind,
    Gates,
    GateState,
    Keys,
    Outcome,
    Verdict,
)
from app.domain.flow.lanes import Lanes
from app.domain.flow.priority import head_start
from app.domain.ids import (
    EnvironmentId,
    EventId,
    ItemId,
    LaneId,
    LeaseId,
    RunId,
    WorkerId,
    derive_item_id,
    derive_run_id,
    to_ulid,
)
from app.domain.run.begin import begin
from app.domain.run.fold import fold_all
from app.domain.run.happenings import CancelRequested, Happening
from app.domain.run.state import ItemKind, RetryPolicy, Run
from app.domain.scope import Scope
from app.engine.catalogue import EnvironmentView, KnownFunction
from app.engine.clock import DatabaseClock
from app.engine.flow_rows import gate_state, hold_gates, join_batches, live_runs, put_gates, put_lanes
from app.engine.hot import Facts, HotRun, LeasedItem
from app.engine.lifecycle import FAILED, FINISHED
from app.engine.stored import Stored, load_event, parent_of_run
from app.engine.waits import child_refused
from app.store.named import fetch, named

#: How much later a run starts that came while the environment's backlog was full.
_BACKLOG_DELAY = timedelta(minutes=1)
_BACKLOG_COUNTED = timedelta(seconds=5)
#: Environments whose count is remembered.
_BACKLOGS_KEPT = 10_000
_DUPLICATE_CHILD = "the invoked function was started with this event id before; an id starts it once in 24 hours"
#: Why an account starts no new runs, for the skipped run; the reason itself is `allowance` for both.
_STOPS = {
    "allowance": "the executions or events that the plan includes this month are used up",
    "spend_cap": "the organization's spend cap is reached",
}
#: Gates whose timer came due, taken in one transaction.
_DUE = 50

Wake = tuple[RunId, Happening]


@dataclass(frozen=True, slots=True)
class Wish:
    """A function that an event would start. `parent` is the step that waits for the run (invoke)."""

    event: Stored
    view: EnvironmentView
    known: KnownFunction
    parent: tuple[RunId, str] | None = None
    cron: str | None = None
    #: Overrides the id and the start of a run that an event alone does not determine (cron).
    run_id: RunId | None = None
    starts_at: datetime | None = None


@dataclass(slots=True)
class NewRun:
    """A run about to be written. `skip` is the reason it is made as skipped, `note` says more to people."""

    hot: HotRun
    known: KnownFunction
    event: Stored
    lanes: Lanes | None
    due_at: datetime | None
    dedupe_key: str | None = None
    lease: LeasedItem | None = None
    skip: str | None = None
    note: str = ""
    batch_size: int = 1
    cron: str | None = None
    head_start: timedelta | None = None
    #: Waiting items its environment may have; None without a bound.
    backlog: int | None = None


@dataclass(slots=True)
class Plan:
    """What a round is going to write, and whom it wakes first."""

    runs: list[NewRun] = field(default_factory=list)
    #: (event, function) → the answer's row; a later word on the same pair replaces an earlier one.
    answers: dict[tuple[UUID, UUID], tuple[Any, ...]] = field(default_factory=dict)
    wakes: list[Wake] = field(default_factory=list)
    joined: list[tuple[Any, ...]] = field(default_factory=list)
    #: Cancel rules were set up that owe the second look of waits.
    owes_look: bool = False

    def answer(
        self,
        view: EnvironmentView,
        event: EventId,
        function: UUID,
        outcome: str,
        detail: str = "",
        run: UUID | None = None,
    ) -> None:
        """Record why an event did not become a run of its own."""
        scope = view.scope
        self.answers[event, function] = (
            scope.environment_id,
            event,
            function,
            scope.account_id,
            outcome,
            detail.replace("\x00", "\ufffd"),
            run,
        )


@dataclass(slots=True)
class Schedule:
    """The station of one worker."""

    clock: DatabaseClock
    retry_delay: timedelta | None = None
    #: Whether an environment's backlog was full, and when that was counted.
    _backlogs: dict[EnvironmentId, tuple[datetime, bool]] = field(default_factory=dict)

    async def decide(self, connection: Any, wishes: list[Wish], plan: Plan, now: datetime) -> None:
        """Turn wishes into runs and answers."""
        gated: list[tuple[Wish, Gates]] = []
        invoked: list[Wish] = []
        for wish in wishes:
            why_not = _why_not(wish.known, wish.view, is_fresh=_is_fresh(wish))
            if why_not is not None:
                self._skip(wish, plan, *why_not)
            elif wish.known.gates is not None:
                gated.append((wish, wish.known.gates))
            elif wish.parent is not None and wish.event.client_id is not None:
                invoked.append(wish)
            else:
                plan.runs.append(self.new_run(wish, dedupe_key=wish.event.client_id))
        if invoked:
            # Apart, because a parent has to hear now that its child's id was used before.
            fresh = await _claim_ids(connection, invoked)
            for n, wish in enumerate(invoked):
                if n in fresh:
                    plan.runs.append(self.new_run(wish))
                else:
                    _duplicate(wish, plan)
        if gated:
            await self._through_gates(connection, gated, plan, now)
        if any(new.backlog is not None for new in plan.runs):
            await self._hold_back(connection, plan, now)

    async def _through_gates(self, connection: Any, gated: list[tuple[Wish, Gates]], plan: Plan, now: datetime) -> None:
        fresh = await _claim_ids(connection, [wish for wish, _ in gated])
        passing: list[tuple[Wish, Gates, Keys]] = []
        for n, (wish, gates) in enumerate(gated):
            if n in fresh:
                passing.append((wish, gates, gates.keys(wish.event.decoded(), is_cron=wish.cron is not None)))
            else:
                _duplicate(wish, plan)
        states = await hold_gates(connection, [(w.view.scope, w.known.id, keys) for w, _, keys in passing])
        live = await live_runs(
            connection, [s.run_id for s in states.values() if s.kind is GateKind.SINGLETON and s.run_id]
        )
        for wish, gates, keys in passing:
            await self._pass(connection, wish, gates, keys, states, live, plan, now)
        await join_batches(connection, plan.joined)
        await put_gates(connection, states)

    async def _pass(
        self,
        connection: Any,
        wish: Wish,
        gates: Gates,
        keys: Keys,
        states: dict[UUID, GateState],
        live: set[RunId],
        plan: Plan,
        now: datetime,
    ) -> None:
        event, known, view = wish.event, wish.known, wish.view
        run_id = wish.run_id or derive_run_id(known.id, event.ref.id.bytes, event.ref.received_at)
        arrival = Arrival(event.ref, event.ts, len(event.payload), run_id, wish.cron is not None)
        verdict = gates.pass_through(keys, states, arrival, live, now)
        if verdict.starts_batch == "before":
            await self._start_batch(connection, known, view, keys, states, plan)
            verdict = gates.pass_through(keys, states, arrival, live, now)
        match verdict.outcome:
            case Outcome.START:
                self._start(self.new_run(wish), verdict, plan)
            case Outcome.SINGLETON:
                self._skip(wish, plan, "singleton", verdict.detail, verdict.run_id)
            case Outcome.BATCHED:
                plan.answer(view, event.ref.id, known.id, "batched", verdict.detail, verdict.run_id)
                if verdict.position > 0:
                    plan.joined.append(
                        (
                            verdict.run_id,
                            verdict.position,
                            view.scope.account_id,
                            view.scope.environment_id,
                            event.ref.id,
                            event.ref.received_at,
                        )
                    )
                if verdict.starts_batch == "after":
                    await self._start_batch(connection, known, view, keys, states, plan)
            case Outcome.DEBOUNCED:
                plan.answer(view, event.ref.id, known.id, "debounced", verdict.detail)
                if verdict.superseded is not None:
                    plan.answer(view, verdict.superseded.id, known.id, "debounced", "superseded by a newer event")
            case refused:
                plan.answer(view, event.ref.id, known.id, str(refused), verdict.detail)
                if wish.parent is not None:
                    plan.wakes.append(
                        (wish.parent[0], child_refused(wish.parent[1], "invoked function is rate limited"))
                    )

    def _start(self, new: NewRun, verdict: Verdict, plan: Plan) -> None:
        if verdict.cancels is not None:
            in_hand = next((n for n in plan.runs if n.hot.run.id == verdict.cancels), None)
            if in_hand is not None:
                # The run whose place is taken is not even written yet: it is made as skipped.
                in_hand.skip, in_hand.note = "singleton", f"replaced by {to_ulid(new.hot.run.id)}"
            else:
                plan.wakes.append((verdict.cancels, CancelRequested("singleton")))
        plan.runs.append(new)

    def _skip(self, wish: Wish, plan: Plan, reason: str, detail: str = "", there: RunId | None = None) -> None:
        """A run that is made as skipped, so that people find it among the runs, and its answer."""
        new = self.new_run(wish)
        new.skip = reason
        new.note = f"run {to_ulid(there)} is there{', ' + detail if detail else ''}" if there else detail
        plan.runs.append(new)
        plan.answer(wish.view, wish.event.ref.id, wish.known.id, reason, new.note, new.hot.run.id)

    async def _start_batch(
        self,
        connection: Any,
        known: KnownFunction,
        view: EnvironmentView,
        keys: Keys,
        states: dict[UUID, GateState],
        plan: Plan,
    ) -> None:
        """The open batch of a gate becomes a run now."""
        state = keys.state(GateKind.BATCH, states)
        if state is None or state.event is None or state.run_id is None:
            return
        first = await load_event(connection, view.scope.environment_id, state.event)
        size, run_id, total = state.size, state.run_id, state.bytes
        state.close()
        if first is None:
            return
        new = self.new_run(Wish(first, view, known, parent_of_run(first), run_id=run_id, starts_at=state.due_at))
        new.batch_size = size
        new.hot.run = replace(new.hot.run, state_bytes=total)
        new.skip, new.note = _why_not(known, view) or (None, "")
        plan.runs.append(new)

    async def fire_due(self, connection: Any, view_of: Callable[[Any], Any], plan: Plan) -> datetime | None:
        """Start what debounces and batches have gathered and whose time has come; None when nothing is due.

        `view_of(row)` gives the functions of a gate's environment. Rows stay locked until the caller commits.
        """
        rows = await fetch(connection, named("flow", "due_gates"), room=_DUE)
        if not rows:
            return None
        now: datetime = rows[0]["now"]
        states: dict[UUID, GateState] = {}
        singletons: list[tuple[Wish, Gates, Keys]] = []
        for row in rows:
            state = gate_state(row)
            states[state.id] = state
            view = await view_of(row)
            known = view.functions.get(row["function_id"])
            if state.event is None:
                state.close()
                continue
            if known is None or known.is_archived:
                # What was gathered has nobody to run it any more.
                outcome = "batched" if state.kind is GateKind.BATCH else "debounced"
                why = "the function was removed meanwhile" if known is None else "the app was archived meanwhile"
                plan.answer(view, state.event.id, row["function_id"], outcome, why)
                state.close()
                continue
            if state.kind is GateKind.BATCH:
                keys = Keys({GateKind.BATCH: (state.id, state.key)})
                await self._start_batch(connection, known, view, keys, states, plan)
                continue
            event = await load_event(connection, row["environment_id"], state.event)
            due_at = state.due_at or now
            gathered = state.size
            state.close()
            if event is None:
                continue
            run_id = derive_run_id(known.id, b"debounce" + event.ref.id.bytes, due_at)
            wish = Wish(event, view, known, parent_of_run(event), run_id=run_id)
            plan.answer(view, event.ref.id, known.id, "debounced", f"ran for {gathered} events", run_id)
            if (why_not := _why_not(known, view)) is not None:
                self._skip(wish, plan, *why_not)
            elif known.gates is None or known.gates.singleton is None:
                plan.runs.append(self.new_run(wish))
            else:
                keys = known.gates.keys(event.decoded())
                singletons.append((wish, known.gates, keys.only(GateKind.SINGLETON)))
        if singletons:
            held = await hold_gates(connection, [(w.view.scope, w.known.id, keys) for w, _, keys in singletons])
            live = await live_runs(connection, [s.run_id for s in held.values() if s.run_id])
            for wish, gates, keys in singletons:
                assert wish.run_id is not None
                verdict = gates.take_place(keys, held, wish.run_id, live)
                if verdict.outcome is Outcome.SINGLETON:
                    self._skip(wish, plan, "singleton", verdict.detail, verdict.run_id)
                else:
                    self._start(self.new_run(wish), verdict, plan)
            states.update(held)
        await put_gates(connection, states)
        return now

    async def _hold_back(self, connection: Any, plan: Plan, now: datetime) -> None:
        """Backlog, the last gate: it delays and never drops (architecture 6)."""
        for new in plan.runs:
            scope = new.hot.facts.scope
            if (
                new.skip is None
                and new.backlog is not None
                and await self._is_full(connection, scope, new.backlog, now)
            ):
                new.due_at = max(new.due_at or now, now + _BACKLOG_DELAY)
                key = (new.event.ref.id, new.known.id)
                plan.answers.setdefault(
                    key,
                    (
                        scope.environment_id,
                        new.event.ref.id,
                        new.known.id,
                        scope.account_id,
                        "backlog",
                        "the environment has more waiting work than its plan allows; the run starts later",
                        new.hot.run.id,
                    ),
                )

    async def _is_full(self, connection: Any, scope: Scope, most: int, now: datetime) -> bool:
        """Whether the environment has `most` waiting items; counted now and then, a little late on purpose."""
        known = self._backlogs.get(scope.environment_id)
        if known is None or now - known[0] > _BACKLOG_COUNTED:
            rows = await fetch(connection, named("flow", "backlog"), environment=scope.environment_id, most=most)
            known = (now, rows[0]["count"] >= most)
            if len(self._backlogs) >= _BACKLOGS_KEPT:
                self._backlogs.clear()
            self._backlogs[scope.environment_id] = known
        return known[1]

    def new_run(self, wish: Wish, *, dedupe_key: str | None = None) -> NewRun:
        """The run of a wish, with its lanes."""
        event, known, view = wish.event, wish.known, wish.view
        starts_at = wish.starts_at if wish.run_id is not None else event.first_time
        run_id = wish.run_id or derive_run_id(known.id, event.ref.id.bytes, event.ref.received_at)
        run = Run(
            id=run_id,
            function_id=known.id,
            retry=RetryPolicy(known.function.max_attempts, self.retry_delay, known.function.backoff),
            is_quiet=event.name in (FINISHED, FAILED),
            max_steps=view.limits.steps_per_run,
            max_sleep=view.limits.max_sleep,
            finish_within=known.function.timeouts.finish,
            state_bytes=len(event.payload),
        )
        run = fold_all(run, begin(run, at=starts_at))
        lanes = known.flow.lanes(view.scope, event.decoded()) if known.flow is not None else None
        facts = Facts(
            scope=view.scope,
            app_id=known.function.app_id,
            function_id=known.id,
            function_slug=known.function.slug,
            environment_name=view.name,
            lane_id=lanes.run.id if lanes is not None else known.lane_id,
            event_id=event.ref.id,
            event=event.payload,
            events=(event.payload,),
            queued_at=self.clock.now(),
            is_limited=lanes is not None and lanes.run.is_gated,
            parent_run_id=wish.parent[0] if wish.parent else None,
            parent_step_key=wish.parent[1] if wish.parent else None,
        )
        new = NewRun(
            HotRun(run, facts, seen_at=event.ref.received_at),
            known,
            event,
            lanes,
            starts_at,
            dedupe_key,
            cron=wish.cron,
        )
        new.backlog = view.limits.backlog
        if known.flow is not None and known.flow.priority is not None:
            new.head_start = head_start(known.flow.priority, event.decoded())
        return new

    def lease_first(self, runs: list[NewRun], room: int, present: Collection[EnvironmentId] | None = None) -> None:
        """Lease up to `room` first items to this worker before they are written (architecture 6, two commits).

        With `present`, at most one of each environment that is not among these.
        """
        now = self.clock.now()
        seen = set(present or ())
        for new in runs:
            if room <= 0:
                return
            if new.due_at is not None or new.skip is not None or new.lanes is not None or new.batch_size != 1:
                continue
            environment_id = new.hot.facts.scope.environment_id
            if present is not None and environment_id in seen:
                continue
            seen.add(environment_id)
            room -= 1
            new.lease = LeasedItem(
                _start_item(new.hot.run.id),
                "start",
                ItemKind.DISCOVER,
                None,
                0,
                1,
                LeaseId(uuid.uuid4()),
                due_at=now,
            )

    async def create(
        self, connection: Any, worker_id: WorkerId, plan: Plan, done: list[Any], *, is_crowded: bool = False
    ) -> dict[UUID, bool]:
        """Write runs, first items and answers; `done` are the inbox rows that go with them.

        Returns the runs made, and whether their first item is leased: `is_crowded` leases none in whose lane something waits.
        """
        runs = plan.runs
        if any(n.lanes is not None for n in runs):
            await put_lanes(connection, [(n.hot.facts.scope, n.known.id, n.lanes) for n in runs if n.lanes is not None])
        facts = [n.hot.facts for n in runs]
        answers = list(zip(*plan.answers.values(), strict=True)) or [()] * 7
        made = await fetch(
            connection,
            named("inbox", "create_runs"),
            n=list(range(len(runs))),
            run_id=[n.hot.run.id for n in runs],
            account=[f.scope.account_id for f in facts],
            environment=[f.scope.environment_id for f in facts],
            app=[f.app_id for f in facts],
            function=[f.function_id for f in facts],
            function_version=[n.known.function.version for n in runs],
            lane=[f.lane_id for f in facts],
            item_lane=[_item_lane(n) for n in runs],
            max_attempts=[n.known.function.max_attempts for n in runs],
            is_quiet=[n.hot.run.is_quiet for n in runs],
            event_id=[f.event_id for f in facts],
            event_received_at=[n.event.ref.received_at for n in runs],
            event_name=[n.event.name for n in runs],
            parent_run=[f.parent_run_id for f in facts],
            parent_step=[f.parent_step_key for f in facts],
            dedupe_key=[n.dedupe_key for n in runs],
            item_id=[_start_item(n.hot.run.id) for n in runs],
            due_at=[n.due_at for n in runs],
            lease_id=[n.lease.lease_id if n.lease else None for n in runs],
            skip=[n.skip for n in runs],
            state_bytes=[n.hot.run.state_bytes for n in runs],
            note=[n.note or None for n in runs],
            batch_size=[n.batch_size for n in runs],
            cron=[n.cron for n in runs],
            head_start=[n.head_start for n in runs],
            is_crowded=is_crowded,
            worker=worker_id,
            commit_id=uuid.uuid4(),
            answer_environment=answers[0],
            answer_event=answers[1],
            answer_function=answers[2],
            answer_account=answers[3],
            answer_outcome=answers[4],
            answer_detail=answers[5],
            answer_run=answers[6],
            done_environment=[r["environment_id"] for r in done],
            done_event=[r["event_id"] for r in done],
        )
        return {row["id"]: row["is_leased"] for row in made}


async def _claim_ids(connection: Any, wishes: list[Wish]) -> set[int]:
    """Which wishes are the first with their event id; those without an id of the client's are always."""
    asked = [(n, w) for n, w in enumerate(wishes) if w.event.client_id is not None]
    fresh = set(range(len(wishes))) - {n for n, _ in asked}
    if not asked:
        return fresh
    rows = await fetch(
        connection,
        named("flow", "claim_ids"),
        n=[n for n, _ in asked],
        environment=[w.view.scope.environment_id for _, w in asked],
        account=[w.view.scope.account_id for _, w in asked],
        function=[w.known.id for _, w in asked],
        key=[w.event.client_id for _, w in asked],
        run=[w.run_id or derive_run_id(w.known.id, w.event.ref.id.bytes, w.event.ref.received_at) for _, w in asked],
    )
    return fresh | {row["n"] for row in rows}


def _duplicate(wish: Wish, plan: Plan) -> None:
    """The event's id has started the function before."""
    plan.answer(wish.view, wish.event.ref.id, wish.known.id, "duplicate", "same event id")
    if wish.parent is not None:
        plan.wakes.append((wish.parent[0], child_refused(wish.parent[1], _DUPLICATE_CHILD)))


def _why_not(known: KnownFunction, view: EnvironmentView, *, is_fresh: bool = True) -> tuple[str, str] | None:
    """Why a function starts nothing just now, and more about it; None when it does."""
    if known.function.is_paused:
        return "paused", ""
    return ("allowance", _STOPS[view.stops_for]) if view.stops_for is not None and is_fresh else None


def _is_fresh(wish: Wish) -> bool:
    """Whether a run would be new business: what has begun may end, with the functions it invokes and its handlers."""
    return wish.parent is None and wish.event.name not in (FINISHED, FAILED)


def _start_item(run_id: RunId) -> ItemId:
    return derive_item_id(run_id, "start")


def _item_lane(new: NewRun) -> LaneId:
    if new.lanes is None:
        return new.known.lane_id
    return (new.lanes.first or new.lanes.run).id
