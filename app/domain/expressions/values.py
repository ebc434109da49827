"""What values mean in the dialect: missing fields, truth, comparison, joining, and the text of a key.

Values are the decoded JSON of events (None, bool, int, float, str, list, dict) and, inside expressions, bytes,
instants (aware datetime) and durations (timedelta). `Missing` is one more value: a field that is not there, or a part
that failed. Operators treat both alike, so one bad part of an expression does not spoil the rest; only a result that
is itself a failure makes the expression fail.

Who decides: the table "expressions" of the architecture, then protocol section 22, then the behaviour of the
reference server for what those leave open (a function of a missing or null value is false, `!missing` too).
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeGuard

from app.domain.expressions.errors import ExpressionFailed

Value = Any  # decoded JSON, bytes, datetime, timedelta or Missing; checked at run time, by nature


class Missing:
    """A field that is not there (`reason` None), or a part of an expression that failed for a reason."""

    __slots__ = ("reason",)

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"Missing({self.reason!r})"


#: The ordinary missing field.
MISSING: Final = Missing()

#: Steps of one evaluation: node visits, or 64 characters of text, or one element of a list. A step costs up to 0.3 µs
#: on a slow core, so this keeps the worst case under the 50 ms of reliability-security L14.
STEPS: Final = 100_000

#: Nesting past which values are not compared or printed; decoders of JSON stop near 1,000, Python's stack too.
DEEPEST = 200

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Spent(Exception):
    """The step budget of one evaluation is used up."""


#: One evaluation: [steps left, now or None, variables...]. A list, because indexing one is the cheapest read.
Frame = list[Any]


def spend(frame: Frame, steps: int) -> None:
    """Charge work that grows with the values, not with the expression."""
    frame[0] -= steps
    if frame[0] < 0:
        raise Spent


def is_number(value: Value) -> TypeGuard[int | float]:
    """An int or a float, but not a bool (which Python counts as an int)."""
    kind = value.__class__
    return kind is int or kind is float


def is_truthy(value: Value) -> bool:
    """JavaScript's judgement: missing, null, false, 0 and "" are false; an empty list or map is true."""
    if value is True or value is False:
        return bool(value)
    if value is None or value.__class__ is Missing:
        return False
    if value.__class__ in (str, int, float):
        return bool(value)
    return True


def type_name(value: Value) -> str:
    """The CEL name of a value's type, for `type()` and for sentences about mistakes."""
    return _TYPE_NAMES.get(value.__class__, "null_type")


_TYPE_NAMES = {
    bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes", list: "list", dict: "map",
    datetime: "google.protobuf.Timestamp", timedelta: "google.protobuf.Duration",
}  # fmt: skip


def is_equal(frame: Frame, left: Value, right: Value) -> bool:
    """`==`: missing equals null and nothing else (not even missing); 1 equals 1.0; "1" does not equal 1."""
    if left.__class__ is Missing:
        return right is None
    if right.__class__ is Missing:
        return left is None
    return _same(frame, left, right, 0)


def _same(frame: Frame, left: Value, right: Value, depth: int) -> bool:
    if is_number(left):
        return is_number(right) and left == right
    kind = left.__class__
    if kind is not right.__class__:
        return False
    if kind is list or kind is dict:
        if len(left) != len(right):
            return False
        if depth > DEEPEST:
            raise Spent
        spend(frame, len(left))
        if kind is list:
            return all(_same(frame, a, b, depth + 1) for a, b in zip(left, right, strict=True))
        return all(key in right and _same(frame, value, right[key], depth + 1) for key, value in left.items())
    if kind is str or kind is bytes:
        spend(frame, len(left) >> 6)
    return bool(left == right)


_ORDERED = (str, bytes, bool, datetime, timedelta)
_ZEROS: dict[type, Value] = {int: 0, float: 0, str: "", bytes: b"", bool: False, timedelta: timedelta()}


def order(frame: Frame, left: Value, right: Value) -> int | None:
    """-1, 0 or 1 as `left` stands to `right`, null counting as the other's zero; None when they have no order.

    Never called with a missing side: the operators answer that themselves.
    """
    if left is None:
        left = 0 if right is None else _ZEROS.get(right.__class__)
    if right is None:
        right = _ZEROS.get(left.__class__)
    if is_number(left):
        if not is_number(right):
            return None
    elif left.__class__ is not right.__class__ or left.__class__ not in _ORDERED:
        return None
    elif left.__class__ is str:
        spend(frame, len(left) >> 6)
    if left < right:
        return -1
    if left == right:
        return 0
    return 1 if left > right else None


def add(frame: Frame, left: Value, right: Value) -> Value:
    """`+`: numbers and durations add, lists and bytes join; a missing or null side gives the other; others as text."""
    if left.__class__ is Missing or left is None:
        # Both missing is false, as the reference server has it.
        return right if right.__class__ is not Missing else (left if left is None else False)
    if right.__class__ is Missing or right is None:
        return left
    if is_number(left) and is_number(right):
        return whole(left + right)
    if left.__class__ is str and right.__class__ is str:
        spend(frame, (len(left) + len(right)) >> 6)
        return left + right
    if left.__class__ is right.__class__ and left.__class__ in (list, bytes):
        spend(frame, len(left) + len(right))
        joined: Value = left + right
        return joined
    if isinstance(left, (datetime, timedelta)) and isinstance(right, timedelta):
        return left + right
    if isinstance(left, timedelta) and isinstance(right, datetime):
        return right + left
    return _printed(frame, left) + _printed(frame, right)


def whole(number: int | float) -> Value:
    """A number as CEL can hold it: whole numbers have 64 bits."""
    if number.__class__ is int and not -(2**63) <= number < 2**64:
        return Missing("a whole number grew past 64 bits")
    return number


def _printed(frame: Frame, value: Value) -> str:
    if value.__class__ is str:
        spend(frame, len(value) >> 6)
        return str(value)
    out: list[str] = []
    _print(value, out, frame, 0)
    return "".join(out)


def key_text(value: Value) -> str:
    """The text of a flow-control key: strings as they are, others in the style of Go's `%v` (protocol 21.2).

    Whole numbers are written out (1 and 1.0 both give "1"), lists as `[a b]`, maps as `map[a:1 b:2]` with sorted keys,
    null as `<nil>`. Raises ExpressionFailed for a value of too many parts to be a key.
    """
    if value.__class__ is str:
        return str(value)
    out: list[str] = []
    try:
        _print(value, out, [STEPS, None], 0)
    except Spent:
        raise ExpressionFailed("The value is too large to be a key.") from None
    return "".join(out)


def _print(value: Value, out: list[str], frame: Frame, depth: int) -> None:
    spend(frame, 1)
    if isinstance(value, str):
        spend(frame, len(value) >> 6)
        out.append(value)
    elif value is True or value is False:
        out.append("true" if value else "false")
    elif isinstance(value, (int, float)):
        out.append(number_text(value))
    elif isinstance(value, (list, dict)) and depth >= DEEPEST:
        out.append("...")
    elif isinstance(value, list):
        out.append("[")
        for i, item in enumerate(value):
            if i:
                out.append(" ")
            _print(item, out, frame, depth + 1)
        out.append("]")
    elif isinstance(value, dict):
        spend(frame, 2 * len(value))
        out.append("map[")
        for i, key in enumerate(sorted(value, key=str)):
            out.append(f" {key}:" if i else f"{key}:")
            _print(value[key], out, frame, depth + 1)
        out.append("]")
    elif isinstance(value, bytes):
        spend(frame, len(value))
        out.append("[" + " ".join(map(str, value)) + "]")
    elif isinstance(value, datetime):
        out.append(instant_text(value))
    elif isinstance(value, timedelta):
        out.append(duration_text(value))
    else:
        out.append("<nil>")


def number_text(number: float) -> str:
    """A number as text: whole ones without exponent, others as Go's shortest `%g` (1.5, 1e-07, 1e+21, +Inf)."""
    if isinstance(number, int):
        # Python refuses to print integers of thousands of digits; no JSON decoder of ours lets them in.
        return str(number) if number.bit_length() < 4096 else "NaN"
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    if number.is_integer() and abs(number) < 2**53:
        return str(int(number))
    sign, digits, point = _shortest(number)
    exponent = point - 1
    if exponent < -4 or exponent >= 21:
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits + "0" * (point - len(digits))
    return f"{sign}{digits[:point]}.{digits[point:]}"


def _shortest(number: float) -> tuple[str, str, int]:
    """Sign, digits that round-trip, and where the decimal point stands among them."""
    text = f"{number!r}"
    sign = "-" if text[0] == "-" else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    before, _, after = mantissa.partition(".")
    point = len(before) + int(exponent or 0)
    digits = before + after
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    return sign, stripped.rstrip("0") or "0", point


def instant_text(at: datetime) -> str:
    """An instant as RFC 3339 in UTC, without a fraction when it has none."""
    text = at.astimezone(UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def duration_text(length: timedelta) -> str:
    """A duration as Go prints it: 6h35m10s, 1.5s, 0s."""
    micros = length // timedelta(microseconds=1)
    if micros == 0:
        return "0s"
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    if micros < 1000:
        return f"{sign}{micros}µs"
    if micros < 1_000_000:
        return f"{sign}{number_text(micros / 1000)}ms"
    minutes, rest = divmod(micros, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds, fraction = divmod(rest, 1_000_000)
    tail = f"{seconds}" + (f".{fraction:06d}".rstrip("0") if fraction else "") + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{tail}"
    return f"{sign}{minutes}m{tail}" if minutes else sign + tail


def epoch_millis(at: datetime) -> int:
    """Milliseconds since 1970."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def from_epoch(seconds: int, micros: int = 0) -> datetime:
    """The instant so long after 1970; OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(seconds=seconds, microseconds=micros)
