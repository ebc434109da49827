"""Running a step's own code and saving its result: what both shells share."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepwell import _answer
from stepwell._answer import Answer
from stepwell._api import Verdict
from stepwell._replay import Outcome, Replay, Save, Slot
from stepwell._wishes import inside_step

#: Saves ops during an open call; blocking.
Checkpoint = Callable[[Sequence[Mapping[str, Any]]], Verdict]

#: After this many seconds a call that saves its steps ends and asks to be called again (protocol 17.1 has the same).
MAX_RUNTIME_S = 10.0


class Budget:
    """How long one call may go on saving steps."""

    def __init__(self) -> None:
        self._ends = time.monotonic() + MAX_RUNTIME_S

    @property
    def is_spent(self) -> bool:
        """Whether the next step belongs into a new call."""
        return time.monotonic() > self._ends


def attempt(work: Callable[..., Any], args: tuple[Any, ...]) -> Outcome:
    """Run a step's code and catch what it raises, with steps inside it refused."""
    token = inside_step.set(True)
    try:
        return Outcome(work(*args))
    except Exception as error:  # noqa: BLE001  a failure of user code is the step's result
        return Outcome(error=error)
    finally:
        inside_step.reset(token)


def conclude(replay: Replay, save: Save, verdict: Verdict) -> Answer | Slot:
    """Go on after a checkpoint, or end the call: stale work stops, unsaved results travel with the answer (17.2)."""
    match verdict:
        case Verdict.SAVED:
            replay.saved(save.slot)
            return save.slot
        case Verdict.STALE:
            message = "The server has handed this work to another call, so this one stops here."
            return _answer.refusal(400, "StaleDispatchError", message, retry=False)
        case Verdict.UNSAVED:
            return _answer.report(save.ops)
