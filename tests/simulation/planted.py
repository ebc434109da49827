"""Faults built in on purpose: what the laws are worth is how soon they find them.

Those named in the model of the store (sql/) stand for statements that lost a line; the others replace a piece of the engine.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock
from uuid import UUID

from app.domain.run.effects import SaveStep
from app.engine import apply, hot
from app.engine.keepers import recheck

#: In the model of the store.
IN_STORE = (
    "lease guard lost",
    "version check dropped",
    "timeout item dropped",
    "slot not freed",
    "commit torn in two",
    "fence not raised by rescue",
)


@contextlib.contextmanager
def _second_look_skipped() -> Iterator[None]:
    """Whoever owes the second look of a wait says that it found nothing (rule 15)."""

    async def nothing(_connection: Any, _pause: Any) -> None:
        return None

    with mock.patch.object(recheck, "recheck", nothing):
        yield


@contextlib.contextmanager
def _item_id_not_derived() -> Iterator[None]:
    """Every write of an item draws an id (architecture 6)."""
    drawn = iter(range(1, 1 << 30))
    with mock.patch.object(apply, "derive_item_id", side_effect=lambda _run, _key: UUID(int=next(drawn))):
        yield


@contextlib.contextmanager
def _memory_changed_before_the_answer() -> Iterator[None]:
    """A memo is forgotten between the commit and the next call (rule 3)."""

    def remember(self: hot.HotRun, run: Any, effects: Any, version: int, now: Any) -> None:
        keep: Callable[..., None] = original
        keep(self, run, [e for e in effects if not isinstance(e, SaveStep)], version, now)

    original = hot.HotRun.remember
    with mock.patch.object(hot.HotRun, "remember", remember):
        yield


#: In the engine.
IN_ENGINE: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "second look skipped": _second_look_skipped,
    "item id not derived": _item_id_not_derived,
    "memo forgotten after its commit": _memory_changed_before_the_answer,
}
ALL = (*IN_STORE, *IN_ENGINE)


@contextlib.contextmanager
def planted(name: str) -> Iterator[frozenset[str]]:
    """Build a fault in; gives what the model of the store is to be told."""
    if name in IN_ENGINE:
        with IN_ENGINE[name]():
            yield frozenset()
    else:
        yield frozenset({name})
