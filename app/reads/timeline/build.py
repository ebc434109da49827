"""The timeline of one run: which rows are drawn, under which heads, and their bars in percent.

Pure: facts and the database's clock go in, display-ready rows come out.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from app.reads.scale import Scale, Span
from app.reads.timeline.drafts import Draft, Mark, end_of, run_state
from app.reads.timeline.drawing import draw, spent
from app.reads.timeline.facts import Facts, RunFacts, ms_since
from app.reads.timeline.rows import Bar, Equal, Row, StepFilter, Timeline, dom_id

#: Rows of the first answer (measured: 200 rows cost a phone 0.4 s); the rest follows on request.
FIRST_ROWS = 200

#: Rows of one window after the first answer, and of one unfolding of equal steps.
WINDOW = 200

UNFOLD = 50

#: More steps of one name than this are one row.
MANY = 20

#: A bar is never narrower than this, or it would not be seen.
NARROWEST = 0.3


@dataclass(frozen=True, slots=True)
class Many:
    """Steps of one name that are drawn as one row."""

    name: str
    members: "tuple[Draft, ...]"

    @property
    def start(self) -> float:
        """When the first of them begins."""
        return min(d.start for d in self.members)

    @property
    def state(self) -> str:
        """The state that wants to be seen most."""
        states = {d.state for d in self.members}
        order = ("running", "retrying", "waiting", "queued", "failed", "cancelled")
        return next((s for s in order if s in states), "completed")


def build(
    facts: Facts,
    *,
    is_folded: bool = True,
    limit: int = FIRST_ROWS,
    wanted: StepFilter | None = None,
    part: Span | None = None,
) -> Timeline:
    """Compute the timeline; `limit` bounds the rows drawn: rows of many, failed and open ones first, then the earliest.

    `part` is the stretch of the run that fills the axis, in milliseconds.
    """
    run = facts.run
    drawing = draw(facts, is_folded=is_folded, part=part)
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
    is_still = drawing.is_ended or not drawing.scale.start_ms <= drawing.now_ms < drawing.scale.end_ms
    rate, room = (None, None) if is_still else drawing.scale.rate_at(drawing.now_ms)
    return Timeline(
        root=root,
        scale=drawing.scale,
        folds=drawing.scale.drawn_folds(until),
        ticks=drawing.scale.ticks(),
        spent=spent(drawing.spans, until),
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
    part: Span | None = None,
) -> tuple[tuple[Row, ...], int]:
    """Rows that the first answer left out, beginning with number `after`, and how many follow.

    With `group`, the key of a row of many: its steps, failed ones first, `UNFOLD` at a time.
    """
    drawing = draw(facts, is_folded=is_folded, part=part)
    if group is None:
        _, rest = _chosen(_units(drawing.drafts, wanted), FIRST_ROWS)
        rows = _nest(rest[after : after + WINDOW], facts, drawing.scale)
        return rows, max(0, len(rest) - after - WINDOW)
    members = [d for d in drawing.drafts if many_key(d.name) == group and _fits(d, wanted)]
    members.sort(key=lambda d: (d.state != "failed", d.start))
    rows = tuple(_row(d, 2, facts, drawing.scale) for d in members[after : after + UNFOLD])
    return rows, max(0, len(members) - after - UNFOLD)


def inside(facts: Facts, offset_ms: float, scale: Scale) -> tuple[tuple[Row, ...], int]:
    """The steps of an invoked run as rows under its parent's step, and how many are left out.

    `offset_ms` is how long after its parent the run was queued, `scale` the parent's. Rows stand one level deeper than
    their own page has them, with ids that no row of the parent has.
    """
    drafts = [
        replace(d, marks=tuple(replace(m, start=m.start + offset_ms, end=m.end + offset_ms) for m in d.marks))
        for d in draw(facts, is_folded=False).drafts
    ]
    shown, rest = _chosen(_units(drafts, None), FIRST_ROWS)
    return tuple(_deeper(row) for row in _nest(shown, facts, scale)), len(rest)


def _deeper(row: Row) -> Row:
    return replace(
        row, dom_id=f"in-{row.dom_id}", depth=row.depth + 1, children=tuple(_deeper(child) for child in row.children)
    )


def many_key(name: str) -> str:
    """The key of the row that stands for all steps of a name."""
    return "many-" + hashlib.sha256(name.encode(errors="replace")).hexdigest()[:16]


def _fits(draft: "Draft", wanted: StepFilter | None) -> bool:
    if not wanted:
        return True
    if wanted.is_failed_only and draft.state != "failed" and not any(m.kind == "fail" for m in draft.marks):
        return False
    return (not wanted.kind or draft.kind == wanted.kind) and wanted.q.casefold() in draft.name.casefold()


def _units(drafts: "Sequence[Draft]", wanted: StepFilter | None) -> "list[Draft | Many]":
    """What may be drawn, in start order: steps, and one row for each name that more than `MANY` steps have."""
    fitting = sorted((d for d in drafts if _fits(d, wanted)), key=lambda d: d.start)
    by_name: dict[str, list[Draft]] = defaultdict(list)
    for draft in fitting:
        by_name[draft.name].append(draft)
    out: list[Draft | Many] = []
    for draft in fitting:
        members = by_name[draft.name]
        # Somebody who looks for a name wants to see its steps.
        if len(members) <= MANY or (wanted and wanted.q):
            out.append(draft)
        elif members[0] is draft:
            out.append(Many(draft.name, tuple(members)))
    return out


def _chosen(units: "Sequence[Draft | Many]", limit: int) -> "tuple[list[Draft | Many], list[Draft | Many]]":
    """At most `limit` rows, and the rest: rows of many, what failed or is open, then the earliest; in start order."""
    if len(units) <= limit:
        return list(units), []
    places = [i for i, u in enumerate(units) if isinstance(u, Many) or u.state != "completed"][:limit]
    taken = set(places)
    for i in range(len(units)):
        if len(taken) >= limit:
            break
        taken.add(i)
    return [u for i, u in enumerate(units) if i in taken], [u for i, u in enumerate(units) if i not in taken]


def _nest(units: "Sequence[Draft | Many]", facts: Facts, scale: Scale) -> tuple[Row, ...]:
    """Rows under the run; steps that one answer planned together stand under a bracket."""
    members: dict[int, list[Draft]] = defaultdict(list)
    for unit in units:
        if isinstance(unit, Draft) and unit.key in facts.groups:
            members[facts.groups[unit.key]].append(unit)
    out: list[Row] = []
    done: set[int] = set()
    for unit in units:
        if isinstance(unit, Many):
            out.append(_many_row(unit, facts, scale))
            continue
        group = facts.groups.get(unit.key)
        if group is None or len(members[group]) < 2:
            out.append(_row(unit, 1, facts, scale))
        elif group not in done:
            done.add(group)
            out.append(_group_row(group, members[group], facts, scale))
    return tuple(out)


def _many_row(many: Many, facts: Facts, scale: Scale) -> Row:
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


def _density(members: "Sequence[Draft]", scale: Scale) -> tuple[Bar, ...]:
    """Up to 40 cells over the axis: `dense-1` to `dense-3` by how many steps begin there, `fail` where one failed."""
    cells = 40
    counts, bad = [0] * cells, [False] * cells
    for draft in members:
        if not scale.start_ms <= draft.start <= scale.end_ms:
            continue
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


def _group_row(group: int, members: Sequence[Draft], facts: Facts, scale: Scale) -> Row:
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
        bars=_bars((Mark("group", start, end),), scale),
        start_ms=start,
        ms=end - start,
        version=max(c.version for c in children),
        elapsed_from=min((c.elapsed_from for c in children if c.elapsed_from is not None), default=None),
        children=children,
    )


def _row(draft: Draft, depth: int, facts: Facts, scale: Scale) -> Row:
    return Row(
        dom_id=dom_id(draft.key),
        key=draft.key,
        name=draft.name or draft.key,
        kind=draft.kind,
        state=draft.state,
        depth=depth,
        bars=_bars(draft.marks, scale),
        start_ms=draft.start,
        ms=_shown_ms(draft),
        attempts=draft.attempts,
        note=draft.note,
        extra=draft.extra,
        version=facts.versions.get(draft.key, 0),
        elapsed_from=draft.elapsed_from,
    )


def _shown_ms(draft: Draft) -> float:
    """From the first attempt to the last end; the wait before the first is the track's to show."""
    marks = [m for m in draft.marks if m.kind != "queue"] or draft.marks
    return max((m.end for m in marks), default=0.0) - min((m.start for m in marks), default=0.0)


def _root(
    run: RunFacts,
    own: Sequence[Mark],
    scale: Scale,
    facts: Facts,
    *,
    is_ended: bool,
    now_ms: float,
    children: tuple[Row, ...],
) -> Row:
    started = now_ms if run.started_at is None else ms_since(run.queued_at, run.started_at)
    end = end_of(facts, now_ms)
    marks = [Mark("queue", 0.0, min(started, end))]
    if run.started_at is not None or is_ended:
        marks.append(Mark("line" if end <= scale.end_ms else "through", min(started, end), end))
    marks += [m for m in own if m.kind in {"fail", "run", "back"}]
    return Row(
        dom_id="step-run",
        key="run",
        name=run.name,
        kind="root",
        state=run_state(run.status, facts.items, facts.now),
        depth=0,
        bars=_bars(marks, scale),
        start_ms=0.0,
        ms=end,
        attempts=sum(m.kind in {"fail", "run"} for m in own) if any(m.kind == "fail" for m in own) else 0,
        version=run.version,
        elapsed_from=None if is_ended else run.queued_at,
        children=children,
    )


def _bars(marks: Iterable[Mark], scale: Scale) -> tuple[Bar, ...]:
    """The marks that lie in what the axis shows."""
    return tuple(_bar(m, scale) for m in marks if m.end >= scale.start_ms and m.start <= scale.end_ms)


def _bar(mark: Mark, scale: Scale) -> Bar:
    x = scale.x(mark.start)
    width = scale.x(mark.end) - x
    narrowest = 1.0 if mark.kind == "reused" else NARROWEST
    if width < narrowest and mark.kind not in {"back", "queue", "line", "through"}:
        width = narrowest
        x = min(x, 100 - narrowest)
    return Bar(mark.kind, round(x, 2), round(width, 2), mark.end - mark.start)
