"""From milliseconds to percent: the time axis of a run, on which long idle time is folded away.

Pure. A gap in which nothing runs takes a fixed share of the width once it is longer than 5 s and 15 % of the run, so
that a run that slept for a week still shows the 40 ms that mattered. Spans are (start, end) in milliseconds since the
run was queued.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    """The axis from 0 to `end_ms`; `folds` are disjoint and in order."""

    end_ms: float
    folds: tuple[Span, ...] = ()

    @property
    def per_ms(self) -> float:
        """Percent of the track per millisecond outside folds."""
        open_ms = self.end_ms - sum(b - a for a, b in self.folds)
        return (100 - FOLD_SHARE * len(self.folds)) / max(open_ms, 1e-3)

    def x(self, ms: float) -> float:
        """The place of an instant in percent, 0 to 100."""
        if ms >= self.end_ms:
            return 100.0
        place, last = 0.0, 0.0
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
        return "-".join(f"{v:.0f}" for v in (self.end_ms, *(v for fold in self.folds for v in fold)))

    def drawn_folds(self, until_ms: float | None = None) -> tuple[Fold, ...]:
        """The folds as bands to draw; of one that is still open, only what has passed at `until_ms` counts."""
        until = self.end_ms if until_ms is None else until_ms
        return tuple(Fold(self.x(a), FOLD_SHARE, max(0.0, min(b, until) - a)) for a, b in self.folds)

    def ticks(self) -> tuple[Tick, ...]:
        """Labels at round times in the parts that are not folded."""
        step = round_up(_TICK_APART / self.per_ms)
        out: list[Tick] = []
        starts = [0.0, *(b for _, b in self.folds)]
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


def fold_idle(busy: Iterable[Span], end_ms: float) -> Scale:
    """The scale of a run whose calls took the spans `busy`; everything between them is idle."""
    gaps: list[Span] = []
    last = 0.0
    for a, b in [*union(busy), (end_ms, end_ms)]:
        if a - last > FOLD_MS and a - last > FOLD_PART * end_ms:
            gaps.append((last, a))
        last = max(last, b)
    open_ms = end_ms - length(gaps)
    if open_ms <= 0:
        return Scale(end_ms)
    # A little of the gap stays on both sides, so that what borders it does not touch the band.
    margins = [min(0.05 * (b - a), 0.04 * open_ms) for a, b in gaps]
    return Scale(end_ms, tuple((a + m, b - m) for (a, b), m in zip(gaps, margins, strict=True)))


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
