"""From milliseconds to percent: the time axis of a run, on which long idle time is folded away.

Pure. A gap in which nothing runs takes a fixed share of the width once it is longer than 5 s and 15 % of the run, so
that a run that slept for a week still shows the 40 ms that mattered. Spans are (start, end) in milliseconds since the
run was queued.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Span = tuple[float, float]

#: Width of one fold in percent of the track.
FOLD_SHARE = 7.0
#: What is folded: longer than this, and longer than this part of the run.
FOLD_MS = 5_000.0
FOLD_PART = 0.15
#: Distance between ticks in percent; labels of six characters do not touch on the narrowest track.
_TICK_APART = 13.0
_ROUND = (1, 2, 5, 10, 20, 50, 100, 200, 500,
          *(1000 * s for s in (1, 2, 5, 10, 15, 30)),
          *(60_000 * m for m in (1, 2, 5, 10, 15, 30)), *(3_600_000 * h for h in (1, 2, 3, 6, 12)))  # fmt: skip
_DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Fold:
    """One folded gap: place and width in percent, true length in milliseconds."""

    x: float
    width: float
    ms: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on the axis: place in percent, time since the start, distance to its neighbours in milliseconds.

    `is_minor` ticks may be left out on narrow screens.
    """

    x: float
    ms: float
    step_ms: float
    is_minor: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """The axis from `start_ms` to `end_ms`; `folds` are disjoint and in order. It starts at 0 but for a part of a run."""

    end_ms: float
    folds: tuple[Span, ...] = ()
    start_ms: float = 0.0

    @property
    def per_ms(self) -> float:
        """Percent of the track per millisecond outside folds."""
        open_ms = self.end_ms - self.start_ms - sum(b - a for a, b in self.folds)
        return (100 - FOLD_SHARE * len(self.folds)) / max(open_ms, 1e-3)

    def x(self, ms: float) -> float:
        """The place of an instant in percent, 0 to 100."""
        if ms >= self.end_ms:
            return 100.0
        if ms <= self.start_ms:
            return 0.0
        place, last = 0.0, self.start_ms
        for a, b in self.folds:
            if ms <= a:
                break
            place += (a - last) * self.per_ms
            if ms < b:
                return place + FOLD_SHARE * (ms - a) / (b - a)
            place += FOLD_SHARE
            last = b
        return min(100.0, max(0.0, place + (ms - last) * self.per_ms))

    def rate_at(self, ms: float) -> tuple[float, float]:
        """How fast that place moves (percent per millisecond) and how much room is left until the speed changes."""
        for a, b in self.folds:
            if a <= ms < b:
                return FOLD_SHARE / (b - a), self.x(b) - self.x(ms)
        until = min((a for a, _ in self.folds if a > ms), default=self.end_ms)
        return self.per_ms, max(0.0, self.x(until) - self.x(ms))

    @property
    def key(self) -> str:
        """Equal keys place everything equally; a page that shows another key needs all its rows again."""
        return "-".join(f"{v:.0f}" for v in (self.start_ms, self.end_ms, *(v for fold in self.folds for v in fold)))

    @classmethod
    def of(cls, key: str) -> "Scale | None":
        """The scale of a key, to the millisecond; None for what is none."""
        parts = key.split("-")
        if (
            len(parts) % 2
            or not 2 <= len(parts) <= 64
            or not all(p.isascii() and p.isdigit() and len(p) < 16 for p in parts)
        ):
            return None
        start, end, *rest = (float(p) for p in parts)
        folds = tuple(zip(rest[::2], rest[1::2], strict=True))
        edges = [start, *rest, end]
        is_in_order = all(a <= b for a, b in pairwise(edges))
        return cls(end, folds, start) if is_in_order and end - start > sum(b - a for a, b in folds) else None

    @property
    def bends(self) -> tuple[tuple[float, float], ...]:
        """(percent, milliseconds) at both ends and at the edges of folds: between them the axis is even."""
        edges = [self.start_ms, *(v for fold in self.folds for v in fold), self.end_ms]
        return tuple((self.x(ms), ms) for ms in edges)

    def drawn_folds(self, until_ms: float | None = None) -> tuple[Fold, ...]:
        """The folds as bands to draw; of one that is still open, only what has passed at `until_ms` counts."""
        until = self.end_ms if until_ms is None else until_ms
        return tuple(Fold(self.x(a), FOLD_SHARE, max(0.0, min(b, until) - a)) for a, b in self.folds)

    def ticks(self) -> tuple[Tick, ...]:
        """Labels at round times in the parts that are not folded."""
        step = round_up(_TICK_APART / self.per_ms)
        out: list[Tick] = []
        starts = [self.start_ms, *(b for _, b in self.folds)]
        ends = [*(a for a, _ in self.folds), self.end_ms]
        for start, end in zip(starts, ends, strict=True):
            first = -(-start // step) * step
            ms = first
            while ms <= end:
                x = self.x(ms)
                # Room for the label: before the next band, before the right edge, after the previous label.
                if x <= self.x(end) - 4.5 and (not out or x - out[-1].x >= 6):
                    out.append(Tick(x, ms, step, len(out) % 2 == 1))
                ms += step
        return tuple(out)


def round_up(ms: float) -> float:
    """The next round number of milliseconds: 1, 2, 5 … s, min, h, days."""
    for value in _ROUND:
        if value >= ms:
            return float(value)
    days = -(-ms // _DAY)
    return float(days * _DAY)


def fold_idle(busy: Iterable[Span], end_ms: float, start_ms: float = 0.0) -> Scale:
    """The scale of a run, or of a part of it, whose calls took the spans `busy`; everything between them is idle."""
    gaps: list[Span] = []
    last = start_ms
    inside = union((max(a, start_ms), min(b, end_ms)) for a, b in busy if b > start_ms and a < end_ms)
    for a, b in [*inside, (end_ms, end_ms)]:
        if a - last > FOLD_MS and a - last > FOLD_PART * (end_ms - start_ms):
            gaps.append((last, a))
        last = max(last, b)
    open_ms = end_ms - start_ms - length(gaps)
    if open_ms <= 0:
        return Scale(end_ms, (), start_ms)
    # A little of the gap stays on both sides, so that what borders it does not touch the band.
    margins = [min(0.05 * (b - a), 0.04 * open_ms) for a, b in gaps]
    return Scale(end_ms, tuple((a + m, b - m) for (a, b), m in zip(gaps, margins, strict=True)), start_ms)


def live_end(elapsed_ms: float) -> float:
    """The end of the axis while the run goes on: ahead of now, and the same for a while, so that rows need not move."""
    unit = 1000.0
    while True:
        for factor in (1, 1.5, 2, 3, 4, 6, 8):
            if factor * unit >= elapsed_ms * 1.08:
                return factor * unit
        unit *= 10


def union(spans: Iterable[Span]) -> list[Span]:
    """The same instants as disjoint spans in order."""
    out: list[Span] = []
    for a, b in sorted(s for s in spans if s[1] > s[0]):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        else:
            out.append((a, b))
    return out


def without(spans: Iterable[Span], taken: Sequence[Span]) -> list[Span]:
    """What of `spans` lies outside `taken` (disjoint and in order, as `union` gives it)."""
    out: list[Span] = []
    for span in union(spans):
        start, end = span
        for a, b in taken:
            if b <= start or a >= end:
                continue
            if a > start:
                out.append((start, a))
            start = b
        if start < end:
            out.append((start, end))
    return out


def length(spans: Iterable[Span]) -> float:
    """Milliseconds covered by disjoint spans."""
    return sum(b - a for a, b in spans)
