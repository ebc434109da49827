"""Text to tree: the grammar (a parser written in C++, behind one function) and every limit that needs no event.

The parser hands out its tree only in serialised form: a `google.protobuf.Any` holding a `cel.expr.ParsedExpr`
(public schema `cel/expr/syntax.proto` of the CEL specification, whose field numbers appear below). A reader of the
wire format takes fewer lines than generated classes and makes our own tree in one pass. Macros arrive expanded into
comprehensions; they are recognised here and become `tree.Loop` again.
"""

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from app.domain.expressions.errors import ExpressionRefused
from app.domain.expressions.functions import FUNCTIONS, OPERATORS, TYPES, pattern_of
from app.domain.expressions.tree import Call, Const, Ident, ListOf, Loop, MapOf, Node, Select, children

#: Bytes of UTF-8, before the parser sees it (reliability-security L14).
LONGEST_TEXT: Final = 4096
#: Nodes of the tree, macros counted as written (reliability-security 5 F).
MOST_NODES: Final = 500
#: Parts of the compiled patterns of `matches`, all together; a thousand take up to a quarter of a millisecond.
LARGEST_PATTERNS: Final = 40_000
#: Loops inside loops: one level only, so work grows with the event, not with its square.
DEEPEST_LOOP: Final = 1

_ENVIRONMENT = cel.NewEnv(variables={})
_WHERE = re.compile(r"<input>:(\d+):(\d+): (.*)")
_UNEXPECTED = re.compile(r"(?:input|at:) '(.*?)'(?: expecting .*)?$")
_VARIABLES = ("event", "async", "vars")


@lru_cache(maxsize=4096)
def parse(text: str, variables: tuple[str, ...]) -> Node:
    """The tree of an expression that may use these variables; raises ExpressionRefused."""
    serialised = _serialised(text)
    parsed = _last(_last(serialised, 2, b""), 2, b"")
    try:
        tree = _node(parsed)
        _check(tree, variables)
    except _Trouble as trouble:
        source_info = _last(_last(serialised, 2, b""), 3, b"")
        raise ExpressionRefused(trouble.code, trouble.message, _position(source_info, trouble.at)) from None
    return tree


class _Trouble(Exception):
    def __init__(self, message: str, at: int, *, too_costly: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.code: Any = "expression_too_costly" if too_costly else "expression_invalid"


def _serialised(text: str) -> bytes:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ExpressionRefused("expression_invalid", "The text holds half a character.", error.start) from None
    if size > LONGEST_TEXT:
        raise ExpressionRefused(
            "expression_too_costly", f"The expression has {size} bytes; at most {LONGEST_TEXT} are allowed."
        )
    if not text.strip():
        raise ExpressionRefused("expression_invalid", "The expression is empty.", 0)
    try:
        return bytes(_ENVIRONMENT.compile(text, disable_check=True).serialize())
    except (RuntimeError, ValueError, TypeError) as error:
        raise _refusal(text, str(error)) from None


def _refusal(text: str, said: str) -> ExpressionRefused:
    if "recursion" in said:
        return ExpressionRefused("expression_too_costly", "The expression is nested too deeply (at most 32 levels).")
    found = _WHERE.search(said)
    if found is None:
        return ExpressionRefused("expression_invalid", "This is not an expression.")
    line, column = int(found[1]), int(found[2])
    lines = text.split("\n")
    position = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1 if line <= len(lines) else 0
    if "{{" in text:
        return ExpressionRefused(
            "expression_invalid", "Templates in {{ }} are not expressions; write event.data.name.", text.index("{{")
        )
    return ExpressionRefused("expression_invalid", _sentence(found[3]), min(position, len(text)))


def _sentence(said: str) -> str:
    """The parser's complaint in the words of someone who writes expressions."""
    if "reserved identifier" in said:
        return f"'{said.rpartition(': ')[2]}' is a reserved word."
    if not said.startswith("Syntax error: "):
        return f"{said[:1].upper()}{said[1:200]}.".replace("..", ".")
    if "'<EOF>'" in said.partition(" expecting ")[0]:
        return "The expression ends too early."
    unexpected = _UNEXPECTED.search(said)
    return f"'{unexpected[1].strip()[:40]}' was not expected here." if unexpected else "This was not expected here."


# --- the wire format of protocol buffers -----------------------------------------------------------------------------


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of one message: whole numbers, or bytes; raises on nothing the parser writes."""
    i, end = 0, len(raw)
    while i < end:
        tag, i = _varint(raw, i)
        wire = tag & 7
        if wire == 0:
            number, i = _varint(raw, i)
            yield tag >> 3, number
        elif wire == 2:
            size, i = _varint(raw, i)
            yield tag >> 3, raw[i : i + size]
            i += size
        else:
            size = 8 if wire == 1 else 4
            yield tag >> 3, raw[i : i + size]
            i += size


def _varint(raw: bytes, i: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[i]
        i += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, i
        shift += 7


def _last(raw: bytes, wanted: int, default: Any) -> Any:
    """The last value of a field, which is the one that counts."""
    for number, value in _fields(raw):
        if number == wanted:
            default = value
    return default


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _position(source_info: bytes, at: int) -> int | None:
    """Where a node stands in the text: SourceInfo.positions = 4, a map from node id to character."""
    for number, entry in _fields(source_info):
        if number == 4 and _last(entry, 1, 0) == at:
            return int(_last(entry, 2, 0))
    return None


# --- cel.expr.Expr ---------------------------------------------------------------------------------------------------


def _node(raw: bytes) -> Node:
    """One Expr: id = 2, then const 3, ident 4, select 5, call 6, list 7, struct 8 or comprehension 9."""
    at, kind, body = 0, 0, b""
    for number, value in _fields(raw):
        if number == 2:
            at = value
        else:
            kind, body = number, value
    match kind:
        case 3:
            return Const(_constant(body), at)
        case 4:
            return Ident(str(_last(body, 1, b""), "utf-8").removeprefix("."), at)
        case 5:
            fields = dict(_fields(body))
            return Select(_node(fields[1]), str(fields[2], "utf-8"), bool(fields.get(3)), at)
        case 6:
            return _call(body, at)
        case 7:
            return ListOf(tuple(_node(item) for number, item in _fields(body) if number == 1), at)
        case 8:
            return _map(body, at)
        case 9:
            return _loop(body, at)
    raise _Trouble("This part cannot be read.", at)


def _constant(raw: bytes) -> Any:
    """Constant: null 1, bool 2, int64 3, uint64 4, double 5, string 6, bytes 7."""
    value: Any = None
    for number, field in _fields(raw):
        match number:
            case 2:
                value = bool(field)
            case 3:
                value = _signed(field)
            case 4:
                value = field
            case 5:
                value = struct.unpack("<d", field)[0]
            case 6:
                value = str(field, "utf-8")
            case 7:
                value = field
    return value


def _call(raw: bytes, at: int) -> Node:
    target: Node | None = None
    name = ""
    args: list[Node] = []
    for number, value in _fields(raw):
        if number == 1:
            target = _node(value)
        elif number == 2:
            name = str(value, "utf-8")
        elif number == 3:
            args.append(_node(value))
    return Call(name, target, tuple(args), at)


def _map(raw: bytes, at: int) -> Node:
    entries: list[tuple[Node, Node]] = []
    for number, value in _fields(raw):
        fields = dict(_fields(value)) if number == 2 else {}
        if number == 1 or 3 not in fields:
            raise _Trouble("Messages with named fields are not part of the language; write a map.", at)
        entries.append((_node(fields[3]), _node(fields[4])))
    return MapOf(tuple(entries), at)


def _loop(raw: bytes, at: int) -> Node:
    """Which macro a comprehension was, by its step: `a && p`, `a || p`, `p ? a + 1 : a`, `p ? a + [t] : a`, `a + [t]`.

    Comprehension: iter_var 1, iter_range 2, accu_var 3, accu_init 4, loop_condition 5, loop_step 6, result 7.
    """
    fields = dict(_fields(raw))
    variable = str(fields[1], "utf-8")
    if 8 in fields:
        raise _Trouble("Macros with two variables are not part of the language.", at)
    over, step, start = _node(fields[2]), _node(fields[6]), _node(fields[4])
    match start, step:
        case Const(value=True), Call(name="_&&_", args=(_, body)):
            return Loop("all", variable, over, None, body, at)
        case Const(value=False), Call(name="_||_", args=(_, body)):
            return Loop("exists", variable, over, None, body, at)
        case Const(value=0), Call(name="_?_:_", args=(body, _, _)):
            return Loop("exists_one", variable, over, None, body, at)
        case ListOf(), Call(name="_?_:_", args=(condition, Call(args=(_, ListOf(items=(body,)))), _)):
            return Loop("collect", variable, over, condition, body, at)
        case ListOf(), Call(name="_+_", args=(_, ListOf(items=(body,)))):
            return Loop("collect", variable, over, None, body, at)
    raise _Trouble("This macro is not part of the language.", at)


# --- what the grammar allows and we do not ---------------------------------------------------------------------------


def _check(tree: Node, variables: tuple[str, ...]) -> None:
    left, pattern_parts = MOST_NODES, LARGEST_PATTERNS

    def walk(node: Node, known: tuple[str, ...], loops: int) -> None:
        nonlocal left, pattern_parts
        left -= 1
        if left < 0:
            raise _Trouble(f"The expression has more than {MOST_NODES} parts.", node.at, too_costly=True)
        match node:
            case Ident(name=name) if name not in known and name not in TYPES:
                raise _Trouble(_unknown(name, variables), node.at)
            case Call():
                pattern_parts -= _check_call(node)
                if pattern_parts < 0:
                    raise _Trouble("The patterns of the expression are too large together.", node.at, too_costly=True)
            case Loop():
                if loops >= DEEPEST_LOOP:
                    raise _Trouble("A loop inside a loop costs too much.", node.at, too_costly=True)
                walk(node.over, known, loops)
                for part in (node.condition, node.body):
                    if part is not None:
                        walk(part, (*known, node.variable), loops + 1)
                return
        for child in children(node):
            walk(child, known, loops)

    walk(tree, variables, 0)


def _unknown(name: str, variables: tuple[str, ...]) -> str:
    usable = " and ".join(variables)
    if name in _VARIABLES:
        return f"'{name}' cannot be used here; there is {usable}."
    return f"There is no variable '{name}'; there is {usable}."


def _check_call(node: Call) -> int:
    """Refuse a call that cannot be made; gives the parts of its pattern, if it has one that is known."""
    if node.name in OPERATORS:
        return 0
    function = FUNCTIONS.get(node.name)
    if function is None:
        raise _Trouble(f"There is no function '{node.name}'.", node.at)
    count = len(node.operands)
    if not function.fewest <= count <= function.most or (node.target is not None and function.plain):
        raise _Trouble(f"'{node.name}' does not take these arguments; write {function.usage}.", node.at)
    if node.name == "matches" and isinstance(pattern := node.args[-1], Const) and isinstance(pattern.value, str):
        try:
            return int(pattern_of(pattern.value).programsize)
        except ValueError as error:
            raise _Trouble(f"{error}.".capitalize(), pattern.at) from None
    return 0
