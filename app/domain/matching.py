"""Which functions an event sets off: trigger patterns by dictionary, then each trigger's expression; and which waits.

Comes from `engine/match.py`, which keeps one `TriggerIndex` per environment in memory; the functions found go on to the
gates. Patterns are protocol section 21.1: the exact name, or a prefix that ends in `/*` or `.*` up to that separator;
stars elsewhere are letters.
Waits are rows: `stored_wait` says what to write, `wait_value` what to look for, `wait_matches` has the last word.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import msgspec

from app.domain.expressions import (
    BoundWait,
    Expression,
    ExpressionRefused,
    bind_event,
    compile_expression,
    index_value,
)

#: How the caller names a function; only carried through.
F = TypeVar("F")


def patterns_for(event_name: str) -> list[str]:
    """Every trigger pattern that an event of this name matches, the exact name first, then by length of prefix."""
    return [
        event_name,
        *(event_name[: i + 1] + "*" for i, c in enumerate(event_name) if c == "/"),
        *(event_name[: i + 1] + "*" for i, c in enumerate(event_name) if c == "."),
    ]


@dataclass(frozen=True, slots=True)
class Trigger(Generic[F]):
    """One event trigger of a function; `expression` None matches every event of the pattern."""

    function: F
    pattern: str
    expression: str | None = None


@dataclass(frozen=True, slots=True)
class Filtered(Generic[F]):
    """A function whose trigger fits by name and whose expressions did not let the event in.

    `expression_error` when one of them failed on this event (`detail` is the sentence), else `filter`.
    """

    function: F
    reason: Literal["filter", "expression_error"]
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Matches(Generic[F]):
    """What an event sets off; each function at most once, in the order the index was built in."""

    matched: list[F] = field(default_factory=list)
    filtered: list[Filtered[F]] = field(default_factory=list)


class TriggerIndex(Generic[F]):
    """The event triggers of one environment, ready to be asked by name; immutable, rebuilt when functions change."""

    __slots__ = ("_by_pattern",)

    def __init__(self, triggers: Iterable[Trigger[F]]) -> None:
        self._by_pattern: dict[str, list[tuple[int, F, Expression | str | None]]] = {}
        places: dict[F, int] = {}
        for trigger in triggers:
            place = places.setdefault(trigger.function, len(places))
            judge = _compiled(trigger.expression)
            self._by_pattern.setdefault(trigger.pattern, []).append((place, trigger.function, judge))

    def match(self, event_name: str, load_event: Callable[[], Mapping[str, Any]], now: datetime) -> Matches[F]:
        """The functions of an event; `load_event` decodes it and is called once, if any expression asks for it.

        A bad or failing expression is no match of that trigger (protocol 21.1); another trigger of the function may
        still match.
        """
        candidates = [entry for pattern in patterns_for(event_name) for entry in self._by_pattern.get(pattern, ())]
        # Place in the index first: stable order, and all triggers of one function next to each other.
        candidates.sort(key=lambda entry: entry[0])
        result: Matches[F] = Matches()
        bindings: dict[str, Any] | None = None
        matched_place = -1
        turned_away: dict[int, Filtered[F]] = {}
        for place, function, expression in candidates:
            if place == matched_place:
                continue
            is_match, error = True, None
            if isinstance(expression, str):
                is_match, error = False, expression
            elif expression is not None:
                bindings = bindings or {"event": load_event()}
                is_match, error = expression.judge(bindings, now)
            if is_match:
                matched_place = place
                result.matched.append(function)
                turned_away.pop(place, None)
            elif error is not None:
                turned_away[place] = Filtered(function, "expression_error", error)
            else:
                turned_away.setdefault(place, Filtered(function, "filter"))
        result.filtered.extend(turned_away.values())
        return result


def _compiled(text: str | None) -> Expression | str | None:
    """The expression, or the sentence why it is none: registration refuses those, so this is a last line only."""
    if not text:
        return None
    try:
        return compile_expression(text)
    except ExpressionRefused as refused:
        return refused.message


@dataclass(frozen=True, slots=True)
class StoredWait:
    """The columns of a wait: `expression` is JSON for `wait_matches`, path and value are what it is found by.

    Path None: try it on every event of the name. A wait that nothing can end has a path and a value no event has.
    """

    expression: str
    path: str | None
    value: str | None

    @property
    def never(self) -> bool:
        """Whether no event can end the wait."""
        return self.path == ""


def stored_wait(expression: str, event: bytes) -> StoredWait:
    """What to store for a wait or a cancellation whose run started with this event (JSON); raises ExpressionRefused.

    The values of the event that the expression mentions are stored with it, so judging it later needs no run.
    """
    bound = bind_event(expression, msgspec.json.decode(event))
    text = msgspec.json.encode(bound).decode()
    if bound.never:
        return StoredWait(text, "", "never")
    return StoredWait(text, *((bound.index.path, bound.index.value) if bound.index else (None, None)))


#: The text under which an arriving event finds the waits of a path.
wait_value = index_value


def wait_matches(stored: str | None, event: Mapping[str, Any], now: datetime) -> tuple[bool, str | None]:
    """Whether an arriving event ends a wait, and the sentence of a failure; `stored` None is a wait for any event."""
    if stored is None:
        return True, None
    return msgspec.json.decode(stored, type=BoundWait).judge(event, now)


def wait_text(stored: str) -> str:
    """The wait's expression for people, with the values of the run's event filled in."""
    return msgspec.json.decode(stored, type=BoundWait).residual
