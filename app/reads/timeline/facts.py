"""What the timeline of a run is computed from: facts as `reads.run_records` makes them of database rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.reads.timeline.drawing import Drawing

ENDED = frozenset({"completed", "failed", "cancelled", "skipped"})

#: Kinds of steps whose work is a call of the app.
CALL_KINDS = frozenset({"run", "gateway", "ai"})


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
class ModelFacts:
    """Which model answered a request, and what it read and wrote in tokens; None where the provider did not say."""

    provider: str | None
    model: str | None
    tokens_read: int | None
    tokens_written: int | None


@dataclass(frozen=True, slots=True)
class CallFacts:
    """One answered call of the app, or request made for a step. `outcome`: ok, error or ignored; `attempt` counts from 0."""

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
    request_id: str | None = None
    model: ModelFacts | None = None


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
    drawings: "dict[bool, Drawing]" = field(default_factory=dict, compare=False, repr=False)


def ms_since(zero: datetime, at: datetime) -> float:
    """Milliseconds from one instant to another."""
    return (at - zero) / timedelta(milliseconds=1)
