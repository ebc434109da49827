"""The syntax tree of an expression, and back to text for people.

Closed set of nodes; `at` is the parser's number of a node, by which `parse` knows its place in the text.
Macros stay loops (`Loop`), so nobody downstream sees the generic comprehension of the CEL grammar.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from app.domain.expressions.values import Missing, Value, is_number

LoopKind = Literal["all", "exists", "exists_one", "collect"]


@dataclass(frozen=True, slots=True)
class Const:
    """A value known before the event: a literal, or (with `origin`) a part that `binding` has evaluated."""

    value: Value
    at: int = 0
    origin: "Node | None" = None


@dataclass(frozen=True, slots=True)
class Ident:
    """A variable."""

    name: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`; with `test_only`, `has(operand.field)`."""

    operand: "Node"
    field: str
    test_only: bool = False
    at: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """An operator (`_==_`, `_&&_`, `_?_:_`, `@in`, `_[_]`, ...) or a function; a method has a target."""

    name: str
    target: "Node | None"
    args: tuple["Node", ...]
    at: int = 0

    @property
    def operands(self) -> tuple["Node", ...]:
        """Target first, as if it were a function."""
        return self.args if self.target is None else (self.target, *self.args)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list literal."""

    items: tuple["Node", ...]
    at: int = 0


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map literal, pairs in the order written."""

    entries: tuple[tuple["Node", "Node"], ...]
    at: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """One of the macros over a list or the keys of a map.

    `all`, `exists`, `exists_one`: `body` is the condition. `collect`: `filter` and `map`, where `condition` (optional)
    chooses and `body` gives the element.
    """

    kind: LoopKind
    variable: str
    over: "Node"
    condition: "Node | None"
    body: "Node"
    at: int = 0


Node = Const | Ident | Select | Call | ListOf | MapOf | Loop


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in the order written."""
    match node:
        case Select(operand=operand):
            yield operand
        case Call():
            yield from node.operands
        case ListOf(items=items):
            yield from items
        case MapOf(entries=entries):
            for key, value in entries:
                yield key
                yield value
        case Loop():
            yield node.over
            if node.condition is not None:
                yield node.condition
            yield node.body


def count(node: Node) -> int:
    """How many nodes the tree has: what one evaluation without loops costs."""
    return 1 + sum(count(child) for child in children(node))


def path_of(node: Node) -> tuple[str, tuple[str, ...]] | None:
    """Variable and field names of a plain path (`event.data.id`, `event["data"].id`); None for anything else."""
    names: list[str] = []
    while True:
        match node:
            case Select(operand=operand, field=field, test_only=False):
                names.append(field)
                node = operand
            case Call(name="_[_]", args=(operand, Const(value=str() as field))):
                names.append(field)
                node = operand
            case Ident(name=name):
                return name, tuple(reversed(names))
            case _:
                return None


_INFIX = {
    "_?_:_": 0, "_||_": 1, "_&&_": 2, "_==_": 3, "_!=_": 3, "_<_": 3, "_<=_": 3, "_>_": 3, "_>=_": 3, "@in": 3,
    "_+_": 4, "_-_": 4, "_*_": 5, "_/_": 5, "_%_": 5,
}  # fmt: skip
_UNARY, _TIGHT = 6, 7
_LONGEST_VALUE = 200
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def to_text(node: Node) -> str:
    """The expression as a user would write it; parts evaluated by `binding` appear as their values when short."""
    return _text(node, 0)


def _text(node: Node, inside: int) -> str:
    match node:
        case Const():
            literal = _literal(node.value)
            if literal is not None and (node.origin is None or len(literal) <= _LONGEST_VALUE):
                return literal
            return _text(node.origin, inside) if node.origin is not None else "null"
        case Ident(name=name):
            return name
        case Select(operand=operand, field=field, test_only=test_only):
            dotted = field if _WORD.match(field) else f"`{field}`"
            path = f"{_text(operand, _TIGHT)}.{dotted}"
            return f"has({path})" if test_only else path
        case Call():
            return _call(node, inside)
        case ListOf(items=items):
            return "[" + ", ".join(_text(item, 0) for item in items) + "]"
        case MapOf(entries=entries):
            return "{" + ", ".join(f"{_text(key, 0)}: {_text(value, 0)}" for key, value in entries) + "}"
        case Loop():
            return _loop(node)


def _call(node: Call, inside: int) -> str:
    args, name = node.args, node.name
    if name == "_[_]":
        return f"{_text(args[0], _TIGHT)}[{_text(args[1], 0)}]"
    if name in ("!_", "-_"):
        inner = _text(args[0], _UNARY)
        # The grammar lets two signs in a row cancel each other.
        return _wrap(f"{name[0]}({inner})" if inner[0] in "-!" else name[0] + inner, _UNARY, inside)
    if name == "_?_:_":
        return _wrap(f"{_text(args[0], 1)} ? {_text(args[1], 1)} : {_text(args[2], 0)}", 0, inside)
    if name in _INFIX:
        rank = _INFIX[name]
        sign = "in" if name == "@in" else name.strip("_")
        return _wrap(f"{_text(args[0], rank)} {sign} {_text(args[1], rank + 1)}", rank, inside)
    listed = ", ".join(_text(arg, 0) for arg in args)
    return f"{name}({listed})" if node.target is None else f"{_text(node.target, _TIGHT)}.{name}({listed})"


def _wrap(text: str, rank: int, inside: int) -> str:
    return f"({text})" if rank < inside else text


def _loop(node: Loop) -> str:
    over, body = _text(node.over, _TIGHT), _text(node.body, 0)
    if node.kind != "collect":
        return f"{over}.{node.kind}({node.variable}, {body})"
    if node.condition is None:
        return f"{over}.map({node.variable}, {body})"
    condition = _text(node.condition, 0)
    if node.body == Ident(node.variable, node.body.at):
        return f"{over}.filter({node.variable}, {condition})"
    return f"{over}.map({node.variable}, {condition}, {body})"


def _literal(value: Value) -> str | None:
    """The literal of a value; None where the grammar has none or it would be long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_number(value):
        # JSON has wider numbers than the literals of CEL.
        if isinstance(value, float):
            return repr(value) if math.isfinite(value) else None
        return str(value) if -(2**63) <= value < 2**63 else None
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bytes):
        return "b'" + "".join(f"\\x{byte:02x}" for byte in value) + "'"
    if isinstance(value, (Missing, datetime, timedelta, dict)):
        return None
    if len(value) > 20:
        return None
    items = [_literal(item) if not isinstance(item, (list, dict)) else None for item in value]
    return "[" + ", ".join(item for item in items if item is not None) + "]" if None not in items else None


def _quoted(text: str) -> str:
    out = ["'"]
    for c in text:
        if c in "\\'":
            out.append("\\" + c)
        elif c.isprintable():
            out.append(c)
        elif ord(c) < 0x10000:
            out.append(f"\\u{ord(c):04x}")
        else:
            out.append(f"\\U{ord(c):08x}")
    out.append("'")
    return "".join(out)
