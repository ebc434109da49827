"""Tree to closures: each node becomes one Python function of a frame, made once, called for every event.

Closures return values and never raise for what a user wrote: a failed part is `Missing` with a reason, which operators
treat as a missing field. Only `Spent` (the budget) leaves them. Loops charge each turn with the size of their body, so
one evaluation does at most `STEPS` node visits; functions charge for long texts and lists.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from operator import mul, sub
from typing import Any

from app.domain.expressions.errors import ExpressionFailed
from app.domain.expressions.functions import FUNCTIONS, TYPES, Function, pattern_of, search
from app.domain.expressions.parse import parse
from app.domain.expressions.tree import Call, Const, Ident, ListOf, Loop, MapOf, Node, Select, count
from app.domain.expressions.values import (
    MISSING,
    STEPS,
    Frame,
    Missing,
    Spent,
    Value,
    add,
    is_equal,
    is_number,
    is_truthy,
    order,
    spend,
    type_name,
    whole,
)

Closure = Callable[[Frame], Value]


class Expression:
    """One compiled expression; immutable, shared by threads and by all who use the same text."""

    __slots__ = ("_run", "_variables", "text")

    def __init__(self, text: str, variables: tuple[str, ...], run: Closure) -> None:
        self.text = text
        self._variables = variables
        self._run = run

    def evaluate(self, bindings: Mapping[str, Value], now: datetime | None = None) -> Value:
        """The value for these variables (decoded JSON); a result that is missing counts as false.

        `now` is what `now()` answers. Raises ExpressionFailed, and nothing else.
        """
        frame: Frame = [STEPS, now]
        for name in self._variables:
            frame.append(bindings.get(name, MISSING))
        try:
            value = self._run(frame)
        except Spent:
            raise ExpressionFailed("The expression took too many steps for this event.") from None
        except Exception as error:  # noqa: BLE001 - see below
            # RecursionError, OverflowError and MemoryError are to be expected; any other would be a mistake of ours, and
            # still no reason for a user's expression to stop whoever asks.
            raise ExpressionFailed(f"The expression failed on this event ({type(error).__name__}).") from None
        if value.__class__ is not Missing:
            return value
        if value.reason is None:
            return False
        raise ExpressionFailed(f"The expression failed: {value.reason}.")

    def matches(self, bindings: Mapping[str, Value], now: datetime | None = None) -> bool:
        """Whether the value is true in the sense of JavaScript; a failure is false."""
        return self.judge(bindings, now)[0]

    def judge(self, bindings: Mapping[str, Value], now: datetime | None = None) -> tuple[bool, str | None]:
        """As `matches`, with the sentence of the failure, None when there was none."""
        try:
            return is_truthy(self.evaluate(bindings, now)), None
        except ExpressionFailed as failed:
            return False, str(failed)


@lru_cache(maxsize=4096)
def _compiled(text: str, variables: tuple[str, ...]) -> Expression:
    return Expression(text, variables, close_over(parse(text, variables), variables))


def compile_expression(text: str, variables: tuple[str, ...] = ("event",)) -> Expression:
    """The expression of a text, remembered by text; raises ExpressionRefused with code, sentence and position."""
    return _compiled(text, variables)


def close_over(tree: Node, variables: tuple[str, ...]) -> Closure:
    """The closure of a checked tree whose variables stand in the frame in this order."""
    return _close(tree, {name: slot for slot, name in enumerate(variables, 2)})


def _close(node: Node, slots: Mapping[str, int]) -> Closure:
    match node:
        case Const(value=value):
            return lambda f: value
        case Ident(name=name):
            if name not in slots:
                known = TYPES[name]
                return lambda f: known
            slot = slots[name]
            # A loop's variable has a slot past the end until its loop has run once; the loop always sets it first.
            return lambda f: f[slot]
        case Select():
            return _select(node, slots)
        case Call():
            return _call(node, slots)
        case ListOf(items=items):
            parts = [_close(item, slots) for item in items]
            return lambda f: _literal_list([part(f) for part in parts])
        case MapOf(entries=entries):
            pairs = [(_close(key, slots), _close(value, slots)) for key, value in entries]
            return lambda f: _literal_map([(key(f), value(f)) for key, value in pairs])
        case Loop():
            return _loop(node, slots)


# --- fields, literals ------------------------------------------------------------------------------------------------


def _select(node: Select, slots: Mapping[str, int]) -> Closure:
    field = node.field
    if node.test_only:
        holder = _close(node.operand, slots)
        return lambda f: (v := holder(f)).__class__ is dict and field in v
    operand = node.operand
    if isinstance(operand, Select) and not operand.test_only:
        # Two fields in one closure: event.data.x is the commonest shape there is.
        outer, first = _close(operand.operand, slots), operand.field

        def two(f: Frame) -> Value:
            v = outer(f)
            if v.__class__ is dict:
                v = v.get(first, MISSING)
                if v.__class__ is dict:
                    return v.get(field, MISSING)
            return v if v.__class__ is Missing else MISSING

        return two
    get = _close(operand, slots)

    def one(f: Frame) -> Value:
        v = get(f)
        if v.__class__ is dict:
            return v.get(field, MISSING)
        return v if v.__class__ is Missing else MISSING

    return one


def _literal_list(items: list[Value]) -> Value:
    for i, item in enumerate(items):
        if item.__class__ is Missing:
            if item.reason is not None:
                return item
            items[i] = None
    return items


def _literal_map(pairs: list[tuple[Value, Value]]) -> Value:
    out: dict[Value, Value] = {}
    for said, value in pairs:
        key = int(said) if said.__class__ is float and said.is_integer() else said
        if key.__class__ is not str and key.__class__ is not int:
            return Missing("keys of a map are strings or whole numbers")
        if value.__class__ is Missing:
            if value.reason is not None:
                return value
            out[key] = None
        else:
            out[key] = value
    return out


def _index(holder: Value, key: Value) -> Value:
    if holder.__class__ is Missing:
        return holder
    if key.__class__ is float and key.is_integer():
        key = int(key)
    if holder.__class__ is dict:
        return holder.get(key, MISSING) if key.__class__ is str or key.__class__ is int else MISSING
    if holder.__class__ is list and key.__class__ is int and 0 <= key < len(holder):
        return holder[key]
    return MISSING


# --- operators and functions -----------------------------------------------------------------------------------------


def _call(node: Call, slots: Mapping[str, int]) -> Closure:
    parts = [_close(operand, slots) for operand in node.operands]
    match node.name:
        case "_&&_":
            left, right = parts
            return lambda f: right(f) if is_truthy(v := left(f)) else v
        case "_||_":
            left, right = parts
            return lambda f: v if is_truthy(v := left(f)) else right(f)
        case "_?_:_":
            test, yes, no = parts
            return lambda f: yes(f) if is_truthy(test(f)) else no(f)
        case "_==_" | "_!=_":
            return _equality(parts, node.name == "_==_")
        case "_<_" | "_<=_" | "_>_" | "_>=_":
            return _ordering(parts, node.name)
        case "_+_":
            left, right = parts
            return lambda f: add(f, left(f), right(f))
        case "_-_" | "_*_" | "_/_" | "_%_":
            left, right = parts
            work = _ARITHMETIC[node.name]
            return lambda f: _calculated(work, left(f), right(f))
        case "-_":
            (only,) = parts
            return lambda f: _calculated(sub, 0, only(f))
        case "!_":
            (only,) = parts
            return lambda f: False if (v := only(f)) is None or v.__class__ is Missing else not is_truthy(v)
        case "_[_]":
            holder, key = parts
            return lambda f: _index(holder(f), key(f))
        case "@in":
            item, holder = parts
            return lambda f: _is_in(f, item(f), holder(f))
        case name:
            if name == "matches" and isinstance(pattern := node.args[-1], Const) and isinstance(pattern.value, str):
                parts, call = parts[:1], partial(_search_for, pattern_of(pattern.value))
                return _function(replace(FUNCTIONS[name], call=call), parts)
            return _function(FUNCTIONS[name], parts)


def _search_for(pattern: Any, frame: Frame, text: Value) -> Value:
    return search(frame, text, pattern)


def _equality(parts: list[Closure], wanted: bool) -> Closure:
    left, right = parts

    def equality(f: Frame) -> Value:
        a, b = left(f), right(f)
        if a.__class__ is str and b.__class__ is str and len(a) < 1000:
            return (a == b) is wanted
        return is_equal(f, a, b) is wanted

    return equality


def _ordering(parts: list[Closure], name: str) -> Closure:
    left, right = parts
    less, equal = name[1] == "<", name.endswith("=_")
    wanted = -1 if less else 1

    def ordering(f: Frame) -> Value:
        a, b = left(f), right(f)
        if a.__class__ is Missing:
            return less
        if b.__class__ is Missing:
            return not less
        standing = order(f, a, b)
        return standing == wanted or (equal and standing == 0)

    return ordering


def _over(left: Value, right: Value) -> Value:
    if left.__class__ is int and right.__class__ is int:
        # CEL cuts towards zero, Python rounds down.
        return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return left / right


def _rest(left: Value, right: Value) -> Value:
    if left.__class__ is int and right.__class__ is int:
        return left - right * _over(left, right)
    raise TypeError


_ARITHMETIC: dict[str, Callable[[Value, Value], Value]] = {"_-_": sub, "_*_": mul, "_/_": _over, "_%_": _rest}


def _calculated(work: Callable[[Value, Value], Value], left: Value, right: Value) -> Value:
    if left is None or right is None or left.__class__ is Missing or right.__class__ is Missing:
        return False
    if is_number(left) and is_number(right):
        # JSON does not tell 4.0 from 4: whole numbers of either kind may stand on both sides of %.
        if work is _rest and left == left // 1 and right == right // 1:
            left, right = int(left), int(right)
        try:
            return whole(work(left, right))
        except ZeroDivisionError:
            return Missing("division by zero")
        except (TypeError, ValueError, OverflowError):
            return Missing("these numbers cannot be calculated with")
    if work is sub and isinstance(left, datetime):
        try:
            return left - right
        except (TypeError, OverflowError):
            return Missing("only a date or a duration can be taken from a date")
    if work is sub and type_name(right) == "google.protobuf.Duration":
        if left == 0 and left.__class__ is int:
            return -right
        if left.__class__ is right.__class__:
            return left - right
    return Missing(f"cannot calculate with {type_name(left)} and {type_name(right)}")


def _is_in(f: Frame, item: Value, holder: Value) -> Value:
    if item.__class__ is Missing or holder.__class__ is Missing or holder is None:
        return False
    if holder.__class__ is list:
        if item.__class__ is str:
            spend(f, (len(holder) >> 2) + len(holder) * (len(item) >> 10))
            return item in holder
        spend(f, len(holder))
        return any(is_equal(f, item, other) for other in holder)
    if holder.__class__ is dict:
        return _index(holder, item) is not MISSING
    return Missing(f"'in' looks in a list or a map, not in {type_name(holder)}")


def _function(function: Function, parts: list[Closure]) -> Closure:
    call, sees_missing = function.call, function.sees_missing

    def run(f: Frame) -> Value:
        values = [part(f) for part in parts]
        if not sees_missing:
            for value in values:
                if value is None or value.__class__ is Missing:
                    return False
        try:
            return call(f, *values)
        except (ValueError, ArithmeticError) as error:
            return Missing(str(error))

    return run


# --- loops -----------------------------------------------------------------------------------------------------------


def _loop(node: Loop, slots: Mapping[str, int]) -> Closure:
    over = _close(node.over, slots)
    # Loops do not nest, so one slot behind the variables serves them all.
    slot = max(slots.values(), default=1) + 1
    inner = {**slots, node.variable: slot}
    body = _close(node.body, inner)
    condition = None if node.condition is None else _close(node.condition, inner)
    turn = 1 + count(node.body) + (0 if node.condition is None else count(node.condition))
    work = _LOOPS[node.kind]

    def loop(f: Frame) -> Value:
        items = over(f)
        if items.__class__ is not list and items.__class__ is not dict:
            if items is None or items.__class__ is Missing:
                return MISSING
            return Missing(f"only a list or a map can be gone through, not {type_name(items)}")
        if len(f) <= slot:
            f.append(MISSING)
        return work(f, slot, items, turn, condition, body)

    return loop


def _all(f: Frame, slot: int, items: Any, turn: int, _: Closure | None, body: Closure) -> Value:
    for item in items:
        spend(f, turn)
        f[slot] = item
        if not is_truthy(body(f)):
            return False
    return True


def _exists(f: Frame, slot: int, items: Any, turn: int, _: Closure | None, body: Closure) -> Value:
    for item in items:
        spend(f, turn)
        f[slot] = item
        if is_truthy(body(f)):
            return True
    return False


def _exists_one(f: Frame, slot: int, items: Any, turn: int, _: Closure | None, body: Closure) -> Value:
    found = 0
    for item in items:
        spend(f, turn)
        f[slot] = item
        found += is_truthy(body(f))
    return found == 1


def _collect(f: Frame, slot: int, items: Any, turn: int, condition: Closure | None, body: Closure) -> Value:
    out: list[Value] = []
    for item in items:
        spend(f, turn)
        f[slot] = item
        if condition is None or is_truthy(condition(f)):
            out.append(body(f))
    return _literal_list(out)


_LOOPS: dict[str, Callable[..., Value]] = {
    "all": _all,
    "exists": _exists,
    "exists_one": _exists_one,
    "collect": _collect,
}
