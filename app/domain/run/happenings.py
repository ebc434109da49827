"""What came in, in the past tense. The closed set of things that can move a run."""

from dataclasses import dataclass
from datetime import timedelta

from app.domain.protocol.opcodes import Op
from app.domain.protocol.reply import Reply
from app.domain.run.state import ItemKind


@dataclass(frozen=True, slots=True)
class Replied:
    """The app answered the call of item `item_key`, or could not be reached (`Failed`).

    Only the holder of the item's lease may say so: the fence keeps a second copy of an answer that was retried away.
    """

    item_key: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A running call reported steps it has done; the call goes on (protocol 17)."""

    item_key: str
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A sleep or a timeout item came due."""

    item_key: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """Something a step waited for arrived: an event, a signal, a child's end. `memo` as in protocol 10.3."""

    step_key: str
    memo: bytes
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody or some rule ends the run. `cause`: `api`, `event`, `start_timeout`, `finish_timeout`, `singleton`, `bulk`."""

    cause: str


@dataclass(frozen=True, slots=True)
class DeadlineDue:
    """The run should have started, or ended, by now: `kind` is the item's. `is_calling`: its first call is under way."""

    item_key: str
    kind: ItemKind
    is_calling: bool = False


@dataclass(frozen=True, slots=True)
class Poisoned:
    """The item killed or lost its worker too often and is set aside (F17)."""

    item_key: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """The worker made the request of a gateway step: `memo` is what it brought, else `error` why it brought nothing.

    `is_final`: the same request would fail again. `retry_after` is what the other side asked for, clamped.
    """

    item_key: str
    memo: bytes | None
    error: bytes | None = None
    retry_after: timedelta | None = None
    is_final: bool = False


Happening = Replied | Checkpointed | TimerDue | Resumed | CancelRequested | DeadlineDue | Poisoned | Fetched
