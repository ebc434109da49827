"""A history before it happens: functions, what people send and do, and the faults, all from one seed.

A plan is data, so that a failing one can be made smaller: `without` leaves out one thing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.unit.domain.run.programs import Act, Do, Fork, Node, Style

#: Virtual seconds in which things are sent, done and broken; then everything must come to an end by itself.
BUSY_S = 5.0
KEYS = ("a", "b")
#: Where a process is killed, stopped or cut off: the engine's own pause points (app/engine/pause_points.py), any moment, or
#: behind one of its next statements.
POINTS = (
    ["commit.before", "commit.sent", "commit.after", "slow.locked", "change.locked", "call.before", "call.after"]
    + ["react.claimed", "react.committed", "look.before", "rescue.locked", "lease.picked", "queue.leased", "heartbeat"]
    + ["call.before", "call.after", "commit.before", "change.committed", "any", "any", "statement", "statement"]
)


@dataclass(frozen=True)
class FunctionPlan:
    """A function of the house: its settings as an app registers them, its program, and the SDK that runs it."""

    slug: str
    settings: dict[str, Any]
    program: tuple[Node, ...]
    style: Style
    retries: int = 2


@dataclass(frozen=True)
class Send:
    """An event somebody sends at a time. One with `client_id` may be sent twice."""

    at: float
    name: str
    key: str
    client_id: str | None = None


@dataclass(frozen=True)
class Deed:
    """What people do: `cancel`, `signal`, `sync` (new settings), `pause` (for a while)."""

    at: float
    kind: str
    pick: float
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """`crash`, `freeze`, `cut` or `web crash`, of one of the workers, from `at` on at `point`, for `length` seconds."""

    at: float
    kind: str
    whom: int
    point: str
    length: float
    nth: int = 1


@dataclass(frozen=True)
class Plan:
    """One history."""

    seed: int
    #: Whether apps take long, so that much happens while they are called.
    is_slow: bool
    functions: tuple[FunctionPlan, ...]
    sends: tuple[Send, ...]
    deeds: tuple[Deed, ...]
    faults: tuple[Fault, ...]

    def smaller(self) -> Iterator["Plan"]:
        """The plans that leave out one thing: faults first."""
        for name in ("faults", "deeds", "sends"):
            things = getattr(self, name)
            for n in range(len(things)):
                yield replace(self, **{name: things[:n] + things[n + 1 :]})

    def told(self) -> str:
        """For people."""
        lines = [f"seed {self.seed}{', slow apps' if self.is_slow else ''}"]
        lines += [
            f"  {f.slug} retries={f.retries} {json.dumps(f.settings)} {f.style}\n    {f.program}"
            for f in self.functions
        ]
        lines += [f"  {thing}" for thing in (*self.sends, *self.deeds, *self.faults)]
        return "\n".join(lines)


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(seed)
    functions = [_function(rng, "house-one"), _child(rng)]
    sends = [_send(rng, n) for n in range(rng.randint(1, 4))]
    sends += [Send(rng.uniform(0, BUSY_S), "x", rng.choice(KEYS)) for _ in range(rng.randint(0, 2))]
    if "cancel" in functions[0].settings and rng.random() < 0.6:
        sends.append(Send(rng.uniform(0.1, BUSY_S), "stop", rng.choice(KEYS)))
    repeated = [replace(s, at=s.at + rng.uniform(0, 1)) for s in sends if s.client_id and rng.random() < 0.5]
    deeds = [_deed(rng) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    faults = [_fault(rng) for _ in range(rng.choice((0, 1, 2, 2, 3, 4)))]
    return Plan(seed, rng.random() < 0.3, tuple(functions), tuple(sends + repeated), tuple(deeds), tuple(faults))


def _send(rng: Random, n: int) -> Send:
    client_id = f"order-{n}" if rng.random() < 0.3 else None
    return Send(rng.choice((0.0, rng.uniform(0, BUSY_S / 2))), "go", rng.choice(KEYS), client_id)


def _deed(rng: Random) -> Deed:
    kind = rng.choice(("cancel", "cancel", "signal", "sync", "sync", "pause"))
    settings = _limits(rng) if kind == "sync" else {}
    return Deed(rng.uniform(0.05, BUSY_S), kind, rng.random(), settings)


def _fault(rng: Random) -> Fault:
    kind = rng.choice(("crash", "crash", "freeze", "freeze", "freeze", "cut", "web crash"))
    length = {"crash": rng.uniform(0.05, 1.0), "freeze": rng.choice((0.1, 0.6, 1.5, 2.2, 2.6, 3.0, 4.0))}.get(kind, 0.6)
    point = rng.choice(POINTS) if kind in ("crash", "freeze") else "any"
    if kind == "freeze" and rng.random() < 0.5:
        # Long enough for somebody else to be calling when the first one comes back with its answer.
        point, length = rng.choice(("call.before", "call.after", "commit.before")), rng.uniform(2.0, 3.5)
    return Fault(rng.uniform(0.0, BUSY_S * 0.7), kind, rng.randrange(2), point, length, rng.randint(1, 12))


def _function(rng: Random, slug: str) -> FunctionPlan:
    settings = _limits(rng) | _gates(rng)
    style = Style(
        version=rng.choice((2, 2, 1, None)),
        checkpoints=rng.random() < 0.4,
        reports_losers=rng.random() < 0.5,
        is_go=rng.random() < 0.2,
        flushes=rng.random() < 0.15,
    )
    return FunctionPlan(slug, settings, _program(rng), style, rng.randint(0, 3))


def _child(rng: Random) -> FunctionPlan:
    steps: tuple[Node, ...] = (Do("c0"),) if rng.random() < 0.5 else (Do("c0", Act.SLEEP), Do("c1"))
    settings = _limits(rng) if rng.random() < 0.3 else {}
    return FunctionPlan("house-child", settings, steps, Style(checkpoints=rng.random() < 0.3), 1)


def _limits(rng: Random) -> dict[str, Any]:
    """Limits of calls, of runs, of starts; any of them may change in mid-run."""
    key = rng.choice((None, "event.data.k"))
    match rng.randrange(8):
        case 0 | 1:
            return {"concurrency": [_with_key({"limit": rng.randint(1, 2)}, key)]}
        case 2:
            return {"concurrency": {"fn": _with_key({"limit": rng.randint(1, 2)}, key), "step": [{"limit": 2}]}}
        case 3:
            return {"concurrency": [{"limit": rng.randint(1, 2), "key": "event.data.k", "scope": "env"}]}
        case 4:
            return {"throttle": {"limit": 1, "period": "1s", "burst": rng.randint(0, 1)}}
        case 5:
            return {"priority": {"run": "event.data.k == 'a' ? 10 : 0"}, "concurrency": [{"limit": 1}]}
        case _:
            return {}


def _gates(rng: Random) -> dict[str, Any]:
    """What stands before a run, and what ends it from outside."""
    key = rng.choice((None, "event.data.k"))
    match rng.randrange(12):
        case 0:
            return {"batchEvents": _with_key({"maxSize": rng.randint(2, 3), "timeout": "1s"}, key)}
        case 1:
            return {"debounce": _with_key({"period": "1s"}, key)}
        case 2 | 3:
            return {"singleton": _with_key({"mode": rng.choice(("skip", "cancel"))}, key)}
        case 4:
            return {"rateLimit": _with_key({"limit": 1, "period": "3s"}, key)}
        case 5:
            return {"cancel": [{"event": "stop", "if": "async.data.k == event.data.k"}]}
        case 6:
            return {"timeouts": rng.choice(({"start": "1s"}, {"finish": "3s"}, {"start": "2s", "finish": "4s"}))}
        case _:
            return {}


def _with_key(rule: dict[str, Any], key: str | None) -> dict[str, Any]:
    return rule if key is None else rule | {"key": key}


def _program(rng: Random) -> tuple[Node, ...]:
    names = iter(range(100))

    def step(in_race: bool) -> Do:
        act = rng.choice((Act.RUN,) * 5 + (Act.SLEEP, Act.EVENT, Act.EVENT, Act.SIGNAL, Act.INVOKE, Act.FETCH))
        fails = rng.choice((0, 0, 0, 1, 99)) if act is Act.RUN else 0
        return Do(f"s{next(names)}", act, fails, fails == 99 and rng.random() < 0.3, in_race)

    def node(depth: int) -> Node:
        if depth and rng.random() < 0.35:
            is_race = rng.random() < 0.3
            branches = [tuple(step(is_race) for _ in range(rng.randint(1, 2))) for _ in range(rng.randint(2, 3))]
            return Fork(tuple(branches), is_race)
        return step(False)

    return tuple(node(1) for _ in range(rng.randint(1, 4)))
