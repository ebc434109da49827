"""All drafts of a run on one scale, and where the time went; what is drawn of an ended run is kept with its facts."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.reads.scale import Scale, Span, fold_idle, length, live_end, union, without
from app.reads.timeline.drafts import Draft, Mark, items_by_step, own_marks, step_draft
from app.reads.timeline.facts import ENDED, CallFacts, Facts, ms_since
from app.reads.timeline.rows import TimeSpent

#: Milliseconds of the shortest part that can fill the axis.
_SHORTEST_PART = 1.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything before it is decided which rows are drawn."""

    drafts: "list[Draft]"
    own: "tuple[Mark, ...]"
    spans: dict[str, list[Span]]
    scale: Scale
    now_ms: float
    end_ms: float
    is_ended: bool


def draw(facts: Facts, *, is_folded: bool, part: Span | None = None) -> Drawing:
    """Every step drawn; an ended run is drawn once for each way of folding.

    `part`: only that much of the run fills the axis, in milliseconds.
    """
    drawing = _whole(facts, is_folded=is_folded)
    if part is None:
        return drawing
    start, end = max(0.0, part[0]), min(part[1], drawing.end_ms)
    if end - start < _SHORTEST_PART:
        return drawing
    scale = fold_idle(drawing.spans["code"], end, start) if is_folded else Scale(end, (), start)
    return replace(drawing, scale=scale)


def _whole(facts: Facts, *, is_folded: bool) -> Drawing:
    if is_folded in facts.drawings:
        return facts.drawings[is_folded]
    run = facts.run
    zero = run.queued_at
    now_ms = max(0.0, ms_since(zero, facts.now))
    is_ended = run.status in ENDED and run.ended_at is not None
    end_ms = max(1.0, ms_since(zero, run.ended_at)) if run.ended_at is not None and is_ended else live_end(now_ms)

    calls: dict[str | None, list[CallFacts]] = defaultdict(list)
    known = {s.key for s in facts.steps}
    for call in sorted(facts.calls, key=lambda c: (c.started_at, c.attempt)):
        calls[call.step_key if call.step_key in known else None].append(call)
    items = items_by_step(facts)

    drafts = [step_draft(s, calls.get(s.key, ()), items.get(s.key), facts, now_ms) for s in facts.steps]
    own = own_marks(calls.get(None, ()), items.get(None), facts, now_ms)
    spans = _spans([*drafts, Draft("run", run.name, "root", run.status, own)])
    scale = _scale(spans, now_ms, end_ms, is_ended=is_ended) if is_folded else Scale(end_ms)
    drawing = Drawing(drafts, own, spans, scale, now_ms, end_ms, is_ended)
    if is_ended:
        facts.drawings[is_folded] = drawing
    return drawing


def _scale(spans: dict[str, list[Span]], now_ms: float, end_ms: float, *, is_ended: bool) -> Scale:
    busy = list(spans["code"])
    if not is_ended and not busy:
        # A run that only waits for its turn has nothing beside which its wait could be long.
        return Scale(end_ms)
    if not is_ended and (now_ms - max(b for _, b in busy) < 5_000):
        # What lies ahead of a run at work is room to grow, not idle time.
        busy.append((min(now_ms, end_ms), end_ms))
    return fold_idle(busy, end_ms)


def _spans(drafts: Iterable[Draft]) -> dict[str, list[Span]]:
    """All marks by what they count as: code, waiting or back-off."""
    meaning = {"ok": "code", "fail": "code", "run": "code", "wait": "waiting", "invoke": "waiting", "back": "backoff"}
    out: dict[str, list[Span]] = {"code": [], "waiting": [], "backoff": []}
    for draft in drafts:
        for mark in draft.marks:
            if mark.kind in meaning:
                out[meaning[mark.kind]].append((mark.start, mark.end))
    return out


def spent(spans: dict[str, list[Span]], total_ms: float) -> TimeSpent:
    """Every instant counts once: code before waiting before back-off; what remains is queue and platform."""
    inside = {
        key: union((max(0.0, a), min(b, total_ms)) for a, b in values if a < total_ms) for key, values in spans.items()
    }
    code = inside["code"]
    waiting = without(inside["waiting"], code)
    backoff = without(inside["backoff"], union([*code, *waiting]))
    parts = (length(code), length(waiting), length(backoff))
    return TimeSpent(total_ms, *parts, max(0.0, total_ms - sum(parts)))
