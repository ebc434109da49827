"""Rows as drawn: what templates get. All `…ms_since` are milliseconds since the run was queued, all `x` and `width` percent.

Nothing here is text for people beyond names the tenant chose; templates find the words.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from app.reads.scale import Fold, Scale, Tick

_DOM_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class StepFilter:
    """Which steps are drawn: names with this text, failed ones only, one kind only."""

    q: str = ""
    is_failed_only: bool = False
    kind: str = ""

    def __bool__(self) -> bool:
        return bool(self.q or self.is_failed_only or self.kind)


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
        return list(flatten(self.root))


def dom_id(key: str) -> str:
    """A stable id for a step's row: the key itself where it is harmless, else a hash of it."""
    safe = key if _DOM_SAFE.fullmatch(key) else hashlib.sha256(key.encode(errors="replace")).hexdigest()[:32]
    return f"step-{safe}"


def flatten(row: Row) -> Iterable[Row]:
    """A row and all below it, in the order they stand on the page."""
    yield row
    for child in row.children:
        yield from flatten(child)
