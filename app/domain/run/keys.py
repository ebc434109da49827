"""Names of a run's queue items. A key lives once in a run's whole life, so doing the work twice makes one row.

A discovery after settled steps is named by how many there are (that number only grows), one that follows no new step
by how many discoveries there were (that number grows too), a step's own items by the step.
"""

from collections.abc import Iterable
from typing import Final

from app.domain.ids import RunId, derive_uuid

START: Final = "start"


def discover(completed: int) -> str:
    return f"discover:{completed}"


def discover_again(number: int) -> str:
    return f"discover:again:{number}"


def discover_group(group: str) -> str:
    return f"discover:group:{group}"


def discover_race(step_key: str) -> str:
    return f"discover:race:{step_key}"


def step(step_key: str) -> str:
    return f"step:{step_key}"


def sleep(step_key: str) -> str:
    return f"sleep:{step_key}"


def timeout(step_key: str) -> str:
    return f"timeout:{step_key}"


def of_step(step_key: str) -> tuple[str, str, str]:
    """Every item a step can have of its own; an open step that is not inline has one of them."""
    return step(step_key), sleep(step_key), timeout(step_key)


def group(run_id: RunId, step_keys: Iterable[str]) -> str:
    """The key of a pending set (13.4): 32 hex digits, the same for the same steps in any order."""
    return derive_uuid("group", run_id.bytes, *sorted(step_keys)).hex
