"""Random functions of a pretended app, and what an SDK answers for them (protocol 13.5).

A program is a tree of steps. Replaying it with some memos gives what an SDK finds next: one step it may run inline,
several it must plan, or the end. The app knows nothing of items or attempts; it reports unfinished siblings each time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from random import Random

from hypothesis import strategies as st

from app.domain.protocol.opcodes import Op, OpCode
from app.domain.protocol.reply import Failed, Finished, Ops, Reply

ERROR = b'{"data":null,"message":"no","name":"Error"}'
GO = "go:v0.15.1"
STEP_ERROR = b'{"error":' + ERROR + b"}"


class Act(StrEnum):
    RUN = "run"
    SLEEP = "sleep"
    EVENT = "event"
    SIGNAL = "signal"
    INVOKE = "invoke"
    FETCH = "fetch"


@dataclass(frozen=True)
class Do:
    """One step. A run fails `fails` times before it works; with `is_uncaught` its final failure fails the function."""

    key: str
    act: Act = Act.RUN
    fails: int = 0
    is_uncaught: bool = False
    is_race: bool = False


@dataclass(frozen=True)
class Fork:
    """Branches at once: joined when all are done, or, in a race, when one is."""

    branches: tuple[tuple["Node", ...], ...]
    is_race: bool = False


Node = Do | Fork


@dataclass(frozen=True)
class Style:
    """Which SDK this is. `junk` is how many of a hundred answers are nonsense while faults are on."""

    version: int | None = 2
    checkpoints: bool = False
    reports_losers: bool = True
    is_go: bool = False
    flushes: bool = False
    junk: int = 0


class Uncaught(Exception):
    """The function threw."""


@dataclass
class Found:
    """What a replay meets: `next` open steps, `lost` those of races already won, and whether the function returned."""

    next: list[Do] = field(default_factory=list)
    lost: list[Do] = field(default_factory=list)
    is_done: bool = True


def replay(nodes: tuple[Node, ...], memos: Mapping[str, bool]) -> Found:
    """Walk the function; `memos` says of each settled step whether it worked. Raises `Uncaught`."""
    lost: list[Do] = []
    for node in nodes:
        if isinstance(node, Do):
            if node.key not in memos:
                return Found([node], lost, is_done=False)
            if not memos[node.key] and node.is_uncaught:
                raise Uncaught(node.key)
            continue
        parts = [replay(branch, memos) for branch in node.branches]
        lost += [step for part in parts for step in part.lost]
        open_steps = [step for part in parts for step in part.next]
        if node.is_race and any(part.is_done for part in parts):
            lost += open_steps
        elif not all(part.is_done for part in parts):
            return Found(open_steps, lost, is_done=False)
    return Found([], lost)


def needed(nodes: tuple[Node, ...]) -> set[str]:
    """Steps that must be settled before the function can return: all outside races."""
    keys: set[str] = set()
    for node in nodes:
        if isinstance(node, Do):
            keys.add(node.key)
        elif not node.is_race:
            keys |= {key for branch in node.branches for key in needed(branch)}
    return keys


@dataclass
class App:
    """The app process: counts executions, as a real one would have side effects."""

    program: tuple[Node, ...]
    style: Style
    rng: Random
    executions: dict[str, int] = field(default_factory=dict)

    def answer(
        self, target: str | None, memos: dict[str, bool], is_planned: bool, is_last: bool
    ) -> Iterator[tuple[Op, ...] | Reply]:
        """Checkpoints (tuples of ops), then the reply. `is_last`: no attempt is left after this one."""
        if self.rng.randrange(100) < self.style.junk:
            yield self._junk()
            return
        try:
            if target is None:
                yield from self._discover(memos, is_planned, is_last)
            else:
                yield from self._run_target(target, memos, is_last)
        except Uncaught:
            yield Failed(ERROR, "app_error", no_retry=True)

    def _discover(self, memos: dict[str, bool], is_planned: bool, is_last: bool) -> Iterator[tuple[Op, ...] | Reply]:
        unsaved: tuple[Op, ...] = ()
        while True:
            found = replay(self.program, memos)
            if found.is_done:
                yield self._done(unsaved)
                return
            shown = found.next + (found.lost if self.style.reports_losers else [])
            if is_planned or len(shown) > 1 or shown[0].act is not Act.RUN:
                yield self._ops(*unsaved, *(self._report(step) for step in shown))
                return
            op = self._execute(shown[0], is_last)
            if op.code is not OpCode.STEP_RUN or not (self.style.checkpoints or self.style.flushes):
                yield self._ops(*unsaved, op)
                return
            memos[op.id] = True
            if self.style.flushes:
                unsaved = (*unsaved, op)
                if len(unsaved) == 2:
                    yield self._ops(*unsaved)
                    return
            else:
                yield (op,)
                if self.rng.random() < 0.1:  # out of time, or all it heard of its checkpoint was silence
                    yield self._ops(self.rng.choice((op, Op(OpCode.DISCOVERY_REQUEST, "", ""))))
                    return

    def _run_target(self, target: str, memos: dict[str, bool], is_last: bool) -> Iterator[tuple[Op, ...] | Reply]:
        found = replay(self.program, memos)
        step = next((step for step in found.next + found.lost if step.key == target), None)
        if found.is_done:
            yield Finished(b'"done"')  # the loser of a race, once the winner is known
        elif step is None:
            yield Finished(b"null", sdk=GO) if self.style.is_go else Failed(ERROR, "app_error", no_retry=False)
        else:
            op = self._execute(step, is_last)
            if self.style.is_go and self.style.checkpoints and op.code is OpCode.STEP_RUN:
                yield (op,)
                yield Finished(b"null", sdk=GO)  # what go does when it is not told that it is targeted (10.1)
            else:
                yield self._ops(op)

    def _done(self, unsaved: tuple[Op, ...]) -> Reply:
        if unsaved or self.style.checkpoints:
            return self._ops(*unsaved, Op(OpCode.RUN_COMPLETE, "0737", "", payload=b'"done"'))
        return Finished(b'"done"')

    def _execute(self, step: Do, is_last: bool) -> Op:
        times = self.executions[step.key] = self.executions.get(step.key, 0) + 1
        if times > step.fails:
            return Op(OpCode.STEP_RUN, step.key, step.key, memo=b'{"data":1}', is_race=step.is_race)
        code = OpCode.STEP_FAILED if is_last and self.rng.random() < 0.5 else OpCode.STEP_ERROR
        return Op(code, step.key, step.key, memo=STEP_ERROR, is_race=step.is_race)

    def _report(self, step: Do) -> Op:
        # py computes sleeps on its own clock, so a repeated report names a later time.
        soon = timedelta(seconds=self.rng.randrange(1, 100_000))
        code, race = step.act, step.is_race
        match code:
            case Act.RUN:
                return Op(OpCode.STEP_PLANNED, step.key, step.key, is_race=race)
            case Act.SLEEP:
                return Op(OpCode.SLEEP, step.key, step.key, wake_after=soon, is_race=race)
            case Act.EVENT:
                return Op(OpCode.WAIT_FOR_EVENT, step.key, step.key, event="x", wake_after=soon, is_race=race)
            case Act.SIGNAL:
                return Op(OpCode.WAIT_FOR_SIGNAL, step.key, step.key, signal="s", is_race=race)
            case Act.FETCH:
                return Op(OpCode.GATEWAY, step.key, step.key, raw_opts=b'{"url":"http://x.test"}', is_race=race)
            case Act.INVOKE:
                return Op(OpCode.INVOKE_FUNCTION, step.key, step.key, function="f", payload=b"{}", is_race=race)

    def _ops(self, *ops: Op) -> Ops:
        return Ops(ops, self.style.version, retry_after=timedelta(seconds=7) if self.rng.random() < 0.1 else None)

    def _junk(self) -> Reply:
        return self.rng.choice(
            (
                Ops((), self.style.version),
                self._ops(Op(OpCode.NONE, "", "")),
                self._ops(Op(OpCode.DISCOVERY_REQUEST, "", "")),
                self._ops(Op(OpCode.STEP_NOT_FOUND, "", "")),
                Failed(ERROR, "app_unreachable"),
                Failed(ERROR, "app_error", no_retry=False, retry_after=timedelta(days=3)),
            )
        )


@st.composite
def programs(draw: st.DrawFn) -> tuple[Node, ...]:
    """Mostly five to thirty steps: sequences, groups, races, each perhaps inside another."""
    names = iter(range(1_000))

    def nodes(depth: int, most: int, in_race: bool) -> tuple[Node, ...]:
        return tuple(node(depth, in_race) for _ in range(draw(st.integers(min(most, 2), most))))

    def node(depth: int, in_race: bool) -> Node:
        if depth and draw(st.integers(0, 2)) == 0:
            is_race = draw(st.integers(0, 2)) == 0
            count = draw(st.integers(2, 3))
            return Fork(tuple(nodes(depth - 1, 2, in_race or is_race) for _ in range(count)), is_race)
        act = draw(st.sampled_from((Act.RUN, Act.RUN, Act.RUN, *Act)))
        fails = draw(st.sampled_from((0, 0, 0, 1, 99))) if act is Act.RUN else 0
        return Do(f"s{next(names)}", act, fails, fails == 99 and draw(st.booleans()), in_race)

    return nodes(2, 6, in_race=False)


STYLES = st.builds(
    Style,
    version=st.sampled_from((2, 2, 1, None)),
    checkpoints=st.booleans(),
    reports_losers=st.booleans(),
    is_go=st.booleans(),
    flushes=st.integers(0, 4).map(lambda n: n == 0),
    junk=st.sampled_from((0, 5, 30)),
)
