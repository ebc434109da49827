"""Durations as people write them and as the protocol wants them (protocol 1 and 12.3).

On the wire a duration is the largest single unit that divides it: `90m`, `8d`, `3661s`.
"""

import re
from datetime import UTC, datetime, timedelta

_ACCEPTED = "a timedelta or a text such as '90s', '1h30m' or '7d'"

#: What the SDK takes as a span of time.
Duration = timedelta | str

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def parse(value: Duration) -> timedelta:
    """Read a span of time; ValueError says what is accepted when it is negative or not understood."""
    if isinstance(value, timedelta):
        span = value
    else:
        parts = list(_PART.finditer(value))
        if not parts or "".join(part.group() for part in parts) != value:
            raise ValueError(f"{value!r} is not a duration: write {_ACCEPTED}")
        span = sum((float(part[1]) * _UNITS[part[2]] for part in parts), timedelta())
    if span < timedelta():
        raise ValueError(f"{value!r} is negative: write {_ACCEPTED}")
    return span


def to_wire(value: Duration) -> str:
    """Write a span of time in its largest whole unit; below a millisecond it is rounded up."""
    span = parse(value)
    if not span:
        return "0s"
    for unit, size in _UNITS.items():
        if span % size == timedelta():
            return f"{span // size}{unit}"
    return f"{-(-span // _UNITS['ms'])}ms"


def moment_to_wire(value: datetime) -> str:
    """Write a moment as RFC 3339 in UTC with milliseconds; a moment without a time zone is refused."""
    if value.tzinfo is None:
        raise ValueError("A moment needs a time zone: use datetime.now(UTC), or datetime(..., tzinfo=UTC).")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
