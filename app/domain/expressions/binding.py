"""Waits and cancellations: the event's side fixed when the wait opens, the other side found by an index.

`bind_event` keeps the text as written (compiled once for all runs that use it) and, of the event, only what the text
mentions. From a top-level `async.<path> == <value>` it takes an index key, so that an arriving event finds its waits
by (name, path, value) instead of being tried on all of them; candidates are then judged by the whole expression.
Equal values always have equal key texts (1 and 1.0); unequal values may share one, which costs a judgement only.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.domain.expressions.evaluate import close_over, compile_expression
from app.domain.expressions.parse import parse
from app.domain.expressions.tree import (
    Call,
    Const,
    Ident,
    ListOf,
    Loop,
    MapOf,
    Node,
    Select,
    children,
    path_of,
    to_text,
)
from app.domain.expressions.values import (
    MISSING,
    STEPS,
    Frame,
    Missing,
    Value,
    is_number,
    is_truthy,
    number_text,
)

#: The run's first event, and the event that may end the wait (protocol section 22).
VARIABLES = ("event", "async")
#: Characters of a string that stand in the index as they are; longer ones by their SHA-256.
_LONGEST_KEY = 100
#: Characters of a path: key and path together stay far below what an entry of a Postgres index can hold (2,700 bytes).
_LONGEST_PATH = 300
_CLOCKS = ("now", "now_plus", "now_minus")


@dataclass(frozen=True, slots=True)
class IndexKey:
    """Where a wait is found: `path` into the arriving event as a JSON pointer ("/data/id"), `value` canonical text."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class BoundWait:
    """What to store with a wait, and what is known of it already.

    `text` and `event` (JSON, pruned to what the text mentions) are all that `judge` needs. `residual` is for people:
    the expression with short values in place of `event.…`. `never`: no event can make it true, open no listener.
    `always`: every event of the name does. `index` None: no equality to find it by, try it on every event of the name.
    """

    text: str
    event: dict[str, Any]
    residual: str
    never: bool
    always: bool
    index: IndexKey | None

    def judge(self, candidate: Mapping[str, Any], now: datetime | None = None) -> tuple[bool, str | None]:
        """Whether an arriving event ends the wait, and the sentence of a failure."""
        return compile_expression(self.text, VARIABLES).judge({"event": self.event, "async": candidate}, now)


def bind_event(text: str, event: Mapping[str, Any]) -> BoundWait:
    """Fix the event's side of a wait's or cancellation's expression; raises ExpressionRefused for a bad text."""
    tree = parse(text, VARIABLES)
    paths = _event_paths(tree, frozenset())
    pruned = _pruned(event, paths)
    try:
        # One budget for all parts together, as in one evaluation.
        folded = _reduced(_fold(tree, [STEPS, None, pruned], frozenset()))
    except Exception:  # noqa: BLE001 - the budget, or what Python gives up on; `judge` tells which
        # Too much to know in advance; the arriving event may still decide before that part is reached.
        folded = tree
    known = isinstance(folded, Const)
    true = isinstance(folded, Const) and is_truthy(folded.value)
    return BoundWait(
        text=text,
        event=pruned,
        residual=("true" if true else "false") if known else to_text(folded),
        never=known and not true,
        always=true,
        index=None if known else _index_key(folded),
    )


def index_value(path: str, event: Mapping[str, Any]) -> str:
    """The key text of an arriving event at a path of `IndexKey.path`, to look its waits up by."""
    value: Value = event
    for part in path.split("/")[1:]:
        if value.__class__ is not dict:
            value = MISSING
            break
        value = value.get(part.replace("~1", "/").replace("~0", "~"), MISSING)
    return _canonical(value)


def _canonical(value: Value) -> str:
    if value is True or value is False:
        return "b:true" if value else "b:false"
    if is_number(value):
        return "n:" + (f"{value}" if isinstance(value, int) and value.bit_length() < 54 else number_text(float(value)))
    if isinstance(value, str):
        if len(value) <= _LONGEST_KEY and "\x00" not in value:
            return "s:" + value
        return "h:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    if isinstance(value, (list, dict)):
        return f"{'l' if isinstance(value, list) else 'm'}:{len(value)}"
    # Missing equals null.
    return "null" if value is None or value.__class__ is Missing else "other"


# --- what the text mentions of the event -----------------------------------------------------------------------------


def _event_paths(node: Node, shadowed: frozenset[str]) -> set[tuple[str, ...]]:
    """The paths of `event` that are read; the empty path is the whole of it."""
    if isinstance(node, Select) and node.test_only:
        node = replace(node, test_only=False)
    path = path_of(node)
    if path is not None:
        return {path[1]} if path[0] == "event" and "event" not in shadowed else set()
    if isinstance(node, Loop):
        inner = shadowed | {node.variable}
        found = _event_paths(node.over, shadowed) | _event_paths(node.body, inner)
        return found if node.condition is None else found | _event_paths(node.condition, inner)
    return {path for child in children(node) for path in _event_paths(child, shadowed)}


def _pruned(event: Mapping[str, Any], paths: set[tuple[str, ...]]) -> dict[str, Any]:
    """The event with nothing but these paths; what is not there, or lies below a value that is no map, stays away."""
    if () in paths:
        return dict(event)
    out: dict[str, Any] = {}
    # Shorter first: a path inside one already kept whole must not write into the event's own map.
    kept: set[tuple[str, ...]] = set()
    for path in sorted(paths, key=len):
        if any(path[:size] in kept for size in range(1, len(path))):
            continue
        source: Any = event
        for name in path:
            source = source.get(name, MISSING) if source.__class__ is dict else MISSING
        if source is MISSING:
            continue
        kept.add(path)
        target = out
        for name in path[:-1]:
            target = target.setdefault(name, {})
        target[path[-1]] = source
    return out


# --- evaluating what is known ----------------------------------------------------------------------------------------


def _fold(node: Node, frame: Frame, loops: frozenset[str]) -> Node:
    """The tree with every part that needs neither the arriving event nor the clock replaced by its value."""
    if isinstance(node, Const):
        return node
    if _is_closed(node, loops):
        return Const(close_over(node, ("event",))(frame), node.at, node)
    match node:
        case Select():
            return replace(node, operand=_fold(node.operand, frame, loops))
        case Call(name="_&&_" | "_||_", args=(left, right)):
            left, right = _fold(left, frame, loops), _fold(right, frame, loops)
            if isinstance(left, Const):
                return right if is_truthy(left.value) is (node.name == "_&&_") else left
            return replace(node, args=(left, right))
        case Call(name="_?_:_", args=(test, yes, no)):
            test = _fold(test, frame, loops)
            if isinstance(test, Const):
                return _fold(yes if is_truthy(test.value) else no, frame, loops)
            return replace(node, args=(test, _fold(yes, frame, loops), _fold(no, frame, loops)))
        case Call():
            target = None if node.target is None else _fold(node.target, frame, loops)
            return replace(node, target=target, args=tuple(_fold(arg, frame, loops) for arg in node.args))
        case ListOf():
            return replace(node, items=tuple(_fold(item, frame, loops) for item in node.items))
        case MapOf():
            pairs = ((_fold(key, frame, loops), _fold(value, frame, loops)) for key, value in node.entries)
            return replace(node, entries=tuple(pairs))
        case Loop():
            # Inside the body the loop's variable is unknown; a name it hides must not be filled in.
            inner = loops | {node.variable}
            condition = None if node.condition is None else _fold(node.condition, frame, inner)
            body = _fold(node.body, frame, inner)
            return replace(node, over=_fold(node.over, frame, loops), condition=condition, body=body)
        case _:
            return node


def _is_closed(node: Node, unknown: frozenset[str]) -> bool:
    match node:
        case Ident(name=name):
            return name != "async" and name not in unknown
        case Call(name=name) if name in _CLOCKS:
            return False
        case Loop():
            inner = unknown - {node.variable}
            parts = (node.body,) if node.condition is None else (node.condition, node.body)
            # A loop over known things whose variable is called `async` is closed as well, but nobody writes that.
            return _is_closed(node.over, unknown) and all(_is_closed(part, inner) for part in parts)
    return all(_is_closed(child, unknown) for child in children(node))


def _reduced(node: Node) -> Node:
    """The same truth with less text: known sides of `&&` and `||` decided, where only truth counts."""
    match node:
        case Call(name="_&&_" | "_||_" as name, args=(left, right)):
            left, right = _reduced(left), _reduced(right)
            deciding = name == "_||_"
            for side, other in ((left, right), (right, left)):
                if isinstance(side, Const):
                    return Const(deciding) if is_truthy(side.value) is deciding else other
            return replace(node, args=(left, right))
    return node


def _index_key(node: Node) -> IndexKey | None:
    """The best equality among the parts joined by `&&`: one with a value of the event before one with a literal."""
    found: IndexKey | None = None
    for part in _conjuncts(node):
        match part:
            case Call(name="_==_", args=(Const() as value, other)) | Call(name="_==_", args=(other, Const() as value)):
                path = path_of(other)
                if path is None or path[0] != "async" or not path[1]:
                    continue
                pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in path[1])
                if len(pointer) > _LONGEST_PATH or "\x00" in pointer:
                    continue
                key = IndexKey(pointer, _canonical(value.value))
                if value.origin is not None and _event_paths(value.origin, frozenset()):
                    return key
                found = found or key
    return found


def _conjuncts(node: Node) -> list[Node]:
    if isinstance(node, Call) and node.name == "_&&_":
        return [part for side in node.args for part in _conjuncts(side)]
    return [node]
