"""Runs a step program against what the server says is done, as an SDK replays its function. Pure.

walk(program, steps, order) -> Walked: the result if everything is done, else the steps to report now
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.storm.programs import Node, Program, step_key

Memos = Mapping[str, Any]


@dataclass(slots=True)
class Walked:
    """How far a program comes: `values` of the nodes that are done, and the `open` ones that are next, with their race."""

    values: list[Any] = field(default_factory=list)
    open: list[tuple[Node, bool]] = field(default_factory=list)
    is_done: bool = True


def walk(program: Program, steps: Memos, order: Sequence[str]) -> Walked:
    """Go through the nodes until one is not done. `order`: keys of settled steps, oldest first."""
    walked = Walked()
    for node in program:
        is_done, value, open_nodes = _look(node, steps, order)
        if not is_done:
            walked.open, walked.is_done = open_nodes, False
            return walked
        walked.values.append(value)
    return walked


def _look(node: Node, steps: Memos, order: Sequence[str]) -> tuple[bool, Any, list[tuple[Node, bool]]]:
    if node["k"] == "parallel":
        branches = [walk(branch, steps, order) for branch in node["branches"]]
        if all(branch.is_done for branch in branches):
            return True, [branch.values for branch in branches], []
        return False, None, [pair for branch in branches for pair in branch.open]
    if node["k"] == "race":
        branches = [walk(branch, steps, order) for branch in node["branches"]]
        done = [n for n, branch in enumerate(branches) if branch.is_done]
        if done:
            won = min(done, key=lambda n: order.index(step_key(node["branches"][n][-1]["id"])))
            return True, {"won": won, "value": branches[won].values}, []
        return False, None, [(open_node, True) for branch in branches for open_node, _ in branch.open]
    key = step_key(node["id"])
    if key not in steps:
        return False, None, [(node, False)]
    return True, _value(node, steps[key]), []


def _value(node: Node, memo: Any) -> Any:
    """What user code sees of a memo (protocol 10.3)."""
    if isinstance(memo, dict) and set(memo) == {"error"}:
        return {"failed": node["id"]}
    match node["k"]:
        case "wait":
            return None if memo is None else {"heard": memo["data"]["key"]}
        case "signal":
            return None if memo is None else {"signal": memo["data"]["signal"]}
        case "sleep":
            return None
        case _:
            return memo["data"]
