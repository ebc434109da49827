"""The timeline of one run: what happened when, as rows of bars in percent, and where the time went.

Pure: facts from Postgres (loaded in `reads.run_page`) and the database's clock go in, display-ready rows come out.
Nothing here is text for people beyond names the tenant chose; templates find the words. All `…_ms` are milliseconds
since the run was queued unless they say otherwise, all `x` and `width` percent of the track.

How a step's row is found: calls come from history rows of kind `call` (one per answered call, `step_key` = the step
it was for or reported), the call in flight and the next due one from the live queue items, and everything that is no
call (sleep, wait, invoke) from the step row itself. Calls that belong to no step are drawn on the run's own row.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.reads.scale import Fold, Scale, Span, Tick, fold_idle, length, live_end, union, without

#: Rows of the first answer (measured: 200 rows cost a phone 0.4 s); the rest follows on request.
FIRST_ROWS = 200
#: Rows of one window after the first answer, and of one unfolding of equal steps.
WINDOW = 200
UNFOLD = 50
#: More steps of one name than this are one row.
MANY = 20
#: A bar is never narrower than this, or it would not be seen.
NARROWEST = 0.3
ENDED = frozenset({"completed", "failed", "cancelled", "skipped"})
#: States in which a step is still to change.
_OPEN_STATES = frozenset({"planned", "retrying", "sleeping", "waiting", "invoking"})
#: Kinds of steps whose work is a call of the app.
CALL_KINDS = frozenset({"run", "gateway", "ai"})
_DOM_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")


# ------------------------------------------------------------------ facts, as loaded


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the run row says. `status` is the stored one; `completed` counts settled steps."""

    status: str
    name: str
    version: int
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    #: The run this one replays, as a ULID.
    original: str | None = None


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One step without its payloads. `event_name` and `target` come from opts; `is_empty` is a memo of null."""

    key: str
    kind: str
    name: str
    state: str
    created_at: datetime
    settled_at: datetime | None
    event_name: str | None = None
    target: str | None = None
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class CallFacts:
    """One answered call. `outcome`: ok, error or ignored; `attempt` counts from 0; `ms` is how long the app took."""

    step_key: str | None
    item_key: str | None
    attempt: int
    started_at: datetime
    ended_at: datetime
    outcome: str
    queued_ms: float = 0.0
    retry_after_ms: float | None = None
    status: int | None = None
    sdk: str | None = None
    error_name: str | None = None
    error_message: str | None = None
    error_stack: str | None = None


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """Work still to do. `leased_at` is set while the call is in flight."""

    kind: str
    step_key: str | None
    attempt: int
    due_at: datetime
    leased_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the timeline is computed from.

    `versions`: the newest version of the run in which each step changed; `groups`: for steps opened together, the
    version that opened them.
    """

    run: RunFacts
    steps: Sequence[StepFacts]
    calls: Sequence[CallFacts]
    items: Sequence[ItemFacts]
    now: datetime
    versions: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    #: What was drawn of an ended run, by whether idle time is folded: windows of a large run ask for it again.
    drawings: "dict[bool, _Drawing]" = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StepFilter:
    """Which steps are drawn: names with this text, failed ones only, one kind only."""

    q: str = ""
    is_failed_only: bool = False
    kind: str = ""

    def __bool__(self) -> bool:
        return bool(self.q or self.is_failed_only or self.kind)


# ------------------------------------------------------------------ rows, as drawn


@dataclass(frozen=True, slots=True)
class Equal:
    """What a row says that stands for many steps of one name; lengths in milliseconds."""

    number: int
    failed: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One mark on a track. `kind`: queue, ok, fail, run, back, wait, invoke, cancel, reused, group or line."""

    kind: str
    x: float
    width: float
    ms: float

    @property
    def end(self) -> float:
        """The right edge in percent."""
        return self.x + self.width


@dataclass(frozen=True, slots=True)
class Note:
    """What is written beside the last bar: an instant or a length, and a name of the tenant's.

    `kind`: slept, until, matched, timed_out, waits, retry, reused or invoked.
    """

    kind: str
    at: datetime | None = None
    ms: float | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the timeline.

    `dom_id` is safe as an HTML id; `key` is what the URL carries (the step key, or `run` and `group-<version>`).
    `state` is the display state: queued, running, retrying, waiting, completed, failed, cancelled.
    `elapsed_from` is set while the row's time still grows.
    """

    dom_id: str
    key: str
    name: str
    kind: str
    state: str
    depth: int
    bars: tuple[Bar, ...]
    start_ms: float
    ms: float
    attempts: int = 0
    note: Note | None = None
    extra: str | None = None
    version: int = 0
    elapsed_from: datetime | None = None
    children: tuple["Row", ...] = ()
    equal: Equal | None = None

    @property
    def is_live(self) -> bool:
        """Whether the row looks different with every second that passes."""
        return self.elapsed_from is not None or self.state in {"queued", "running", "retrying", "waiting"}

    @property
    def is_bad(self) -> bool:
        """Whether the row is a failure to point at."""
        return self.state == "failed"


@dataclass(frozen=True, slots=True)
class TimeSpent:
    """Where the time went; the four add up to `total_ms`."""

    total_ms: float
    code_ms: float
    waiting_ms: float
    backoff_ms: float
    platform_ms: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything the page draws. `root` holds the rows; `left_out` are steps beyond the row limit.

    `rate` and `room`: percent per millisecond with which running bars grow, and how far they may; None when ended.
    """

    root: Row
    scale: Scale
    folds: tuple[Fold, ...]
    ticks: tuple[Tick, ...]
    spent: TimeSpent
    steps: int
    failed: int
    left_out: int
    rate: float | None
    room: float | None

    def flat(self) -> list[Row]:
        """All rows in the order they stand on the page, the run's own first."""
        return list(_flatten(self.root))


def dom_id(key: str) -> str:
    """A stable id for a step's row: the key itself where it is harmless, else a hash of it."""
    safe = key if _DOM_SAFE.fullmatch(key) else hashlib.sha256(key.encode(errors="replace")).hexdigest()[:32]
    return f"step-{safe}"


# ------------------------------------------------------------------ the computation


@dataclass(frozen=True, slots=True)
class _Mark:
    """A bar before the scale is known, in milliseconds."""

    kind: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Draft:
    """A row before the scale is known."""

    key: str
    name: str
    kind: str
    state: str
    marks: tuple[_Mark, ...]
    attempts: int = 0
    note: Note | None = None
    extra: str | None = None
    elapsed_from: datetime | None = None

    @property
    def start(self) -> float:
        return min((m.start for m in self.marks), default=0.0)

    @property
    def end(self) -> float:
        return max((m.end for m in self.marks), default=0.0)


def build(
    facts: Facts, *, is_folded: bool = True, limit: int = FIRST_ROWS, wanted: StepFilter | None = None
) -> Timeline:
    """Compute the timeline; `limit` bounds the rows drawn: rows of many, failed and open ones first, then the earliest."""
    run = facts.run
    drawing = _drawing(facts, is_folded=is_folded)
    shown, rest = _chosen(_units(drawing.drafts, wanted), limit)
    children = _nest(shown, facts, drawing.scale)
    root = _root(
        run,
        drawing.own,
        drawing.scale,
        facts,
        is_ended=drawing.is_ended,
        now_ms=drawing.now_ms,
        children=children,
    )
    until = drawing.end_ms if drawing.is_ended else drawing.now_ms
    rate, room = (None, None) if drawing.is_ended else drawing.scale.rate_at(drawing.now_ms)
    return Timeline(
        root=root,
        scale=drawing.scale,
        folds=drawing.scale.drawn_folds(until),
        ticks=drawing.scale.ticks(),
        spent=_spent(drawing.spans, until),
        steps=len(drawing.drafts),
        failed=sum(d.state == "failed" for d in drawing.drafts),
        left_out=len(rest),
        rate=rate,
        room=room,
    )


def window(
    facts: Facts,
    *,
    is_folded: bool = True,
    after: int = 0,
    group: str | None = None,
    wanted: StepFilter | None = None,
) -> tuple[tuple[Row, ...], int]:
    """Rows that the first answer left out, beginning with number `after`, and how many follow.

    With `group`, the key of a row of many: its steps, failed ones first, `UNFOLD` at a time.
    """
    drawing = _drawing(facts, is_folded=is_folded)
    if group is None:
        _, rest = _chosen(_units(drawing.drafts, wanted), FIRST_ROWS)
        rows = _nest(rest[after : after + WINDOW], facts, drawing.scale)
        return rows, max(0, len(rest) - after - WINDOW)
    members = [d for d in drawing.drafts if many_key(d.name) == group and _fits(d, wanted)]
    members.sort(key=lambda d: (d.state != "failed", d.start))
    rows = tuple(_row(d, 2, facts, drawing.scale) for d in members[after : after + UNFOLD])
    return rows, max(0, len(members) - after - UNFOLD)


def many_key(name: str) -> str:
    """The key of the row that stands for all steps of a name."""
    return "many-" + hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Everything before it is decided which rows are drawn."""

    drafts: "list[_Draft]"
    own: "tuple[_Mark, ...]"
    spans: dict[str, list[Span]]
    scale: Scale
    now_ms: float
    end_ms: float
    is_ended: bool


def _drawing(facts: Facts, *, is_folded: bool) -> _Drawing:
    if is_folded in facts.drawings:
        return facts.drawings[is_folded]
    run = facts.run
    zero = run.queued_at
    now_ms = max(0.0, _ms(zero, facts.now))
    is_ended = run.status in ENDED and run.ended_at is not None
    end_ms = max(1.0, _ms(zero, run.ended_at)) if run.ended_at is not None and is_ended else live_end(now_ms)

    calls: dict[str | None, list[CallFacts]] = defaultdict(list)
    known = {s.key for s in facts.steps}
    for call in sorted(facts.calls, key=lambda c: (c.started_at, c.attempt)):
        calls[call.step_key if call.step_key in known else None].append(call)
    items = _items_by_step(facts)

    drafts = [_step_draft(s, calls.get(s.key, ()), items.get(s.key), facts, now_ms) for s in facts.steps]
    own = _own_marks(calls.get(None, ()), items.get(None), facts, now_ms)
    spans = _spans([*drafts, _Draft("run", run.name, "root", run.status, own)])
    scale = _scale(spans, now_ms, end_ms, is_ended=is_ended) if is_folded else Scale(end_ms)
    drawing = _Drawing(drafts, own, spans, scale, now_ms, end_ms, is_ended)
    if is_ended:
        facts.drawings[is_folded] = drawing
    return drawing


def _fits(draft: "_Draft", wanted: StepFilter | None) -> bool:
    if not wanted:
        return True
    if wanted.is_failed_only and draft.state != "failed" and not any(m.kind == "fail" for m in draft.marks):
        return False
    return (not wanted.kind or draft.kind == wanted.kind) and wanted.q.casefold() in draft.name.casefold()


@dataclass(frozen=True, slots=True)
class _Many:
    """Steps of one name that are drawn as one row."""

    name: str
    members: "tuple[_Draft, ...]"

    @property
    def start(self) -> float:
        return min(d.start for d in self.members)

    @property
    def state(self) -> str:
        states = {d.state for d in self.members}
        order = ("running", "retrying", "waiting", "queued", "failed", "cancelled")
        return next((s for s in order if s in states), "completed")


def _units(drafts: "Sequence[_Draft]", wanted: StepFilter | None) -> "list[_Draft | _Many]":
    """What may be drawn, in start order: steps, and one row for each name that more than `MANY` steps have."""
    fitting = sorted((d for d in drafts if _fits(d, wanted)), key=lambda d: d.start)
    by_name: dict[str, list[_Draft]] = defaultdict(list)
    for draft in fitting:
        by_name[draft.name].append(draft)
    out: list[_Draft | _Many] = []
    for draft in fitting:
        members = by_name[draft.name]
        # Somebody who looks for a name wants to see its steps.
        if len(members) <= MANY or (wanted and wanted.q):
            out.append(draft)
        elif members[0] is draft:
            out.append(_Many(draft.name, tuple(members)))
    return out


def _ms(zero: datetime, at: datetime) -> float:
    return (at - zero) / timedelta(milliseconds=1)


def _items_by_step(facts: Facts) -> dict[str | None, ItemFacts]:
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


def _step_draft(
    step: StepFacts, calls: Sequence[CallFacts], item: ItemFacts | None, facts: Facts, now_ms: float
) -> _Draft:
    zero = facts.run.queued_at
    created = _ms(zero, step.created_at)
    settled = None if step.settled_at is None else _ms(zero, step.settled_at)
    is_over = facts.run.status in ENDED
    state = _display_state(step.state, item, calls, is_over=is_over)
    if settled is not None and settled < 0:
        # Copied from the run this one replays: nothing of it happened here.
        reused = Note("reused", name=facts.run.original)
        return _Draft(step.key, step.name, step.kind, state, (_Mark("reused", 0.0, 0.0),), note=reused)
    if step.kind not in CALL_KINDS and not calls:
        end = settled if settled is not None else _end_of(facts, now_ms)
        kind = "invoke" if step.kind == "invoke" else "wait"
        return _Draft(
            step.key,
            step.name,
            step.kind,
            state,
            (_Mark("cancel" if state == "cancelled" else kind, created, max(created, end)),),
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
        end = settled if settled is not None else _end_of(facts, now_ms)
        marks = [_Mark(mark, min(created, end), end)]
    note = None
    if state == "retrying" and item is not None:
        note = Note("retry", at=item.due_at)
    first = calls[0].started_at if calls else step.created_at
    return _Draft(
        step.key,
        step.name,
        step.kind,
        state,
        tuple(marks),
        attempts=attempts,
        note=note,
        elapsed_from=first if state in {"running", "retrying", "queued"} else None,
    )


def _end_of(facts: Facts, now_ms: float) -> float:
    ended = facts.run.ended_at
    return now_ms if ended is None else _ms(facts.run.queued_at, ended)


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
) -> tuple[list[_Mark], int]:
    """Queue, attempt and back-off marks in order, and the number of attempts (the one in flight included)."""
    marks: list[_Mark] = []
    attempts = 0
    free = planned_ms
    was_error = False
    for call in calls:
        start, end = _ms(zero, call.started_at), _ms(zero, call.ended_at)
        due = start - max(0.0, call.queued_ms)
        if free is not None and not was_error:
            due = min(due, free)
        if was_error and free is not None and due > free:
            marks.append(_Mark("back", free, due))
        if start - due >= 1:
            marks.append(_Mark("queue", max(0.0, due), start))
        kind = {"ok": "ok", "error": "fail"}.get(call.outcome, "cancel")
        marks.append(_Mark(kind, start, max(start, end)))
        attempts += call.outcome != "ignored"
        free, was_error = end, call.outcome == "error"
    if item is None or is_over:
        return marks, attempts
    due = _ms(zero, item.due_at)
    if item.leased_at is not None:
        start = _ms(zero, item.leased_at)
        if was_error and free is not None and due > free:
            marks.append(_Mark("back", free, min(due, start)))
            free = min(due, start)
        if free is not None and start - free >= 1 and (was_error or planned_ms is not None):
            marks.append(_Mark("queue", free, start))
        marks.append(_Mark("run", start, max(start, now_ms)))
        attempts += 1
    elif was_error and free is not None:
        # Only what has passed is drawn; the countdown beside it says the rest.
        marks.append(_Mark("back", free, min(due, now_ms)))
        if now_ms > due:
            marks.append(_Mark("queue", due, now_ms))
    elif planned_ms is not None and now_ms > planned_ms:
        marks.append(_Mark("queue", planned_ms, now_ms))
    return [m for m in marks if m.end >= m.start], attempts


def _own_marks(calls: Sequence[CallFacts], item: ItemFacts | None, facts: Facts, now_ms: float) -> tuple[_Mark, ...]:
    """Calls of the run that no step stands for: the function's own code. Its successes are part of the thin line."""
    is_over = facts.run.status in ENDED
    zero = facts.run.queued_at
    marks, _ = _call_marks(calls, item, zero=zero, planned_ms=None, now_ms=now_ms, is_over=is_over)
    return tuple(m for m in marks if m.kind != "queue")


def _scale(spans: dict[str, list[Span]], now_ms: float, end_ms: float, *, is_ended: bool) -> Scale:
    busy = list(spans["code"])
    if not is_ended and (not busy or now_ms - max(b for _, b in busy) < 5_000):
        # What lies ahead of a run at work is room to grow, not idle time.
        busy.append((min(now_ms, end_ms), end_ms))
    return fold_idle(busy, end_ms)


def _spans(drafts: Iterable[_Draft]) -> dict[str, list[Span]]:
    """All marks by what they count as: code, waiting or back-off."""
    meaning = {"ok": "code", "fail": "code", "run": "code", "wait": "waiting", "invoke": "waiting", "back": "backoff"}
    out: dict[str, list[Span]] = {"code": [], "waiting": [], "backoff": []}
    for draft in drafts:
        for mark in draft.marks:
            if mark.kind in meaning:
                out[meaning[mark.kind]].append((mark.start, mark.end))
    return out


def _spent(spans: dict[str, list[Span]], total_ms: float) -> TimeSpent:
    """Every instant counts once: code before waiting before back-off; what remains is queue and platform."""
    inside = {
        key: union((max(0.0, a), min(b, total_ms)) for a, b in values if a < total_ms) for key, values in spans.items()
    }
    code = inside["code"]
    waiting = without(inside["waiting"], code)
    backoff = without(inside["backoff"], union([*code, *waiting]))
    parts = (length(code), length(waiting), length(backoff))
    return TimeSpent(total_ms, *parts, max(0.0, total_ms - sum(parts)))


def _chosen(units: "Sequence[_Draft | _Many]", limit: int) -> "tuple[list[_Draft | _Many], list[_Draft | _Many]]":
    """At most `limit` rows, and the rest: rows of many, what failed or is open, then the earliest; in start order."""
    if len(units) <= limit:
        return list(units), []
    places = [i for i, u in enumerate(units) if isinstance(u, _Many) or u.state != "completed"][:limit]
    taken = set(places)
    for i in range(len(units)):
        if len(taken) >= limit:
            break
        taken.add(i)
    return [u for i, u in enumerate(units) if i in taken], [u for i, u in enumerate(units) if i not in taken]


def _nest(units: "Sequence[_Draft | _Many]", facts: Facts, scale: Scale) -> tuple[Row, ...]:
    """Rows under the run; steps that one answer planned together stand under a bracket."""
    members: dict[int, list[_Draft]] = defaultdict(list)
    for unit in units:
        if isinstance(unit, _Draft) and unit.key in facts.groups:
            members[facts.groups[unit.key]].append(unit)
    out: list[Row] = []
    done: set[int] = set()
    for unit in units:
        if isinstance(unit, _Many):
            out.append(_many_row(unit, facts, scale))
            continue
        group = facts.groups.get(unit.key)
        if group is None or len(members[group]) < 2:
            out.append(_row(unit, 1, facts, scale))
        elif group not in done:
            done.add(group)
            out.append(_group_row(group, members[group], facts, scale))
    return tuple(out)


def _many_row(many: _Many, facts: Facts, scale: Scale) -> Row:
    """One row for many: how many, how long, and where on the axis they lie thickest."""
    lengths = sorted(_shown_ms(d) for d in many.members)
    start, end = many.start, max(d.end for d in many.members)
    failed = sum(d.state == "failed" for d in many.members)
    key = many_key(many.name)
    return Row(
        dom_id=f"step-{key}",
        key=key,
        name=many.name,
        kind="many",
        state=many.state,
        depth=1,
        bars=_density(many.members, scale),
        start_ms=start,
        ms=end - start,
        version=max(facts.versions.get(d.key, 0) for d in many.members),
        equal=Equal(
            len(lengths), failed, lengths[len(lengths) // 2], lengths[min(len(lengths) - 1, len(lengths) * 95 // 100)]
        ),
    )


def _density(members: "Sequence[_Draft]", scale: Scale) -> tuple[Bar, ...]:
    """Up to 40 cells over the axis: `dense-1` to `dense-3` by how many steps begin there, `fail` where one failed."""
    cells = 40
    counts, bad = [0] * cells, [False] * cells
    for draft in members:
        place = min(cells - 1, int(scale.x(draft.start) * cells / 100))
        counts[place] += 1
        bad[place] |= draft.state == "failed"
    most = max(counts)
    return tuple(
        Bar(
            "fail" if bad[i] else f"dense-{1 + (3 * n - 1) // max(most, 1) if n else 0}",
            i * 100 / cells,
            100 / cells,
            0,
        )
        for i, n in enumerate(counts)
        if n
    )


def _group_row(group: int, members: Sequence[_Draft], facts: Facts, scale: Scale) -> Row:
    children = tuple(_row(d, 2, facts, scale) for d in members)
    start, end = min(d.start for d in members), max(d.end for d in members)
    states = {c.state for c in children}
    state = next(
        (s for s in ("running", "retrying", "waiting", "queued", "failed", "cancelled") if s in states), "completed"
    )
    return Row(
        dom_id=f"step-group-{group}",
        key=f"group-{group}",
        name="Parallel",
        kind="group",
        state=state,
        depth=1,
        bars=(_bar(_Mark("group", start, end), scale),),
        start_ms=start,
        ms=end - start,
        version=max(c.version for c in children),
        elapsed_from=min((c.elapsed_from for c in children if c.elapsed_from is not None), default=None),
        children=children,
    )


def _row(draft: _Draft, depth: int, facts: Facts, scale: Scale) -> Row:
    return Row(
        dom_id=dom_id(draft.key),
        key=draft.key,
        name=draft.name or draft.key,
        kind=draft.kind,
        state=draft.state,
        depth=depth,
        bars=tuple(_bar(m, scale) for m in draft.marks),
        start_ms=draft.start,
        ms=_shown_ms(draft),
        attempts=draft.attempts,
        note=draft.note,
        extra=draft.extra,
        version=facts.versions.get(draft.key, 0),
        elapsed_from=draft.elapsed_from,
    )


def _shown_ms(draft: _Draft) -> float:
    """From the first attempt to the last end; the wait before the first is the track's to show."""
    marks = [m for m in draft.marks if m.kind != "queue"] or draft.marks
    return max((m.end for m in marks), default=0.0) - min((m.start for m in marks), default=0.0)


def _root(
    run: RunFacts,
    own: Sequence[_Mark],
    scale: Scale,
    facts: Facts,
    *,
    is_ended: bool,
    now_ms: float,
    children: tuple[Row, ...],
) -> Row:
    started = now_ms if run.started_at is None else _ms(run.queued_at, run.started_at)
    end = _end_of(facts, now_ms)
    marks = [_Mark("queue", 0.0, min(started, end)), _Mark("line", min(started, end), end)]
    marks += [m for m in own if m.kind in {"fail", "run", "back"}]
    return Row(
        dom_id="step-run",
        key="run",
        name=run.name,
        kind="root",
        state=run_state(run.status, facts.items, facts.now),
        depth=0,
        bars=tuple(_bar(m, scale) for m in marks),
        start_ms=0.0,
        ms=end,
        attempts=sum(m.kind in {"fail", "run"} for m in own) if any(m.kind == "fail" for m in own) else 0,
        version=run.version,
        elapsed_from=None if is_ended else run.queued_at,
        children=children,
    )


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


def _bar(mark: _Mark, scale: Scale) -> Bar:
    x = scale.x(mark.start)
    width = scale.x(mark.end) - x
    narrowest = 1.0 if mark.kind == "reused" else NARROWEST
    if width < narrowest and mark.kind not in {"back", "queue", "line"}:
        width = narrowest
        x = min(x, 100 - narrowest)
    return Bar(mark.kind, round(x, 2), round(width, 2), mark.end - mark.start)


def _flatten(row: Row) -> Iterable[Row]:
    yield row
    for child in row.children:
        yield from _flatten(child)


def without_children(row: Row) -> Row:
    """The row alone, for answers that replace one line."""
    return replace(row, children=())
