"""Stored JSON text as a tree a template can draw: bounded in depth, breadth and length, whatever a tenant stored.

Numbers keep the digits they were stored with. Text that is no JSON is shown as text. Deeper levels, longer lists and
larger texts end in a note; the copy button and the download give the whole value.
"""

import json
from dataclasses import dataclass, field
from typing import Any

#: Levels drawn; the panel opens the first two.
DEPTH = 6
#: Members drawn per object or list, and nodes altogether: 256 KB of brackets must not become 10 MB of HTML.
BREADTH = 100
NODES = 1000
#: Characters of one string shown.
STRING = 2048
#: Larger texts are not parsed; the first part is shown as text.
LARGEST = 256 * 1024


@dataclass(frozen=True, slots=True)
class Node:
    """One value. `kind`: object, list, string, number, word (true, false, null) or cut (a note where drawing ended).

    `key` is None at the root and in lists. `text` is the value for people (strings without quotes) or, for objects and
    lists, their summary. `children` is empty for plain values.
    """

    kind: str
    key: str | None
    text: str
    children: tuple["Node", ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """`root` is None when the text is no JSON or too large; then `plain` holds what to show as text."""

    root: Node | None
    plain: str
    is_cut: bool


class _Number(str):
    """Digits as stored: 1.10 stays 1.10, and 2^60 is not rounded."""

    __slots__ = ()


@dataclass(slots=True)
class _Budget:
    left: int = field(default=NODES)


def parse_tree(text: str | None) -> Tree:
    """The tree of a stored JSON text; never raises, whatever the text."""
    if text is None:
        return Tree(None, "", False)
    if len(text) > LARGEST:
        return Tree(None, text[:STRING], True)
    try:
        value = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    except (ValueError, RecursionError):
        return Tree(None, text[:STRING], len(text) > STRING)
    return Tree(_node(None, value, 0, _Budget()), "", False)


def _node(key: str | None, value: Any, depth: int, budget: _Budget) -> Node:
    budget.left -= 1
    if isinstance(value, _Number):
        return Node("number", key, value[:STRING])
    if isinstance(value, str):
        return Node("string", key, value if len(value) <= STRING else f"{value[:STRING]}… ({len(value):,} characters)")
    if value is None or isinstance(value, bool):
        return Node("word", key, json.dumps(value))
    is_object = isinstance(value, dict)
    members = list(value.items()) if is_object else [(None, item) for item in value]
    unit = ("key" if is_object else "item") + ("" if len(members) == 1 else "s")
    summary = f"{{ {len(members)} {unit} }}" if is_object else f"[ {len(members)} {unit} ]"
    if not members:
        return Node("word", key, "{}" if is_object else "[]")
    if depth >= DEPTH:
        return Node("cut", key, summary)
    children = []
    for name, item in members[:BREADTH]:
        if budget.left <= 0:
            break
        children.append(_node(name, item, depth + 1, budget))
    if len(children) < len(members):
        children.append(Node("cut", None, f"{len(members) - len(children):,} more"))
    return Node("object" if is_object else "list", key, summary, tuple(children))
