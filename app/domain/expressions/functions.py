"""The functions users may call, one small Python function each, and the table that names them.

Each gets the frame (budget and time) and its operands, method target first. Arguments are never missing or null
unless the table says so: the reference server answers false there, and so does `evaluate`. A function refuses by
returning `Missing(reason)` or raising ValueError or ArithmeticError (which covers overflow). Work that grows with the
values is charged (`spend`) before it is done; the results of `replace` and `join` are sized first.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import re2

from app.domain.expressions.values import (
    MISSING,
    Frame,
    Missing,
    Value,
    epoch_millis,
    from_epoch,
    instant_text,
    is_number,
    key_text,
    spend,
    type_name,
    whole,
)

#: Operators of the grammar; `evaluate` knows them itself.
OPERATORS: Final = frozenset(
    {"_&&_", "_||_", "!_", "_?_:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"}
    | {"-_", "_+_", "_-_", "_*_", "_/_", "_%_", "@in", "_[_]"}
)

#: Names of types, for `type(x) == string`.
TYPES: Final = {
    name: name for name in ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type")
} | {"timestamp": "google.protobuf.Timestamp", "duration": "google.protobuf.Duration"}

#: Characters of a pattern for `matches`.
LONGEST_PATTERN: Final = 1000
#: Classes of Unicode (`\pL`) in a pattern: each costs as much as a hundred letters, whatever becomes of it.
MOST_CLASSES: Final = 50
#: Steps for a pattern that is refused: it may have been given up late.
_REFUSED_STEPS: Final = 4_000
_PATTERN_OPTIONS = re2.Options()
#: Octets; what this holds takes up to 4 ms to compile, and no more to give up.
_PATTERN_OPTIONS.max_mem = 1 << 18
_PATTERN_OPTIONS.log_errors = False
_PATTERN_OPTIONS.never_capture = True


@dataclass(frozen=True, slots=True)
class Function:
    """One row of the table: what to call, how many operands, how to show it when it is called wrongly."""

    call: Callable[..., Value]
    usage: str
    fewest: int = 1
    most: int = 1
    #: Only as `name(x)`, never as `x.name()`.
    plain: bool = False
    #: The function wants to see missing and null operands.
    sees_missing: bool = False


def _text(value: Value) -> str:
    if value.__class__ is not str:
        raise ValueError(f"a string was expected, not {type_name(value)}")
    return str(value)


def _whole(value: Value) -> int:
    if not is_number(value) or value != int(value):
        raise ValueError("a whole number was expected")
    return int(value)


# --- text ------------------------------------------------------------------------------------------------------------


def _size(frame: Frame, value: Value) -> Value:
    if value is None or value.__class__ is Missing:
        return 0
    if value.__class__ in (str, list, dict, bytes):
        return len(value)
    return Missing(f"size() does not apply to {type_name(value)}")


def _spend_search(frame: Frame, text: Value, part: Value) -> None:
    """Charge the search for a part. In short texts Python may compare a part of up to 100 characters at every place."""
    size, compared = len(_text(text)), min(len(_text(part)), 100)
    spend(frame, (size >> 6) * (1 + (compared >> 5) if size < 30_000 else 1))


def _contains(frame: Frame, text: Value, part: Value) -> Value:
    _spend_search(frame, text, part)
    return part in text


def _starts_with(frame: Frame, text: Value, part: Value) -> Value:
    spend(frame, len(_text(part)) >> 6)
    return _text(text).startswith(part)


def _ends_with(frame: Frame, text: Value, part: Value) -> Value:
    spend(frame, len(_text(part)) >> 6)
    return _text(text).endswith(part)


def _classes(pattern: str) -> int:
    return pattern.count("\\p") + pattern.count("\\P")


@lru_cache(maxsize=512)
def pattern_of(pattern: str) -> Any:
    """A compiled pattern, remembered by text; ValueError when RE2 does not take it."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern may have at most {LONGEST_PATTERN} characters")
    if _classes(pattern) > MOST_CLASSES:
        raise ValueError(f"a pattern may name at most {MOST_CLASSES} classes of Unicode")
    try:
        return re2.compile(pattern, _PATTERN_OPTIONS)
    except re2.error:
        raise ValueError("the pattern of matches() is not a regular expression of RE2") from None


def search(frame: Frame, text: Value, pattern: Any) -> Value:
    """Whether a compiled pattern is found in a text. At worst RE2 follows each part of the pattern at every character."""
    spend(frame, 20 + (len(_text(text)) * (8 + pattern.programsize) >> 6))
    return pattern.search(text) is not None


def _matches(frame: Frame, text: Value, pattern: Value) -> Value:
    # Charged as if it were compiled anew each time: what an expression costs must not depend on what ran before.
    spend(frame, 4 * len(_text(pattern)) + 300 * _classes(pattern))
    try:
        compiled = pattern_of(pattern)
    except ValueError:
        spend(frame, _REFUSED_STEPS)
        raise
    spend(frame, compiled.programsize)
    return search(frame, text, compiled)


def _lower(frame: Frame, text: Value) -> Value:
    spend(frame, len(_text(text)) >> 6)
    return text.lower()


def _upper(frame: Frame, text: Value) -> Value:
    spend(frame, len(_text(text)) >> 6)
    return text.upper()


_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_ASCII_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


def _lower_ascii(frame: Frame, text: Value) -> Value:
    spend(frame, len(_text(text)) >> 4)
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def _upper_ascii(frame: Frame, text: Value) -> Value:
    spend(frame, len(_text(text)) >> 4)
    return text.upper() if text.isascii() else text.translate(_ASCII_UPPER)


def _trim(frame: Frame, text: Value) -> Value:
    spend(frame, len(_text(text)) >> 6)
    return text.strip()


def _split(frame: Frame, text: Value, separator: Value, most: Value = -1) -> Value:
    limit = _whole(most)
    # Twice: the pieces are counted before they are made.
    _spend_search(frame, text, separator)
    _spend_search(frame, text, separator)
    spend(frame, text.count(separator) if separator else len(text))
    if limit == 0:
        return []
    if separator == "":
        letters = list(text)
        return letters if limit < 0 or limit >= len(letters) else [*letters[: limit - 1], text[limit - 1 :]]
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _join(frame: Frame, items: Value, separator: Value = "") -> Value:
    if items.__class__ is not list:
        raise ValueError("join() applies to a list of strings")
    spend(frame, len(items) * (1 + (len(_text(separator)) >> 6)))
    spend(frame, sum(len(_text(item)) for item in items) >> 6)
    return separator.join(items)


def _replace(frame: Frame, text: Value, old: Value, new: Value, most: Value = -1) -> Value:
    limit = _whole(most)
    spend(frame, len(_text(text)) >> 4)
    _spend_search(frame, text, old)
    found = text.count(old)
    times = found if limit < 0 else min(found, limit)
    spend(frame, (times * (1 + len(_text(new)))) >> 4)
    return text.replace(old, new, times)


def _substring(frame: Frame, text: Value, start: Value, end: Value = None) -> Value:
    size = len(_text(text))
    first, last = _whole(start), size if end is None else _whole(end)
    if not 0 <= first <= last <= size:
        return Missing("substring() is outside the text")
    spend(frame, (last - first) >> 6)
    return text[first:last]


def _char_at(frame: Frame, text: Value, index: Value) -> Value:
    at = _whole(index)
    return _text(text)[at : at + 1] if 0 <= at <= len(_text(text)) else Missing("charAt() is outside the text")


def _index_of(frame: Frame, text: Value, part: Value, start: Value = 0) -> Value:
    _spend_search(frame, text, part)
    return text.find(part, max(0, _whole(start)))


_SHORT_PART = 8


def _last_index_of(frame: Frame, text: Value, part: Value) -> Value:
    _spend_search(frame, text, part)
    size = len(part)
    if size <= _SHORT_PART:
        return text.rfind(part)
    # From the end Python compares a long part at every place; the first place in the mirror costs no more than the text.
    spend(frame, len(text) + size >> 4)
    place = text[::-1].find(part[::-1])
    return -1 if place < 0 else len(text) - size - place


def _b64decode(frame: Frame, text: Value) -> Value:
    spend(frame, len(_text(text)) >> 4)
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return Missing("b64decode() was given something that is not base64")


def _json_parse(frame: Frame, text: Value) -> Value:
    # Lists and maps cost more than what is in them.
    spend(frame, 10 + (len(_text(text)) >> 3) + text.count("[") + text.count("{"))
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return Missing("json_parse() was given something that is not JSON")


# --- conversions -----------------------------------------------------------------------------------------------------

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}\Z")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?\Z")


def _int(frame: Frame, value: Value) -> Value:
    if isinstance(value, datetime):
        return epoch_millis(value) // 1000
    if value.__class__ is str and _INTEGER.match(value):
        return whole(int(value))
    if is_number(value):
        return whole(int(value))
    return Missing(f"int() cannot read this {type_name(value)}")


def _uint(frame: Frame, value: Value) -> Value:
    number = _int(frame, value)
    return Missing("uint() cannot be negative") if is_number(number) and number < 0 else number


def _double(frame: Frame, value: Value) -> Value:
    if is_number(value):
        return float(value)
    if value.__class__ is str and len(value) <= 400 and _DECIMAL.match(value):
        return float(value)
    return Missing(f"double() cannot read this {type_name(value)}")


def _string(frame: Frame, value: Value) -> Value:
    if value.__class__ is bytes:
        spend(frame, len(value) >> 4)
        return value.decode()
    if value.__class__ in (list, dict):
        return Missing(f"string() does not apply to {type_name(value)}")
    return instant_text(value) if isinstance(value, datetime) else key_text(value)


def _bool(frame: Frame, value: Value) -> Value:
    if value is True or value is False:
        return value
    if value in ("true", "True", "TRUE", "t", "1"):
        return True
    if value in ("false", "False", "FALSE", "f", "0"):
        return False
    return Missing(f"bool() cannot read this {type_name(value)}")


def _bytes(frame: Frame, value: Value) -> Value:
    if value.__class__ is bytes:
        return value
    spend(frame, len(_text(value)) >> 4)
    return value.encode()


def _type(frame: Frame, value: Value) -> Value:
    return MISSING if value.__class__ is Missing else type_name(value)


def _dyn(frame: Frame, value: Value) -> Value:
    return value


# --- time ------------------------------------------------------------------------------------------------------------

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))? ?([Zz]|[+-]\d\d:?\d\d)?(?: [A-Z]{3,4})?)?\Z",
    re.ASCII,
)
#: RFC 822, 850 and 1123: "Mon, 02 Jan 2006 15:04:05 MST", weekday and seconds optional.
_MAIL = re.compile(
    r"(?:[A-Za-z]{3,9}, )?(\d\d?)[ -]([A-Za-z]{3})[ -](\d{4}|\d\d) (\d\d):(\d\d)(?::(\d\d))? ([A-Z]{3,4}|[+-]\d{4})\Z",
    re.ASCII,
)
#: The Unix styles: "Mon Jan _2 15:04:05 [MST|-0700 ]2006".
_UNIX = re.compile(
    r"[A-Za-z]{3} ([A-Za-z]{3}) [ ]?(\d\d?) (\d\d):(\d\d):(\d\d)(?: ([A-Z]{3,4}|[+-]\d{4}))? (\d{4})\Z", re.ASCII
)
_SPAN = re.compile(r"(\d{1,15}(?:\.\d{0,9})?|\.\d{1,9})(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_MICROS = {"ns": 0.001, "us": 1, "µs": 1, "μs": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000,
           "d": 86_400_000_000, "w": 604_800_000_000}  # fmt: skip


def _zone(name: str | None) -> tzinfo:
    """The zone of a date's tail; names of zones other than UTC have no agreed offset and count as UTC, as in Go."""
    if name and name[0] in "+-":
        digits = name[1:].replace(":", "")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        return timezone(-offset if name[0] == "-" else offset)
    return UTC


def _month(name: str) -> int:
    return _MONTHS.index(name.lower()) + 1


def _read_date(text: str) -> datetime:
    if found := _ISO.match(text):
        year, month, day, hour, minute, second, fraction, zone = found.groups()
        micros = int((fraction or "").ljust(6, "0")[:6])
        clock = (int(hour or 0), int(minute or 0), int(second or 0), micros)
        return datetime(int(year), int(month), int(day), *clock, tzinfo=_zone(zone))
    if found := _MAIL.match(text):
        day, name, year, hour, minute, second, zone = found.groups()
        full = int(year) if len(year) == 4 else int(year) + (2000 if int(year) < 69 else 1900)
        return datetime(full, _month(name), int(day), int(hour), int(minute), int(second or 0), tzinfo=_zone(zone))
    if found := _UNIX.match(text):
        name, day, hour, minute, second, zone, year = found.groups()
        return datetime(int(year), _month(name), int(day), int(hour), int(minute), int(second), tzinfo=_zone(zone))
    raise ValueError("this text is not a date")


def _date(frame: Frame, value: Value) -> Value:
    """Text in the usual styles, or a number: seconds below 10^10, milliseconds below 10^13, else nanoseconds."""
    if isinstance(value, datetime):
        return value
    spend(frame, 4)
    if value.__class__ is str:
        return _read_date(value).astimezone(UTC)
    number = int(value) if is_number(value) else 0
    if number < 946_684_800:
        # The reference reads no number before the year 2000 as a date: it would rather be a count.
        return Missing("date() was given a number too small to be a date")
    if number < 9_999_999_999:
        return from_epoch(number)
    if number < 9_999_999_999_999:
        return from_epoch(number // 1000, number % 1000 * 1000)
    return from_epoch(number // 1_000_000_000, number % 1_000_000_000 // 1000)


def _timestamp(frame: Frame, value: Value) -> Value:
    return from_epoch(int(value)) if is_number(value) else _date(frame, value)


def _duration(frame: Frame, value: Value) -> Value:
    """Text such as "1h30m", "-1.5h", "2d": the units of Go, days and weeks beside them."""
    if isinstance(value, timedelta):
        return value
    if len(_text(value)) > 100:
        raise ValueError("this text is not a duration")
    spend(frame, len(value) >> 1)
    digits = value.lstrip("+-") if value[:1] in ("+", "-") and value[1:2] not in ("+", "-") else value
    if digits == "0":
        return timedelta()
    micros, at = 0.0, 0
    for found in _SPAN.finditer(digits):
        if found.start() != at:
            break
        micros += float(found[1]) * _MICROS[found[2]]
        at = found.end()
    if at != len(digits) or not digits:
        raise ValueError("this text is not a duration")
    return timedelta(microseconds=-micros if value[0] == "-" else micros)


def _now(frame: Frame) -> Value:
    return frame[1] if frame[1] is not None else Missing("there is no time of day here")


def _now_plus(frame: Frame, length: Value) -> Value:
    now = _now(frame)
    return now if now.__class__ is Missing else now + _duration(frame, length)


def _now_minus(frame: Frame, length: Value) -> Value:
    now = _now(frame)
    return now if now.__class__ is Missing else now - _duration(frame, length)


_OFFSET = re.compile(r"([+-]?)(\d\d):(\d\d)\Z", re.ASCII)
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}\Z", re.ASCII)


@lru_cache(maxsize=1024)
def _named_zone(name: str) -> ZoneInfo | None:
    """A zone by its name, None when there is none; more names than there are zones are remembered."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError):
        # OSError: the name of a folder of zones.
        return None


def _local(frame: Frame, at: Value, zone: str | None) -> datetime:
    if not isinstance(at, datetime):
        raise ValueError("only dates have this")  # noqa: TRY004 - the evaluator reads ValueError as "no value"
    if zone is None:
        return at.astimezone(UTC)
    if found := _OFFSET.match(_text(zone)):
        return at.astimezone(_zone(f"{found[1] or '+'}{found[2]}{found[3]}"))
    if len(zone) > 64 or not _ZONE_NAME.match(zone):
        raise ValueError("this is not a time zone")
    found_zone = _named_zone(zone)
    if found_zone is None:
        # A look into the folder of zones, or several.
        spend(frame, 300)
        raise ValueError("this is not a time zone")
    return at.astimezone(found_zone)


def _part(
    of_date: Callable[[datetime], int], of_span: Callable[[timedelta], int] | None = None
) -> Callable[..., Value]:
    def read(frame: Frame, value: Value, zone: Value = None) -> Value:
        if of_span is not None and isinstance(value, timedelta):
            return of_span(value)
        return of_date(_local(frame, value, zone))

    return read


def _units(micros: int) -> Callable[[timedelta], int]:
    def read(span: timedelta) -> int:
        whole_micros = span // timedelta(microseconds=1)
        return -(-whole_micros // micros) if whole_micros < 0 else whole_micros // micros

    return read


_PARTS: dict[str, Callable[..., Value]] = {
    "getFullYear": _part(lambda at: at.year),
    "getMonth": _part(lambda at: at.month - 1),
    "getDate": _part(lambda at: at.day),
    "getDayOfMonth": _part(lambda at: at.day - 1),
    "getDayOfWeek": _part(lambda at: at.isoweekday() % 7),
    "getDayOfYear": _part(lambda at: at.timetuple().tm_yday - 1),
    "getHours": _part(lambda at: at.hour, _units(3_600_000_000)),
    "getMinutes": _part(lambda at: at.minute, _units(60_000_000)),
    "getSeconds": _part(lambda at: at.second, _units(1_000_000)),
    "getMilliseconds": _part(lambda at: at.microsecond // 1000, lambda span: span.microseconds // 1000),
}

FUNCTIONS: Final[dict[str, Function]] = {
    "size": Function(_size, "size(x)", sees_missing=True),
    "contains": Function(_contains, "text.contains(part)", 2, 2),
    "startsWith": Function(_starts_with, "text.startsWith(part)", 2, 2),
    "endsWith": Function(_ends_with, "text.endsWith(part)", 2, 2),
    "matches": Function(_matches, "text.matches(pattern)", 2, 2),
    "lowerAscii": Function(_lower_ascii, "text.lowerAscii()"),
    "upperAscii": Function(_upper_ascii, "text.upperAscii()"),
    "trim": Function(_trim, "text.trim()"),
    "split": Function(_split, "text.split(separator) or text.split(separator, most)", 2, 3),
    "join": Function(_join, "list.join() or list.join(separator)", 1, 2),
    "replace": Function(_replace, "text.replace(old, new) or text.replace(old, new, most)", 3, 4),
    "substring": Function(_substring, "text.substring(start) or text.substring(start, end)", 2, 3),
    "charAt": Function(_char_at, "text.charAt(index)", 2, 2),
    "indexOf": Function(_index_of, "text.indexOf(part) or text.indexOf(part, start)", 2, 3),
    "lastIndexOf": Function(_last_index_of, "text.lastIndexOf(part)", 2, 2),
    "lowercase": Function(_lower, "lowercase(text)", plain=True),
    "uppercase": Function(_upper, "uppercase(text)", plain=True),
    "b64decode": Function(_b64decode, "b64decode(text)", plain=True),
    "json_parse": Function(_json_parse, "json_parse(text)", plain=True),
    "date": Function(_date, "date(text) or date(number)", plain=True),
    "now": Function(_now, "now()", 0, 0, plain=True),
    "now_plus": Function(_now_plus, 'now_plus("1h")', plain=True),
    "now_minus": Function(_now_minus, 'now_minus("1h")', plain=True),
    "int": Function(_int, "int(x)", plain=True),
    "uint": Function(_uint, "uint(x)", plain=True),
    "double": Function(_double, "double(x)", plain=True),
    "string": Function(_string, "string(x)", plain=True),
    "bool": Function(_bool, "bool(x)", plain=True),
    "bytes": Function(_bytes, "bytes(x)", plain=True),
    "type": Function(_type, "type(x)", plain=True, sees_missing=True),
    "dyn": Function(_dyn, "dyn(x)", plain=True, sees_missing=True),
    "timestamp": Function(_timestamp, "timestamp(text)", plain=True),
    "duration": Function(_duration, 'duration("1h")', plain=True),
} | {name: Function(read, f"date.{name}()", 1, 2) for name, read in _PARTS.items()}
