"""Crons: schedules are written by syncs, and every due time gets one answer (I21).

    schedules.next_due ─► locked, skip locked ─► newest due time: event and run     ┐ one transaction: the answer's row,
                                               └► older ones: recorded as missed    ┘ the run and the next due time

The run's id follows from function and due time, so even two schedulers that both believe to be first make one run, and
two crons of a function that meet make one as well (protocol 24). After an outage the newest missed time runs, once (F27).
A cron of something archived gets the answer `gone` and sleeps (`next_due` infinity) until it is back; what it missed is not made up.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from app.domain.cron import jitter_of, read_cron
from app.domain.flow.gates import EventRef
from app.domain.ids import EventId, FunctionId, RunId, derive_run_id, derive_uuid, millis, ulid_of
from app.domain.protocol.function_config import FunctionConfig
from app.domain.scope import Scope
from app.engine import pause_points
from app.engine.catalogue import EnvironmentView
from app.engine.schedule import Plan, Schedule, Wish
from app.engine.stored import Stored
from app.store.named import fetch, named

#: Name of the event that a cron's run gets (protocol 6).
SCHEDULED = "inngest/scheduled.timer"
#: Schedules answered in one transaction, and due times of one of them.
_SCHEDULES = 20
_TIMES = 5000


async def put_schedules(connection: Any, scope: Scope, functions: list[tuple[FunctionId, FunctionConfig]]) -> None:
    """Bring the schedules of functions in step with their settings: new ones count from now, gone ones end at once."""
    now: datetime = await connection.fetchval("select clock()")
    rows: dict[UUID, tuple[UUID, str, int, datetime]] = {}
    for function_id, config in functions:
        for trigger in config.triggers:
            if trigger.cron:
                due = read_cron(trigger.cron).next_after(now)
                jitter = int((trigger.jitter or timedelta()) / timedelta(milliseconds=1))
                if due is not None:
                    schedule_id = derive_uuid("schedule", function_id.bytes, trigger.cron)
                    rows[schedule_id] = (function_id, trigger.cron, jitter, due)
    await fetch(
        connection,
        named("flow", "put_schedules"),
        functions=[function_id for function_id, _ in functions],
        id=list(rows),
        account=scope.account_id,
        environment=scope.environment_id,
        function=[r[0] for r in rows.values()],
        cron=[r[1] for r in rows.values()],
        jitter=[r[2] for r in rows.values()],
        due=[r[3] for r in rows.values()],
    )


async def fire(
    connection: Any, station: Schedule, view_of: Callable[[Any], Awaitable[EnvironmentView]], plan: Plan
) -> datetime | None:
    """Answer the due times of schedules; the runs go into `plan`. None when nothing is due.

    Rows stay locked until the caller commits what is in the plan.
    """
    rows = await fetch(connection, named("flow", "due_schedules"), room=_SCHEDULES)
    if not rows:
        return None
    now: datetime = rows[0]["now"]
    answers: list[tuple[Any, ...]] = []
    moves: list[tuple[UUID, datetime]] = []
    wishes: dict[RunId, Wish] = {}
    for row in rows:
        times, following = _due_times(row["cron"], row["next_due"], now)
        moves.append((row["id"], following))
        is_complete = following > now
        # While more missed times than one transaction takes are left, none of these is the newest.
        missed, newest = (times[:-1], times[-1]) if is_complete else (times, None)
        answers += [(row, due, "missed", None) for due in missed]
        if newest is None:
            continue
        view = await view_of(row)
        known = view.functions.get(row["function_id"])
        if known is None or known.is_archived or row["is_archived"]:
            # Nobody is to be started any more; `take_up` counts anew when it is back.
            moves[-1] = (row["id"], datetime.max.replace(tzinfo=UTC))
            answers.append((row, newest, "gone", None))
            continue
        event = _event(row, newest, now)
        run_id = derive_run_id(known.id, b"cron" + newest.isoformat().encode(), newest)
        answers.append((row, newest, "paused" if known.function.is_paused else "ran", run_id))
        starts_at = datetime.fromtimestamp(event.ts / 1000, UTC) if row["jitter_ms"] else None
        wishes.setdefault(run_id, Wish(event, view, known, cron=row["cron"], run_id=run_id, starts_at=starts_at))
    await fetch(
        connection,
        named("flow", "answer_schedules"),
        schedule=[row["id"] for row, *_ in answers],
        due=[due for _, due, *_ in answers],
        account=[row["account_id"] for row, *_ in answers],
        environment=[row["environment_id"] for row, *_ in answers],
        function=[row["function_id"] for row, *_ in answers],
        outcome=[outcome for *_, outcome, _ in answers],
        run=[run for *_, run in answers],
        moved=[schedule_id for schedule_id, _ in moves],
        next=[due if due.year < 9999 else None for _, due in moves],
    )
    await fetch(
        connection,
        named("flow", "store_events"),
        environment=[w.view.scope.environment_id for w in wishes.values()],
        account=[w.view.scope.account_id for w in wishes.values()],
        id=[w.event.ref.id for w in wishes.values()],
        name=[w.event.name for w in wishes.values()],
        client_id=[w.event.client_id for w in wishes.values()],
        ts=[w.event.ts for w in wishes.values()],
        payload=[w.event.payload.decode() for w in wishes.values()],
    )
    await pause_points.reached("cron.written", list(wishes))
    await station.decide(connection, list(wishes.values()), plan, now)
    return now


async def take_up(connection: Any) -> int:
    """Count anew for crons of functions, apps and environments that were archived and are back; returns how many."""
    rows = await fetch(connection, named("flow", "parked_schedules"), room=_SCHEDULES)
    if not rows:
        return 0
    dues = [read_cron(row["cron"]).next_after(row["now"]) for row in rows]
    await fetch(connection, named("flow", "take_up_schedules"), id=[row["id"] for row in rows], due=dues)
    return len(rows)


def _due_times(cron: str, first: datetime, now: datetime) -> tuple[list[datetime], datetime]:
    """The due times from `first` to now, and the one that follows the last of them."""
    times = [first]
    for due in read_cron(cron).due_times(first):
        if due > now or len(times) >= _TIMES:
            return times, due
        times.append(due)
    return times, datetime.max.replace(tzinfo=UTC)


def _event(row: Any, due: datetime, now: datetime) -> Stored:
    """The event of a due time; the same due time makes the same event."""
    fire_at = due + jitter_of(row["id"].bytes + due.isoformat().encode(), timedelta(milliseconds=row["jitter_ms"]))
    ts = millis(fire_at)
    event_id = EventId(ulid_of(millis(due), sha256(b"cron" + row["id"].bytes + due.isoformat().encode()).digest()[:10]))
    client_id = _time(due)
    value = {
        "data": {
            "cron": row["cron"],
            "fireAt": _time(datetime.fromtimestamp(ts / 1000, UTC)),
            "scheduledAt": client_id,
        },
        "id": client_id,
        "name": SCHEDULED,
        "ts": ts,
        "user": {},
    }
    return Stored(
        EventRef(event_id, now), SCHEDULED, ts, client_id, msgspec.json.encode(value, order="sorted"), lambda: value
    )


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
