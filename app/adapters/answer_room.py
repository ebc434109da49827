"""Room for large answers of apps: a budget of bytes in one process, so that many at once cannot take its memory.

Small answers pass without asking. Who reads more than `SMALL` takes room for all it may become (what it announces, or the
largest allowed) and waits in line while there is none; meanwhile the app's end of the connection fills up and it stops
sending. A target has at most half of the room, so one app with huge answers waits for itself and not for others. Room taken
by a driver of the engine is given back when what the answer brought is committed, everybody else's when the call is over:
see `until_committed`.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

#: Octets of an answer that are read without asking.
SMALL = 64 * 1024
#: Octets of large answers a process may have in hand: as they came over the wire or, if that is more, inflated.
MOST = 64 * 1024 * 1024


@dataclass(slots=True)
class Taken:
    """What a caller has taken, by target."""

    of: "list[tuple[AnswerRoom, str, int]]" = field(default_factory=list)

    def shrink(self, octets: int) -> None:
        """Of the newest only so much is needed."""
        if self.of:
            room, target, taken = self.of.pop()
            keeps = min(taken, octets)
            if keeps:
                self.of.append((room, target, keeps))
            room.give_back(target, taken - keeps)

    def give_back(self) -> None:
        """All of it, once."""
        taken, self.of = self.of, []
        for room, target, octets in taken:
            room.give_back(target, octets)


_HELD: ContextVar[Taken | None] = ContextVar("answer_room", default=None)


@contextmanager
def until_committed() -> Iterator[Taken]:
    """Keep the room of answers that are read inside until its end, or until `give_back` of what this gives."""
    taken = Taken()
    token = _HELD.set(taken)
    try:
        yield taken
    finally:
        _HELD.reset(token)
        taken.give_back()


@contextmanager
def this_call() -> Iterator[Taken]:
    """Keep the room as long as a driver says or, for everybody else, until the call is over."""
    held = _HELD.get()
    if held is not None:
        # Another call of the same item replaces the one before: nobody waits for room while having some.
        held.give_back()
        yield held
        return
    taken = Taken()
    try:
        yield taken
    finally:
        taken.give_back()


class AnswerRoom:
    """The room of one process, in octets."""

    def __init__(self, most: int = MOST) -> None:
        """`most` is never less than one largest answer, or that could never be read."""
        self.most = most
        self.used = 0
        self._of: Counter[str] = Counter()
        self._line: deque[tuple[str, int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """Answers that wait for room."""
        return sum(not turn.done() for _, _, turn in self._line)

    async def take(self, target: str, octets: int, taken: Taken) -> None:
        """Take room for an answer, noted in `taken`; waits for it, first come first served among those it fits."""
        octets = min(octets, self.most)
        if not self._fits(target, octets) or self.waiting:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._line.append((target, octets, turn))
            self._serve()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.give_back(target, octets)
                raise
        else:
            self._take(target, octets)
        taken.of.append((self, target, octets))

    def give_back(self, target: str, octets: int) -> None:
        """Room is free again."""
        self.used -= octets
        self._of[target] -= octets
        if self._of[target] <= 0:
            del self._of[target]
        self._serve()

    def _fits(self, target: str, octets: int) -> bool:
        has = self._of.get(target, 0)
        # The first answer of a target passes whatever half is: it must be able to come at all.
        return self.used + octets <= self.most and (has == 0 or has + octets <= self.most // 2)

    def _take(self, target: str, octets: int) -> None:
        self.used += octets
        self._of[target] += octets

    def _serve(self) -> None:
        later: deque[tuple[str, int, asyncio.Future[None]]] = deque()
        is_blocked = False
        while self._line:
            target, octets, turn = self._line.popleft()
            if turn.done():
                continue
            if not is_blocked and self._fits(target, octets):
                self._take(target, octets)
                turn.set_result(None)
                continue
            # One that only its own target's share holds back lets others pass; one that the room is too small for does
            # not, or a line of smaller ones would keep it waiting for ever.
            is_blocked = is_blocked or self.used + octets > self.most
            later.append((target, octets, turn))
        self._line = later
