"""Who waits for which signal: a name has one waiter in an environment (protocol 23.2). Used by `transition`, which commits.

The names are locked for the transaction, so what is seen here is still true at its commit.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from app.domain.ids import RunId
from app.domain.protocol.error_object import made_error
from app.domain.protocol.opcodes import OpCode
from app.domain.protocol.reply import Failed, Ops
from app.domain.run.happenings import Happening, Replied
from app.domain.run.state import Run, StepState
from app.store.named import fetch, named

_CONFLICT = "Signal conflict; signal wait already exists for another run"


def asks_for_signal(happenings: Iterable[Happening]) -> bool:
    """Whether one of these answers waits for a signal."""
    return any(_signals_of(happening) for happening in happenings)


class SignalNames:
    """The waiters of the signals of a batch, and who is going to be one."""

    def __init__(self, waiting: dict[tuple[Any, str], tuple[RunId, str]]) -> None:
        """`waiting`: environment and name → run and step."""
        self._waiting = waiting
        self._replaced: list[tuple[Any, str]] = []

    @classmethod
    async def look(cls, connection: Any, happenings: Sequence[tuple[Any, Happening]]) -> "SignalNames":
        """Lock the names that these answers wait for (with their environments), then see who waits for them."""
        names = [(environment, name) for environment, one in happenings for _, name, _ in _signals_of(one)]
        if not names:
            return cls({})
        columns = {"environments": [e for e, _ in names], "names": [n for _, n in names]}
        await fetch(connection, named("lease", "lock_signals"), **columns)
        rows = await fetch(connection, named("lease", "signal_waits"), **columns)
        return cls({(row["environment_id"], row["signal"]): (row["run_id"], row["step_key"]) for row in rows})

    def judge(self, environment: Any, run: Run, happening: Happening) -> Happening:
        """An answer that waits for a name another step has fails its run, unless it takes the name over."""
        for step_key, name, is_replacing in _signals_of(happening):
            if step_key in run.steps and run.steps[step_key].state is not StepState.RETRYING:
                continue  # reported again, as SDKs do
            key, me = (environment, name), (run.id, step_key)
            holder = self._waiting.get(key, me)
            if holder != me and not is_replacing:
                assert isinstance(happening, Replied)
                failed = Failed(made_error("Error", _CONFLICT), "signal_conflict", no_retry=True, is_fatal=True)
                return Replied(happening.item_key, failed)
            if holder != me:
                self._replaced.append(key)
            self._waiting[key] = me
        return happening

    async def take(self, connection: Any) -> None:
        """Take the names over from those who had them."""
        if self._replaced:
            await fetch(
                connection,
                named("lease", "take_signals"),
                environments=[e for e, _ in self._replaced],
                names=[n for _, n in self._replaced],
            )


def _signals_of(happening: Happening) -> list[tuple[str, str, bool]]:
    """The signals an answer waits for: step, name, and whether it takes the name from others."""
    if not isinstance(happening, Replied) or not isinstance(happening.reply, Ops):
        return []
    ops = happening.reply.ops
    return [
        (op.id, op.signal, op.conflict == "replace") for op in ops if op.code is OpCode.WAIT_FOR_SIGNAL and op.signal
    ]
