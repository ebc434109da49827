"""Station 2, a spine: what does an event set off?

    claim inbox rows ─► match functions ─► runs and first items ─► inbox row gone     one transaction (tx B)
                     └► waits and parents it ends: handed to `transition`, one each, before the row goes

A crash before the commit leaves the rows in the inbox: everything here may be done twice, because ids are derived and
waits are closed under the lock of their run. First items are committed as leased to this worker while it has room, so
an idle engine needs two commits between an event and the first call of its run (architecture 6).
"""

import logging
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.domain.errors import Outside
from app.domain.event import INVOKED
from app.domain.ids import (
    FunctionId,
    ItemId,
    LeaseId,
    RunId,
    WorkerId,
    derive_item_id,
    derive_run_id,
    millis,
    parse_ulid,
)
from app.domain.run.begin import begin
from app.domain.run.fold import fold_all
from app.domain.run.happenings import Happening
from app.domain.run.state import ItemKind, RetryPolicy, Run
from app.domain.scope import Scope
from app.engine import pause_points
from app.engine.arm import Fresh, arm, must_arm
from app.engine.catalogue import Catalogue, EnvironmentView, KnownFunction
from app.engine.clock import DatabaseClock
from app.engine.hot import Facts, HotRun, LeasedItem
from app.engine.lifecycle import FAILED, FINISHED
from app.engine.waits import child_refused, waits_ended_by
from app.store.db import CONNECTION_LOST, Pool
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: Events claimed in one transaction.
BATCH = 200
#: Seconds an event stays aside that could not be reacted to: because a run it resumes was busy, or for reasons unknown.
_BUSY_S, _BROKEN_S = 1.0, 30.0
#: An event dated this far ahead delays the start of its runs (feature-semantics A1, FutureAtLimit).
_FUTURE = timedelta(seconds=2)
_FAILED_WORDS = {"Failed", "Cancelled"}


@dataclass(slots=True)
class Reacted:
    """What a round did: hot runs whose first item is ours, and whether items were left for others."""

    events: int = 0
    started: list[tuple[HotRun, LeasedItem]] = field(default_factory=list)
    left_ready: bool = False
    #: Rules were set up that owe a look at events that came in meanwhile.
    owes_look: bool = False


@dataclass(slots=True)
class _NewRun:
    hot: HotRun
    lease: LeasedItem | None
    function: KnownFunction
    event_name: str
    received_at: datetime
    dedupe_key: str | None
    due_at: datetime | None


@dataclass(slots=True)
class React:
    """The station of one worker."""

    pool: Pool
    catalogue: Catalogue
    clock: DatabaseClock
    worker_id: WorkerId
    #: Moves a waiting run: (run, happening); returns when it is committed or was not needed.
    resume: Any
    retry_delay: timedelta | None = None
    _most: int = BATCH
    #: Events that are left in the inbox for now, and until when (monotonic).
    _aside: dict[UUID, float] = field(default_factory=dict)

    async def round(self, room: int) -> Reacted:
        """Claim up to `BATCH` events and commit what they set off; `room` first items are leased to this worker.

        When something goes wrong with claimed events, fewer are claimed next time, until the one that cannot be reacted
        to is alone and is left aside for a while. It stays in the inbox, and the others go on.
        """
        claimed: list[UUID] = []
        try:
            out = await self._round(room, claimed)
        except (*CONNECTION_LOST, Outside):
            raise
        except Exception:
            if not claimed:
                raise
            log.exception("could not react to events", extra={"events": len(claimed)})
            if len(claimed) == 1:
                self._leave_aside(claimed[0], _BROKEN_S)
            self._most = max(1, len(claimed) // 2)
            return Reacted(len(claimed))
        self._most = min(BATCH, self._most * 2)
        return out

    def _leave_aside(self, event_id: UUID, seconds: float) -> None:
        self._aside[event_id] = time.monotonic() + seconds

    def _set_aside(self) -> list[UUID]:
        if self._aside:
            now = time.monotonic()
            self._aside = {event_id: until for event_id, until in self._aside.items() if until > now}
        return list(self._aside)

    async def _round(self, room: int, claimed: list[UUID]) -> Reacted:
        out = Reacted()
        async with self.pool.acquire(timeout=10) as connection, connection.transaction():
            rows = await fetch(connection, named("inbox", "claim"), room=self._most, set_aside=self._set_aside())
            if not rows:
                return out
            claimed += [row["event_id"] for row in rows]
            out.events = len(rows)
            self.clock.saw(rows[0]["now"])
            await pause_points.reached("react.claimed", [r["event_id"] for r in rows])
            new: list[_NewRun] = []
            answers: list[tuple[Any, ...]] = []
            wakes: list[tuple[RunId, Happening]] = []
            busy: set[UUID] = set()
            for row in rows:
                wakes.clear()
                scope = Scope(row["account_id"], row["environment_id"])
                view = await self.catalogue.view(scope, row["catalogue_version"])
                self._functions(row, view, new, answers, wakes)
                wakes += await waits_ended_by(connection, row)
                # Before the inbox row goes for good: a crash here repeats the wake-ups, and a closed wait ignores them.
                for run_id, happening in wakes:
                    try:
                        await self.resume(run_id, happening)
                    except asyncpg.LockNotAvailableError:
                        # Somebody sits on the run; the event waits, and the others do not (F9).
                        busy.add(row["event_id"])
                        self._leave_aside(row["event_id"], _BUSY_S)
            if busy:
                rows = [row for row in rows if row["event_id"] not in busy]
                new = [run for run in new if run.hot.facts.event_id not in busy]
                answers = [answer for answer in answers if answer[1] not in busy]
            for i, run in enumerate(new):
                if i < room and run.due_at is None and run.function.flow_key_id is None:
                    run.lease = _first_lease(run, self.clock.now())
            made = await self._create(connection, rows, new, answers) if rows else set()
            armed = [run for run in new if run.hot.run.id in made and must_arm(run.function.function)]
            if armed:
                fresh = [Fresh(run.hot, run.function.function, run.received_at) for run in armed]
                out.owes_look = await arm(connection, fresh)
        await pause_points.reached("react.committed", list(made))
        for run in new:
            if run.hot.run.id in made:
                if run.lease is not None:
                    out.started.append((run.hot, run.lease))
                else:
                    out.left_ready = True
        return out

    def _functions(
        self,
        row: Any,
        view: EnvironmentView,
        new: list[_NewRun],
        answers: list[tuple[Any, ...]],
        wakes: list[tuple[RunId, Happening]],
    ) -> None:
        """The functions an event starts, and those that answer no."""
        payload: bytes = row["payload"].encode()
        decoded: dict[str, Any] | None = None

        def event() -> dict[str, Any]:
            nonlocal decoded
            if decoded is None:
                decoded = msgspec.json.decode(payload)
            return decoded

        parent: tuple[RunId, str] | None = None
        if row["name"] == INVOKED:
            meta = event()["data"].get("_inngest") or {}
            wanted = str(meta.get("fn_id") or "")
            correlation = meta.get("correlation_id")
            parent = _parent(correlation)
            known = view.by_slug.get(wanted) or _by_uuid(view, wanted)
            if known is None or known.is_archived:
                if parent:
                    wakes.append((parent[0], child_refused(parent[1], f"could not find function with ID: {wanted}")))
                return
            matched = [known.id]
        else:
            matches = view.triggers.match(row["name"], event, self.clock.now())
            matched = matches.matched
            for filtered in matches.filtered:
                outcome = "filtered" if filtered.reason == "filter" else "expression_error"
                answers.append(
                    (
                        row["environment_id"],
                        row["event_id"],
                        filtered.function,
                        row["account_id"],
                        outcome,
                        filtered.detail or "",
                        None,
                    )
                )
        for function_id in matched:
            known = view.functions[function_id]
            if known.function.is_paused:
                answers.append(
                    (row["environment_id"], row["event_id"], function_id, row["account_id"], "paused", "", None)
                )
                continue
            new.append(self._new_run(row, view, known, payload, parent))

    def _new_run(
        self, row: Any, view: EnvironmentView, known: KnownFunction, payload: bytes, parent: tuple[RunId, str] | None
    ) -> _NewRun:
        received: datetime = row["received_at"]
        starts_at = None
        if row["ts"] > millis(received + _FUTURE):
            starts_at = received + timedelta(milliseconds=row["ts"] - millis(received))
        run_id = derive_run_id(known.id, row["event_id"].bytes, received)
        run = Run(
            id=run_id,
            function_id=known.id,
            retry=RetryPolicy(known.function.max_attempts, self.retry_delay),
            is_quiet=row["name"] in (FINISHED, FAILED),
            max_steps=view.plan.steps_per_run,
            max_sleep=view.plan.max_sleep,
            finish_within=known.function.timeouts.finish,
        )
        run = fold_all(run, begin(run, at=starts_at))
        facts = Facts(
            scope=view.scope,
            app_id=known.function.app_id,
            function_id=known.id,
            function_slug=known.function.slug,
            environment_name=view.name,
            lane_id=known.lane_id,
            event_id=row["event_id"],
            event=payload,
            events=(payload,),
            queued_at=self.clock.now(),
            is_limited=known.flow_key_id is not None,
            parent_run_id=parent[0] if parent else None,
            parent_step_key=parent[1] if parent else None,
        )
        return _NewRun(
            HotRun(run, facts, seen_at=received), None, known, row["name"], received, row["client_id"], starts_at
        )

    async def _create(
        self, connection: Any, rows: list[Any], new: list[_NewRun], answers: list[tuple[Any, ...]]
    ) -> set[UUID]:
        facts = [n.hot.facts for n in new]
        answer_columns = list(zip(*answers, strict=True)) or [()] * 7
        made = await fetch(
            connection,
            named("inbox", "create_runs"),
            n=list(range(len(new))),
            run_id=[n.hot.run.id for n in new],
            account=[f.scope.account_id for f in facts],
            environment=[f.scope.environment_id for f in facts],
            app=[f.app_id for f in facts],
            function=[f.function_id for f in facts],
            function_version=[n.function.function.version for n in new],
            lane=[f.lane_id for f in facts],
            max_attempts=[n.function.function.max_attempts for n in new],
            is_quiet=[n.hot.run.is_quiet for n in new],
            event_id=[f.event_id for f in facts],
            event_received_at=[n.received_at for n in new],
            event_name=[n.event_name for n in new],
            parent_run=[f.parent_run_id for f in facts],
            parent_step=[f.parent_step_key for f in facts],
            dedupe_key=[n.dedupe_key for n in new],
            item_id=[_start_item(n.hot.run.id) for n in new],
            due_at=[n.due_at for n in new],
            lease_id=[n.lease.lease_id if n.lease else None for n in new],
            worker=self.worker_id,
            commit_id=uuid.uuid4(),
            answer_environment=answer_columns[0],
            answer_event=answer_columns[1],
            answer_function=answer_columns[2],
            answer_account=answer_columns[3],
            answer_outcome=answer_columns[4],
            answer_detail=answer_columns[5],
            answer_run=answer_columns[6],
            done_environment=[r["environment_id"] for r in rows],
            done_event=[r["event_id"] for r in rows],
        )
        return {row["id"] for row in made}


def _start_item(run_id: RunId) -> ItemId:
    return derive_item_id(run_id, "start")


def _first_lease(new: _NewRun, now: datetime) -> LeasedItem:
    return LeasedItem(
        _start_item(new.hot.run.id), "start", ItemKind.DISCOVER, None, 0, 1, LeaseId(uuid.uuid4()), due_at=now
    )


def _parent(correlation: Any) -> tuple[RunId, str] | None:
    """`{run}.{step}` of an invoke; None for invokes by API."""
    if not isinstance(correlation, str):
        return None
    run_text, _, step_key = correlation.partition(".")
    run_id = parse_ulid(run_text)
    return (RunId(run_id), step_key) if run_id and step_key else None


def _by_uuid(view: EnvironmentView, text: str) -> KnownFunction | None:
    try:
        return view.functions.get(FunctionId(UUID(text)))
    except ValueError:
        return None
