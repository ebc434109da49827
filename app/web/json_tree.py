"""Stored JSON text as a tree a template can draw: bounded in depth, breadth and length, whatever a tenant stored.

Numbers keep the digits they were stored with. Text that is no JSON is shown as text. Deeper levels end in a link that asks
for the tree of that place alone (`at`, a JSON pointer); longer lists and larger texts end in a note, and the copy button
and the download give the whole value.
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
    lists, their summary. `children` is empty for plain values. `pointer` is where a value lies that was too deep.
    """

    kind: str
    key: str | None
    text: str
    children: tuple["Node", ...] = ()
    pointer: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """`root` is None when the text is no JSON or too large; then `plain` holds what to show as text.

    `path` are the members that lead to the root, () for the whole.
    """

    root: Node | None
    plain: str
    is_cut: bool
    path: tuple[str, ...] = ()


class _Number(str):
    """Digits as stored: 1.10 stays 1.10, and 2^60 is not rounded."""

    __slots__ = ()


@dataclass(slots=True)
class _Budget:
    left: int = field(default=NODES)


def parse_tree(text: str | None, at: str = "") -> Tree:
    """The tree of a stored JSON text, or of the place in it that the JSON pointer `at` names; what it does not name is
    the whole. Never raises, whatever the text.
    """
    if text is None:
        return Tree(None, "", False)
    if len(text) > LARGEST:
        return Tree(None, text[:STRING], True)
    try:
        value = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
    except (ValueError, RecursionError):
        return Tree(None, text[:STRING], len(text) > STRING)
    path = _path(at)
    inner = _follow(value, path)
    if inner is None:
        inner, path = value, ()
    return Tree(_node(None, inner, 0, _Budget(), "".join(f"/{_escaped(name)}" for name in path)), "", False, path)


def _path(pointer: str) -> tuple[str, ...]:
    if not pointer.startswith("/"):
        return ()
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def _escaped(name: str) -> str:
    # Half of a surrogate pair cannot stand in an address: such a place is not found, and the whole is shown.
    return name.encode(errors="replace").decode().replace("~", "~0").replace("/", "~1")


def _follow(value: Any, path: tuple[str, ...]) -> Any:
    """The object or list at a path; None when there is none."""
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and len(name) < 9 and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value if isinstance(value, (dict, list)) else None


def _node(key: str | None, value: Any, depth: int, budget: _Budget, pointer: str) -> Node:
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
        return Node("cut", key, summary, (), pointer)
    children = []
    for place, (name, item) in enumerate(members[:BREADTH]):
        if budget.left <= 0:
            break
        below = f"{pointer}/{place if name is None else _escaped(name)}"
        children.append(_node(name, item, depth + 1, budget, below))
    if len(children) < len(members):
        children.append(Node("cut", None, f"{len(members) - len(children):,} more"))
    return Node("object" if is_object else "list", key, summary, tuple(children))
