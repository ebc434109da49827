"""Expressions nobody would write for good, drawn from dice, and events to go with them.

The grammar is that of the language, so most of what is drawn gets past the parser; a part of it is bent afterwards.
Nothing here knows what comes of them; `test_hostile_expressions.py` looks at that.
"""

from random import Random
from typing import Any, Final

from app.domain.expressions.functions import FUNCTIONS

_BINARY: Final = ("&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "in")
_MACROS: Final = ("all", "exists", "exists_one", "filter", "map")
_PATTERNS: Final = (
    "(x+x+)+y", "(a|b)*a(a|b){200}c", "(a?){500}a{500}", "((a{30}){30}){30}", "(?i)[\\\\pL\\\\pN]{30}q", "(?i)\\\\PL{50}",
    "((((", "[z-a]", "\\\\1", "(?=x)", "a{1001}", "^(a|a)*$", "",
)  # fmt: skip
_LITERALS: Final = (
    "0", "1", "-1", "9223372036854775807", "-9223372036854775808", "18446744073709551615u", "1e308", "-1e-308", "0.1",
    "true", "false", "null", "''", "'a'", "'" + "x" * 300 + "'", "'\\u00e9'", "b'\\xff'", "'2026-01-01T00:00:00Z'", "'1h30m'",
    "'Europe/Berlin'", "'No/Such'", "'[[[[1]]]]'", "'AAAA'", "[]", "{}", "[1, 'a', null, [2.5]]", "{'a': 1, 'b': {'c': []}}",
    "{1: 2, 1.0: 3}", "99999999999999999999", "1.0 / 0.0", "string", "timestamp('2026-01-01T00:00:00Z')",
)  # fmt: skip
_FIELDS: Final = (
    "data", "text", "part", "big", "list", "map", "deep", "number", "huge", "patterns", "nothing", "flag", "dates", "json",
    "__class__", "a.b", "0",
)  # fmt: skip
_NOISE: Final = (
    "(",
    ")",
    "[",
    "]",
    "'",
    '"',
    "\\",
    ".",
    ",",
    "?",
    ":",
    "&&",
    "\x00",
    "\ud800",
    "é",
    "{{",
    "}}",
    "\n",
    "#",
    "//",
)


def event() -> dict[str, Any]:
    """The event they are tried on: every kind of value, and a lot of some."""
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    return {
        "name": "shop/sent",
        "ts": 1_700_000_000_000,
        "data": {
            "text": "a" * 20_000 + "b",
            "part": "a" * 50 + "b" + "a" * 48,
            "big": list(range(3_000)),
            "list": ["a", 1, None, True, 1.5, {"a": 1}, ["b"]],
            "map": {str(n): n for n in range(500)} | {"a.b": 1, "": 2, "__class__": 3},
            "deep": deep,
            "number": 12345678901234567890,
            "huge": 10**30,
            "patterns": [f"(?i)[\\pL\\pN]{{{n}}}q" for n in range(20, 30)] + ["((("],
            "nothing": None,
            "flag": True,
            "dates": [
                "2026-01-01T00:00:00Z",
                "Mon, 02 Jan 2006 15:04:05 MST",
                "0001-01-01",
                "9999-12-31T23:59:60Z",
                "soon",
            ],
            "json": "[" * 300 + "]" * 300,
        },
    }


def expression(dice: Random, *, names: tuple[str, ...] = ("event",)) -> str:
    """One expression, in one of ten cases bent afterwards."""
    text = _part(dice, dice.choice((1, 2, 3, 4, 5)), names, in_loop=False)
    if dice.random() < 0.1:
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(text) + 1)
            text = text[:at] + dice.choice(_NOISE) + text[at + dice.randrange(3) :]
    if dice.random() < 0.02:
        text = dice.choice(("(", "[", "!", "-", "x ? ", "event.", "{'a': ")) * dice.choice((40, 5_000)) + text
    return text


def _part(dice: Random, depth: int, names: tuple[str, ...], *, in_loop: bool) -> str:
    def more() -> str:
        return _part(dice, depth - 1, names, in_loop=in_loop)

    if depth <= 0:
        return dice.choice(_LITERALS) if dice.random() < 0.4 else _path(dice, names)
    match dice.randrange(12):
        case 0 | 1 | 2:
            return f"({more()} {dice.choice(_BINARY)} {more()})"
        case 3:
            return f"({more()} ? {more()} : {more()})"
        case 4:
            return f"{dice.choice('!-')}({more()})"
        case 5:
            return "[" + ", ".join(more() for _ in range(dice.randrange(4))) + "]"
        case 6:
            return "{" + ", ".join(f"{more()}: {more()}" for _ in range(dice.randrange(3))) + "}"
        case 7:
            return f"({more()})[{more()}]"
        case 8 | 9:
            return _call(dice, more)
        case 10 if not in_loop or dice.random() < 0.1:
            body = _part(dice, depth - 1, (*names, "x", "x"), in_loop=True)
            return f"({more()}).{dice.choice(_MACROS)}(x, {body})"
        case 11:
            return f"has({_path(dice, names)})"
        case _:
            return _path(dice, names)


def _path(dice: Random, names: tuple[str, ...]) -> str:
    name = dice.choice(names)
    if name == "x":
        return name
    text = f"{name}.data" if dice.random() < 0.9 else name
    for _ in range(dice.choice((0, 1, 1, 1, 1, 2))):
        field = dice.choice(_FIELDS)
        text += f".{field}" if field.isidentifier() and dice.random() < 0.8 else f"['{field}']"
    return text


def _call(dice: Random, more: Any) -> str:
    name = dice.choice(list(FUNCTIONS))
    function = FUNCTIONS[name]
    count = dice.randrange(function.fewest, function.most + 1)
    if name == "matches":
        pattern = f"'{dice.choice(_PATTERNS)}'" if dice.random() < 0.7 else more()
        return f"string({more()}).matches({pattern})"
    given = [more() for _ in range(count)]
    if function.plain or not given or dice.random() < 0.2:
        return f"{name}({', '.join(given)})"
    return f"({given[0]}).{name}({', '.join(given[1:])})"
