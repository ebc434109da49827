"""The judge of a storm and its interpreter, which share no code, agree on what programs give; and the judge is strict."""

import random
from typing import Any

from app.store.db import statements
from tests.chaos.storm.interpreter import walk
from tests.chaos.storm.planted import PLANTS
from tests.chaos.storm.programs import Maker, Node, Program, disagreement, step_key
from tests.chaos.storm.strikes import BY_NAME, plan


def _memo(node: Node, dice: random.Random) -> Any:
    """What a faultless server would store."""
    match node["k"]:
        case "run":
            return {"error": {}} if node["dies"] else {"data": {"ok": node["id"]}}
        case "sleep":
            return None
        case "wait":
            is_heard = node["key"][0] == "a" or (node["key"][0] == "r" and dice.random() < 0.5)
            return {"name": "storm/answer", "data": {"key": node["key"]}} if is_heard else None
        case "signal":
            return {"data": {"signal": node["name"], "data": 1}}
        case "event":
            return {"data": {"sent": node["event_id"]}}
        case _:
            return {"data": _done(node["program"], dice)}


def _done(program: Program, dice: random.Random) -> list[Any]:
    steps: dict[str, Any] = {}
    order: list[str] = []
    while not (walked := walk(program, steps, order)).is_done:
        node, _ = dice.choice(walked.open)
        order.append(step_key(node["id"]))
        steps[order[-1]] = _memo(node, dice)
    return walked.values


def test_any_order_of_completion_gives_a_result_the_judge_accepts() -> None:
    for seed in range(200):
        dice = random.Random(seed)
        program = Maker(dice, f"event-{seed}").program(4)
        values = _done(program, dice)
        assert disagreement(program, values) == "", seed
        assert disagreement(program, values[:-1]), seed
        assert disagreement(program, [*values[:-1], {"ok": "another"}]), seed


def test_every_bug_can_still_be_planted_in_the_statements_as_they_are() -> None:
    for changes in PLANTS.values():
        assert all(text in statements(file)[name] for file, name, text, _ in changes), changes


def test_a_seed_gives_the_same_plan_and_four_minutes_strike_everything() -> None:
    for seed in range(50):
        planned = plan(seed, 300.0)
        assert planned == plan(seed, 300.0)
        assert {name for _, name, _ in planned} == set(BY_NAME)
