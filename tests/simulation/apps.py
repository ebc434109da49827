"""The apps of the house: they run step programs as an SDK does (tests/unit/domain/run/programs.py), and keep a ledger of
what they executed.

Takes the place of `engine/dispatch.py`. A call is served by a process of its own: when the worker that asked dies, the
app goes on, saves checkpoints and answers nobody.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from app.adapters.http import Answer
from app.domain.protocol.opcodes import Op, OpCode
from app.domain.protocol.reply import Failed, Finished, Reply
from app.domain.run.happenings import Checkpointed, Fetched
from app.domain.run.state import CALLS
from app.engine.apply import Told
from app.engine.dispatch import Called
from app.engine.hot import HotRun, LeasedItem
from app.engine.transition import ItemMoved, RunEnded, RunUnknown
from tests.unit.domain.run.programs import ERROR, Act, App, Do

if TYPE_CHECKING:
    from tests.simulation.house import House

_WEB_PATIENCE_S = 1.5


class HouseApp(App):
    """Programs with short sleeps, whose executions somebody watches."""

    executes: Callable[[str], None] = staticmethod(lambda _key: None)

    def _execute(self, step: Do, is_last: bool) -> Op:
        self.executes(step.key)
        return super()._execute(step, is_last)

    def _report(self, step: Do) -> Op:
        soon = timedelta(milliseconds=self.rng.randrange(200, 2500))
        code, race = step.act, step.is_race
        match code:
            case Act.RUN:
                return Op(OpCode.STEP_PLANNED, step.key, step.key, is_race=race)
            case Act.SLEEP:
                return Op(OpCode.SLEEP, step.key, step.key, wake_after=soon, is_race=race)
            case Act.EVENT:
                return Op(OpCode.WAIT_FOR_EVENT, step.key, step.key, event="x", wake_after=soon, is_race=race)
            case Act.SIGNAL:
                conflict = self.rng.choice((None, "replace", "replace"))
                opening = Op(OpCode.WAIT_FOR_SIGNAL, step.key, step.key, is_race=race, wake_after=soon)
                return replace(opening, signal="s", conflict=conflict)
            case Act.FETCH:
                return Op(OpCode.GATEWAY, step.key, step.key, raw_opts=b'{"url":"http://x.test"}', is_race=race)
            case Act.INVOKE:
                opening = Op(OpCode.INVOKE_FUNCTION, step.key, step.key, is_race=race)
                long = soon + timedelta(seconds=6)
                return replace(opening, function="house-child", payload=b'{"data":{"k":"a"}}', wake_after=long)


@dataclass
class Dispatch:
    """Makes the calls of one worker."""

    house: "House"

    async def call(self, hot: HotRun, item: LeasedItem, _known: Any, _keys: Any) -> Called:
        """Call the app of a run, which may take longer than the worker lives."""
        house = self.house
        serving = house.loop.start(house.outside, _serve(house, hot, item))
        return await asyncio.shield(serving)


async def _serve(house: "House", hot: HotRun, item: LeasedItem) -> Called:
    settled_before = house.laws.call_begins(hot, item)
    app = house.app_of(hot)
    target = item.step_key
    memos = {key: not memo.startswith(b'{"error"') for key, memo in hot.memos.items()}
    is_planned, is_last = hot.run.is_planned, item.attempt + 1 >= hot.run.retry.max_attempts
    run_id = hot.run.id
    await asyncio.sleep(house.latency())
    script: Iterator[tuple[Op, ...] | Reply] = app.answer(target, memos, is_planned, is_last)
    reply: Reply = Failed(ERROR, "app_unreachable")
    while True:
        app.executes = lambda key: house.laws.executes(run_id, key, settled_before)
        said = next(script)
        if isinstance(said, (Finished, Failed)) or not isinstance(said, tuple):
            reply = said
            break
        if not await _checkpoint(house, run_id, item, said):
            break
    if house.rng.random() < 0.04 and not house.server.is_calm:
        reply = Failed(ERROR, "app_unreachable")  # it answered, and nobody heard
    if not isinstance(reply, (Finished, Failed)) and any(op.code is OpCode.WAIT_FOR_EVENT for op in reply.ops):
        house.perhaps_answer_wait()
    draw = house.rng.random()
    await asyncio.sleep(3.0 if draw < 0.01 and not house.server.is_calm else house.latency())
    if isinstance(reply, Failed) and reply.code == "app_unreachable":
        return Called(reply, 0, 1.0, "")
    return Called(reply, 206, 1.0, "", Answer(206, {}, b"", 1.0))


async def _checkpoint(house: "House", run_id: Any, item: LeasedItem, ops: tuple[Op, ...]) -> bool:
    """Save steps, as `web/api/checkpoint.py` does; false when the call has to stop."""

    def happening(hot: HotRun) -> Checkpointed | None:
        known = hot.run.items.get(item.key)
        return Checkpointed(item.key, ops) if known is not None and known.kind in CALLS else None

    for _ in range(4):
        try:
            saving = house.web.changes.change(run_id, happening, scope=house.scope, item=(item.id, item.fence))
            await asyncio.wait_for(saving, _WEB_PATIENCE_S)
        except (RunUnknown, RunEnded, ItemMoved):
            house.server.seen["checkpoint refused"] += 1
            return False
        except (*house.unreachable, TimeoutError):
            house.server.seen["checkpoint repeated"] += 1
            await asyncio.sleep(0.1)
        else:
            house.server.seen["checkpoint saved"] += 1
            return True
    return False


@dataclass
class Gateway:
    """Takes the place of `engine/gateway.py`: whoever is asked answers something, or not."""

    house: "House"

    async def perform(self, hot: HotRun, item: LeasedItem) -> tuple[Fetched, Told]:
        """Make the request of a gateway step."""
        await asyncio.sleep(self.house.latency())
        told = Told("gateway", item.step_key, item.key, item.attempt)
        if self.house.rng.random() < 0.3:
            return Fetched(item.key, None, ERROR), told
        return Fetched(item.key, b'{"data":3}'), told


def app_for(program: Any, style: Any, seed: str) -> HouseApp:
    """The app process of one run."""
    return HouseApp(program, style, Random(seed))
