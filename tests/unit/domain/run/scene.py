"""A run on a table: say what comes in, look at the effects. And short names for ops."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.domain.protocol.opcodes import Op, OpCode
from app.domain.protocol.reply import Finished, Ops, Reply
from app.domain.run.advance import advance
from app.domain.run.begin import begin
from app.domain.run.effects import Effect, EnqueueItem
from app.domain.run.fold import committed
from app.domain.run.happenings import Checkpointed, Happening, Replied, Resumed, TimerDue
from app.domain.run.state import ItemKind, RetryPolicy, Run
from tests.unit.domain.run.world import FUNCTION_ID, NOW, RUN_ID

ERROR = b'{"data":null,"message":"no","name":"Error"}'


def fresh(**given: object) -> Run:
    """A run that has begun; `given` are fields of `Run`."""
    run = Run(RUN_ID, FUNCTION_ID, retry=RetryPolicy(max_attempts=3), **given)  # type: ignore[arg-type]
    return committed(run, begin(run))


@dataclass
class Scene:
    """Commits whatever the machine answers, and remembers the last effects."""

    run: Run = field(default_factory=fresh)
    arrows: set[tuple[str, str]] = field(default_factory=set)
    version: int | None = 2

    def happen(self, happening: Happening, now: datetime = NOW) -> list[Effect]:
        effects = advance(self.run, happening, now)
        before, self.run = self.run, committed(self.run, effects)
        if before.status is not self.run.status:
            self.arrows.add((str(before.status), str(self.run.status)))
        for key, step in self.run.steps.items():
            old = before.steps.get(key)
            if old is None or old.state is not step.state:
                self.arrows.add((str(None if old is None else old.state), str(step.state)))
        return effects

    def reply(self, item_key: str, *ops: Op, no_retry: bool | None = None) -> list[Effect]:
        return self.happen(Replied(item_key, Ops(ops, self.version, no_retry=no_retry)))

    def answer(self, item_key: str, reply: Reply) -> list[Effect]:
        return self.happen(Replied(item_key, reply))

    def finish(self, item_key: str) -> list[Effect]:
        """The function returns; at a timer's item the timer comes due first."""
        if item_key not in self.run.items or self.run.items[item_key].kind in (ItemKind.DISCOVER, ItemKind.STEP):
            return self.answer(item_key, Finished(b"1"))
        self.time(item_key)
        return self.answer(next(iter(self.run.items)), Finished(b"1"))

    def time(self, item_key: str) -> list[Effect]:
        return self.happen(TimerDue(item_key))

    def resume(self, step_key: str, *, is_error: bool = False) -> list[Effect]:
        return self.happen(Resumed(step_key, b'{"data":1}', is_error))

    def checkpoint(self, item_key: str, *ops: Op) -> list[Effect]:
        return self.happen(Checkpointed(item_key, ops))

    @property
    def items(self) -> list[str]:
        """Keys of live items."""
        return list(self.run.items)


def ran(key: str, memo: bytes = b'{"data":1}') -> Op:
    return Op(OpCode.STEP_RUN, key, key, memo=memo)


def failed_step(key: str, *, is_final: bool = False) -> Op:
    code = OpCode.STEP_FAILED if is_final else OpCode.STEP_ERROR
    return Op(code, key, key, memo=b'{"error":' + ERROR + b"}")


def planned(key: str, *, is_race: bool = False) -> Op:
    return Op(OpCode.STEP_PLANNED, key, key, is_race=is_race)


def sleeping(key: str, seconds: float = 60) -> Op:
    return Op(OpCode.SLEEP, key, key, wake_after=timedelta(seconds=seconds))


def waiting(key: str, what: str = "event", wake_after: timedelta | None = timedelta(hours=1)) -> Op:
    match what:
        case "event":
            return Op(OpCode.WAIT_FOR_EVENT, key, key, event="shop/paid", expression="true", wake_after=wake_after)
        case "signal":
            return Op(OpCode.WAIT_FOR_SIGNAL, key, key, signal="go", conflict="replace", wake_after=wake_after)
        case _:
            return Op(OpCode.INVOKE_FUNCTION, key, key, function="app-f", payload=b"{}", wake_after=wake_after)


def enqueued(effects: list[Effect]) -> list[str]:
    """Keys of the items enqueued."""
    return [effect.key for effect in effects if isinstance(effect, EnqueueItem)]


__all__ = ["ERROR", "NOW", "Scene", "enqueued", "failed_step", "fresh", "planned", "ran", "sleeping", "waiting"]
