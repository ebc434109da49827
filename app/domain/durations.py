"""Time strings of the wire (protocol 1, 12.3): `1h30m`, `1.5d`, RFC 3339 timestamps, HTTP dates.

Nothing here knows what time it is; who reads a timestamp gets the instant and compares it with a `now` of its own.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

from app.domain.errors import DurationRefused

#: Nanoseconds of each unit. Both micro signs are in use.
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_GO_UNITS = {unit: size for unit, size in _UNITS.items() if unit not in ("d", "w")}
_PART = re.compile(r"([0-9]{1,18})?(?:\.([0-9]{0,18}))?(ns|us|µs|μs|ms|s|m|h|d|w)")
#: Larger than anything anyone may ask for, and still a `timedelta`.
_LONGEST = timedelta(days=100_000)
_LONGEST_NS = _LONGEST // timedelta(microseconds=1) * 1_000

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_ISO = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d([.,]\d+)?([Zz]|[+-]\d\d:?\d\d)?)?")
#: RFC 1123, 822 and 850: `Mon, 02 Jan 2006 15:04:05 GMT`, `02 Jan 06 15:04 MST`, `Monday, 02-Jan-06 15:04:05 MST`.
_MAIL = re.compile(
    r"(?:[A-Za-z]{3,9}, )?(\d{1,2})[ -]([A-Za-z]{3})[ -](\d{4}|\d{2}) (\d\d):(\d\d)(?::(\d\d))? ([A-Z]{1,5}|[+-]\d{4})"
)
#: ANSI C: `Mon Jan  2 15:04:05 2006`, always UTC here.
_ANSI = re.compile(r"[A-Za-z]{3} ([A-Za-z]{3}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})")


def parse_duration(text: str, *, go_units: bool = False) -> timedelta:
    """The length a time string means, to the microsecond (rest dropped). Empty text is zero.

    `go_units` leaves out `d` and `w` (batch timeouts, protocol 8.2). A leading sign is read as in Go. Above 100,000 days
    the answer is 100,000 days: every caller refuses far less. Raises `DurationRefused`, also for a number without unit.
    """
    if not text:
        return timedelta()
    sign, rest = 1, text
    if text[0] in "+-":
        sign, rest = (-1 if text[0] == "-" else 1), text[1:]
    units = _GO_UNITS if go_units else _UNITS
    total = position = 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            raise _unreadable(text)
        whole, fraction, unit = part.groups()
        if unit not in units or not (whole or fraction):
            raise _unreadable(text)
        total += int(whole or 0) * units[unit]
        if fraction:
            total += int(fraction) * units[unit] // 10 ** len(fraction)
        position = part.end()
    if position == 0:
        raise _unreadable(text)
    return sign * min(timedelta(microseconds=min(total, _LONGEST_NS) // 1_000), _LONGEST)


def parse_date(text: str) -> datetime | None:
    """The instant a date text means, aware; None when it is none of the forms of protocol 14.3. Without a zone: UTC."""
    try:
        if _ISO.fullmatch(text):
            at = datetime.fromisoformat(text.replace("t", "T").replace("z", "Z").replace(",", "."))
            return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        mail = _MAIL.fullmatch(text)
        if mail:
            day, month, year, hour, minute, second, zone = mail.groups()
            return datetime(
                _year(year),
                _MONTHS[month.lower()],
                int(day),
                int(hour),
                int(minute),
                int(second or 0),
                tzinfo=_zone(zone),
            )
        ansi = _ANSI.fullmatch(text)
        if ansi:
            month, day, hour, minute, second, year = ansi.groups()
            return datetime(
                int(year), _MONTHS[month.lower()], int(day), int(hour), int(minute), int(second), tzinfo=UTC
            )
    except (ValueError, KeyError, OverflowError):
        return None
    return None


def parse_when(text: str) -> timedelta | datetime:
    """A time string or a timestamp, whichever it is (protocol 12.3). Raises `DurationRefused`.

    From ten characters on a text that reads as a date is one; everything else is a length. Empty is zero.
    """
    if len(text) >= 10:
        at = parse_date(text)
        if at is not None:
            return at
    return parse_duration(text)


def format_duration(length: timedelta) -> str:
    """A time string of whole seconds in the largest units first, `1w1d`, as the TypeScript SDK writes it; zero is `0s`.

    Parts of a second round up, so that nothing comes earlier than asked for.
    """
    seconds = -(-length // timedelta(seconds=1))
    if seconds <= 0:
        return "0s"
    out = ""
    for unit in ("w", "d", "h", "m", "s"):
        count, seconds = divmod(seconds, _UNITS[unit] // 1_000_000_000)
        if count:
            out += f"{count}{unit}"
    return out


def _unreadable(text: str) -> DurationRefused:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return DurationRefused("duration_invalid", f"{shown!r} is not a time: write it like 10s, 1h30m or 2d.")


def _year(text: str) -> int:
    # Two digits follow RFC 2822: 00 to 49 are this century.
    year = int(text)
    return year if len(text) == 4 else year + (2000 if year < 50 else 1900)


def _zone(text: str) -> timezone:
    if text[0] in "+-":
        minutes = int(text[1:3]) * 60 + int(text[3:5])
        return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
    # Names other than UTC's are ambiguous; readers of HTTP dates take them as UTC.
    return UTC
