"""Steps as marks in milliseconds, before the scale of the axis is known.

Calls come from history rows of kind `call` (one per answered call, `step_key` = the step it was for or reported), the call
in flight and the next due one from the live queue items, and everything that is no call (sleep, wait, invoke) from the step
row itself. Calls that belong to no step are drawn on the run's own row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.reads.timeline.facts import CALL_KINDS, ENDED, CallFacts, Facts, ItemFacts, StepFacts, ms_since
from app.reads.timeline.rows import Note

#: States in which a step is still to change.
_OPEN_STATES = frozenset({"planned", "retrying", "sleeping", "waiting", "invoking"})


@dataclass(frozen=True, slots=True)
class Mark:
    """A bar before the scale is known, in milliseconds."""

    kind: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Draft:
    """A row before the scale is known."""

    key: str
    name: str
    kind: str
    state: str
    marks: tuple[Mark, ...]
    attempts: int = 0
    note: Note | None = None
    extra: str | None = None
    elapsed_from: datetime | None = None

    @property
    def start(self) -> float:
        """Where the first mark begins, in milliseconds."""
        return min((m.start for m in self.marks), default=0.0)

    @property
    def end(self) -> float:
        """Where the last mark ends, in milliseconds."""
        return max((m.end for m in self.marks), default=0.0)


def items_by_step(facts: Facts) -> dict[str | None, ItemFacts]:
    """The call (or timer) that each step is waiting for; a retried discovery call counts for the step it retries."""
    retrying = [s.key for s in facts.steps if s.state == "retrying"]
    known = {s.key for s in facts.steps}
    out: dict[str | None, ItemFacts] = {}
    for item in facts.items:
        key = item.step_key if item.step_key in known else None
        if key is None and item.attempt > 0 and len(retrying) == 1:
            key = retrying[0]
        # A call in flight says more than one that is due.
        if key not in out or item.leased_at is not None:
            out[key] = item
    return out


def step_draft(
    step: StepFacts, calls: Sequence[CallFacts], item: ItemFacts | None, facts: Facts, now_ms: float
) -> Draft:
    """One step as marks; `calls` in the order they started, `item` its call or timer to come."""
    zero = facts.run.queued_at
    created = ms_since(zero, step.created_at)
    settled = None if step.settled_at is None else ms_since(zero, step.settled_at)
    is_over = facts.run.status in ENDED
    state = _display_state(step.state, item, calls, is_over=is_over)
    if settled is not None and settled < 0:
        # Copied from the run this one replays: nothing of it happened here.
        reused = Note("reused", name=facts.run.original)
        return Draft(step.key, step.name, step.kind, state, (Mark("reused", 0.0, 0.0),), note=reused)
    if step.kind not in CALL_KINDS and not calls:
        end = settled if settled is not None else end_of(facts, now_ms)
        kind = "invoke" if step.kind == "invoke" else "wait"
        return Draft(
            step.key,
            step.name,
            step.kind,
            state,
            (Mark("cancel" if state == "cancelled" else kind, created, max(created, end)),),
            note=_timer_note(step, item, settled, created),
            extra=step.event_name or step.target,
            elapsed_from=step.created_at if state in {"waiting", "running"} else None,
        )
    marks, attempts = _call_marks(
        calls,
        item,
        zero=zero,
        planned_ms=created if _is_planned(step, calls) else None,
        now_ms=now_ms,
        is_over=is_over,
    )
    if not marks:
        mark = {"failed": "fail", "completed": "ok", "cancelled": "cancel"}.get(state, "queue")
        end = settled if settled is not None else end_of(facts, now_ms)
        marks = [Mark(mark, min(created, end), end)]
    note = None
    if state == "retrying" and item is not None:
        note = Note("retry", at=item.due_at)
    first = calls[0].started_at if calls else step.created_at
    return Draft(
        step.key,
        step.name,
        step.kind,
        state,
        tuple(marks),
        attempts=attempts,
        note=note,
        elapsed_from=first if state in {"running", "retrying", "queued"} else None,
    )


def end_of(facts: Facts, now_ms: float) -> float:
    """Where the run ends, or now while it goes on, in milliseconds."""
    ended = facts.run.ended_at
    return now_ms if ended is None else ms_since(facts.run.queued_at, ended)


def _is_planned(step: StepFacts, calls: Sequence[CallFacts]) -> bool:
    """Planned steps exist before their first call; inline ones are created by its answer."""
    return not calls or step.created_at < calls[0].started_at


def _display_state(state: str, item: ItemFacts | None, calls: Sequence[CallFacts], *, is_over: bool) -> str:
    if state in _OPEN_STATES and is_over:
        return "cancelled"
    if state in {"sleeping", "waiting"}:
        return "waiting"
    if state == "invoking":
        return "running"
    if state in {"planned", "retrying"}:
        if item is not None and item.leased_at is not None:
            return "running"
        return "retrying" if state == "retrying" or calls else "queued"
    return state


def _timer_note(step: StepFacts, item: ItemFacts | None, settled: float | None, created: float) -> Note | None:
    if step.kind == "sleep":
        if settled is not None:
            return Note("slept", at=step.settled_at)
        return Note("until", at=item.due_at) if item is not None else None
    if step.kind == "invoke":
        return Note("invoked", name=step.target) if step.target else None
    name = step.event_name or step.name
    if settled is None:
        return Note("waits", at=item.due_at if item is not None else None, name=name)
    if step.state != "completed":
        return None
    return Note("timed_out" if step.is_empty else "matched", ms=settled - created, name=name)


def _call_marks(
    calls: Sequence[CallFacts],
    item: ItemFacts | None,
    *,
    zero: datetime,
    planned_ms: float | None,
    now_ms: float,
    is_over: bool,
) -> tuple[list[Mark], int]:
    """Queue, attempt and back-off marks in order, and the number of attempts (the one in flight included)."""
    marks: list[Mark] = []
    attempts = 0
    free = planned_ms
    was_error = False
    for call in calls:
        start, end = ms_since(zero, call.started_at), ms_since(zero, call.ended_at)
        due = start - max(0.0, call.queued_ms)
        if free is not None and not was_error:
            due = min(due, free)
        if was_error and free is not None and due > free:
            marks.append(Mark("back", free, due))
        if start - due >= 1:
            marks.append(Mark("queue", max(0.0, due), start))
        kind = {"ok": "ok", "error": "fail"}.get(call.outcome, "cancel")
        marks.append(Mark(kind, start, max(start, end)))
        attempts += call.outcome != "ignored"
        free, was_error = end, call.outcome == "error"
    if item is None or is_over:
        return marks, attempts
    due = ms_since(zero, item.due_at)
    if item.leased_at is not None:
        start = ms_since(zero, item.leased_at)
        if was_error and free is not None and due > free:
            marks.append(Mark("back", free, min(due, start)))
            free = min(due, start)
        if free is not None and start - free >= 1 and (was_error or planned_ms is not None):
            marks.append(Mark("queue", free, start))
        marks.append(Mark("run", start, max(start, now_ms)))
        attempts += 1
    elif was_error and free is not None:
        # Only what has passed is drawn; the countdown beside it says the rest.
        marks.append(Mark("back", free, min(due, now_ms)))
        if now_ms > due:
            marks.append(Mark("queue", due, now_ms))
    elif planned_ms is not None and now_ms > planned_ms:
        marks.append(Mark("queue", planned_ms, now_ms))
    return [m for m in marks if m.end >= m.start], attempts


def own_marks(calls: Sequence[CallFacts], item: ItemFacts | None, facts: Facts, now_ms: float) -> tuple[Mark, ...]:
    """Calls of the run that no step stands for: the function's own code. Its successes are part of the thin line."""
    is_over = facts.run.status in ENDED
    zero = facts.run.queued_at
    marks, _ = _call_marks(calls, item, zero=zero, planned_ms=None, now_ms=now_ms, is_over=is_over)
    return tuple(m for m in marks if m.kind != "queue")


def run_state(status: str, items: Sequence[ItemFacts], now: datetime) -> str:
    """The state shown for a run: running ones are waiting when no call is ahead, retrying when only a back-off is."""
    if status != "running":
        return status
    calls = [i for i in items if i.kind in {"discover", "step"}]
    if not calls:
        return "waiting" if items else "running"
    if all(i.leased_at is None and i.attempt > 0 and i.due_at > now for i in calls):
        return "retrying"
    return "running"
