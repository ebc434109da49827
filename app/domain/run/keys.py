"""Names of a run's queue items. A key lives once in a run's whole life, so doing the work twice makes one row.

A discovery after settled steps is named by how many there are (that number only grows), one that follows no new step
by how many discoveries there were (that number grows too), a step's own items by the step.
"""

from collections.abc import Iterable
from typing import Final

from app.domain.ids import RunId, derive_uuid

START: Final = "start"
START_TIMEOUT: Final = "start_timeout"
FINISH_TIMEOUT: Final = "finish_timeout"


def discover(completed: int) -> str:
    """A discovery after settled steps; `completed` is how many there are with them."""
    return f"discover:{completed}"


def discover_again(number: int) -> str:
    """A discovery that follows no new step; `number` is its place among all discoveries of the run."""
    return f"discover:again:{number}"


def discover_group(group: str) -> str:
    """The discovery after the last member of a group."""
    return f"discover:group:{group}"


def discover_race(step_key: str) -> str:
    """The discovery after a step of a race."""
    return f"discover:race:{step_key}"


def step(step_key: str) -> str:
    """The targeted call of a planned step."""
    return f"step:{step_key}"


def sleep(step_key: str) -> str:
    """The end of a sleep."""
    return f"sleep:{step_key}"


def timeout(step_key: str) -> str:
    """The expiry of a wait, a signal or an invoke."""
    return f"timeout:{step_key}"


def gateway(step_key: str) -> str:
    """The request that the worker makes for a step."""
    return f"gateway:{step_key}"


def cancel(number: int) -> str:
    """The wait for the event of a cancel rule; no step has such an id, SDKs' ids are hex."""
    return f"cancel:{number}"


def of_step(step_key: str) -> tuple[str, ...]:
    """Every item a step can have of its own; an open step that is not inline has one of them."""
    return step(step_key), sleep(step_key), timeout(step_key), gateway(step_key)


def group(run_id: RunId, step_keys: Iterable[str]) -> str:
    """The key of a pending set (13.4): 32 hex digits, the same for the same steps in any order."""
    return derive_uuid("group", run_id.bytes, *sorted(step_keys)).hex
