"""Plays many histories, and makes the first that breaks a law small enough to read."""

from collections import Counter
from collections.abc import Iterable

from tests.simulation.house import House
from tests.simulation.laws import Breach
from tests.simulation.plan import Plan, draw

#: Plays spent on making a failing history smaller.
_PATIENCE = 200
NOTHING: frozenset[str] = frozenset()


def explore(seeds: Iterable[int], planted: frozenset[str] = NOTHING) -> Counter[str]:
    """Play the histories of these seeds; answers how often what happened. The first breach is raised, made small."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        house = House(draw(seed), planted)
        try:
            house.play()
        except Breach as breach:
            raise Breach(report(house.plan, breach, planted)) from None
        seen += house.server.seen
    return seen


def breach_of(plan: Plan, planted: frozenset[str] = NOTHING) -> Breach | None:
    """What a plan breaks."""
    try:
        House(plan, planted).play()
    except Breach as breach:
        return breach
    return None


def shrunk(plan: Plan, planted: frozenset[str] = NOTHING) -> Plan:
    """The smallest plan found that still breaks a law: one thing less as long as that goes on."""
    left = _PATIENCE
    is_smaller = True
    while is_smaller and left > 0:
        is_smaller = False
        for smaller in plan.smaller():
            left -= 1
            if breach_of(smaller, planted) is not None:
                plan, is_smaller = smaller, True
                break
            if left <= 0:
                break
    return plan


def report(plan: Plan, breach: Breach, planted: frozenset[str] = NOTHING) -> str:
    """What broke, how to see it again, the smallest plan, and what happened in it commit by commit."""
    small = shrunk(plan, planted)
    house = House(small, planted, is_told=True)
    again = ""
    try:
        house.play()
    except Breach as found:
        again = str(found)
    lines = "\n".join(house.lines or ())
    return f"{breach}\nagain: python -m tests.simulation {plan.seed}\n\nmade smaller, it breaks: {again}\n{small.told()}\n\n{lines}"
