"""Step programs: made from dice, run by `app.py`, judged here. Pure; the judge shares no code with the interpreter.

A program is a list of nodes that are done one after the other; a node is a JSON object with `k` (its kind) and `id`
(unique in the program). Its result is the list of its nodes' results.

    kind      more                          result
    run       fails, dies, ms               {"ok": id}; {"failed": id} when it fails for good
    sleep     s                             null
    wait      key, s                        {"heard": key}, null after the timeout; `key` begins with what the client will do:
                                            a: answer it, w: withhold the answer, r: answer about when the time is over
    signal    name                          {"signal": name}
    invoke    fn, program                   the program's result, or {"failed": id}
    event     name, event_id, data          {"sent": event_id}
    parallel  branches                      a list of the branches' results
    race      branches (of one node each)   {"won": n, "value": the branch's result}
"""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]
Program = list[Node]

FOREVER_S = 3600.0
"""Seconds of a timeout that must never come: whoever waits for it is answered or cancelled."""
ODD_TEXTS = ("", "\u0000 in the middle", "Grüße 東京 🦀", "\u2028<script>", "a" * 3000)
ODD_NUMBERS = (0, -1, 1.5, 1e100, 5e-324, 2**53, 0.1)


def step_key(node_id: str) -> str:
    """The hashed id under which the server knows a step (protocol 4.6)."""
    return hashlib.sha1(node_id.encode(), usedforsecurity=False).hexdigest()


def nodes_of(program: Program) -> Iterator[Node]:
    """Every node of a program, without those of invoked programs, which are other runs."""
    for node in program:
        yield node
        for branch in node.get("branches", ()):
            yield from nodes_of(branch)


class Maker:
    """Makes programs of one event from dice; ids count up, keys carry the event's name so that no two events share one."""

    def __init__(self, dice: random.Random, event: str) -> None:
        self._dice = dice
        self._event = event
        self._count = 0

    def program(self, size: int, depth: int = 0) -> Program:
        """A program of `size` nodes; deeper ones have neither branches nor children."""
        kinds = ["run"] * 6 + ["sleep", "sleep", "wait", "wait", "event"]
        kinds += ["parallel", "parallel", "race", "invoke", "signal"] if depth == 0 else []
        return [self.node(self._dice.choice(kinds), depth) for _ in range(size)]

    def node(self, kind: str, depth: int = 0) -> Node:
        """One node of a kind."""
        dice = self._dice
        self._count += 1
        node: Node = {"k": kind, "id": f"{kind}-{self._count}"}
        key = f"{self._event}/{self._count}"
        if kind == "run":
            how = dice.random()
            node |= {"fails": dice.choice([1, 2]) if how < 0.12 else 0, "dies": 0.12 <= how < 0.16}
            node["ms"] = dice.choice([0, 0, 0, 20, 150, 800])
        elif kind == "sleep":
            node["s"] = dice.choice([1, 1, 2, 4])
        elif kind == "wait":
            mode = dice.choice("aaawr")
            node |= {"key": f"{mode}:{key}", "s": FOREVER_S if mode == "a" else dice.choice([1, 2, 3])}
        elif kind == "signal":
            node["name"] = f"s:{key}"
        elif kind == "event":
            node |= {"name": "storm/small", "event_id": f"small:{key}", "data": {"odd": dice.random() < 0.5}}
        elif kind == "invoke":
            child = Maker(dice, key)
            node |= {"fn": "storm-child", "program": child.program(dice.randint(1, 3), 1)}
        elif kind == "parallel":
            node["branches"] = [self.program(dice.randint(1, 2), 1) for _ in range(dice.randint(2, 4))]
        elif kind == "race":
            node["branches"] = [[self.node(dice.choice(["run", "sleep", "run"]), 1)] for _ in range(2)]
        return node


def payload(dice: random.Random) -> dict[str, Any]:
    """A value that a careless store would change (I5)."""
    return {
        "t": dice.choice(ODD_TEXTS),
        "n": dice.choice(ODD_NUMBERS),
        "": [None, True, {"": dice.choice(ODD_NUMBERS)}],
    }


def disagreement(program: Program, result: Any) -> str:
    """Say where a result is not one the program may have; empty when it agrees."""
    if not isinstance(result, list) or len(result) != len(program):
        return f"{len(program)} results expected, found {result!r}"
    for node, value in zip(program, result, strict=True):
        wrong = _disagreement(node, value)
        if wrong:
            return f"{node['id']}: {wrong}"
    return ""


def _disagreement(node: Node, value: Any) -> str:
    allowed: list[Any]
    match node["k"]:
        case "run":
            allowed = [{"failed": node["id"]}] if node["dies"] or node["fails"] > 20 else [{"ok": node["id"]}]
        case "sleep":
            allowed = [None]
        case "wait":
            heard: list[Any] = [{"heard": node["key"]}]
            allowed = {"a": heard, "w": [None], "r": [*heard, None]}[node["key"][0]]
        case "signal":
            allowed = [{"signal": node["name"]}]
        case "event":
            allowed = [{"sent": node["event_id"]}]
        case "invoke":
            return disagreement(node["program"], value)
        case "parallel":
            if not isinstance(value, list) or len(value) != len(node["branches"]):
                return f"found {value!r}"
            wrongs = [disagreement(b, v) for b, v in zip(node["branches"], value, strict=True)]
            return next((wrong for wrong in wrongs if wrong), "")
        case _:
            if not isinstance(value, dict) or value.get("won") not in range(len(node["branches"])):
                return f"found {value!r}"
            return disagreement(node["branches"][value["won"]], value["value"])
    return "" if value in allowed else f"{allowed} expected, found {value!r}"
