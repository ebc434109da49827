"""Schedules: when a cron comes due, by the wall clock of its zone and rule F27.

    TZ=Europe/Rome 30 2 * * MON-FRI          minute hour day-of-month month day-of-week
    @hourly @daily @midnight @weekly @monthly @yearly @annually

If both day fields are restricted, either may match; `*/2` restricts, `*` and `?` do not (protocol 24). When clocks change:

    hour field    gap (the local time does not exist)     repeat (the local time exists twice)
    fixed         once, at the first instant after it     once, the first time
    * or */n      only times that exist                   every real time

Every due time is a whole minute of UTC, except in zones whose offset has seconds. Nothing here knows what time it is.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

#: The longest gap between two due times is 29 February around 2100.
_SEARCHED: Final = timedelta(days=366 * 9)
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_DESCRIPTORS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = {name: n for n, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}  # noqa: SIM905 - a table reads better
_DAYS: Final = {name: n for n, name in enumerate("sun mon tue wed thu fri sat".split())}  # noqa: SIM905 - see above


class CronRefused(ValueError):
    """The text is no schedule; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule. Fields are sorted; `weekdays` count from Sunday, 0. `is_hourly`: the hour field is `*` or `*/n`."""

    zone: ZoneInfo
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    is_hourly: bool

    def next_after(self, at: datetime) -> datetime | None:
        """The first due time later than `at` (aware), in UTC; None when there is none in nine years."""
        return next(self.due_times(at), None)

    def due_times(self, at: datetime) -> Iterator[datetime]:
        """Due times later than `at`, in order, ending with nine years without one."""
        at = at.astimezone(UTC)
        # What is due just after a gap or on the day of a repeat can stem from a neighbouring local day.
        day = at.astimezone(self.zone).date() - _DAY
        last = at
        while day.year < 9990 and datetime(day.year, day.month, day.day, tzinfo=UTC) - last < _SEARCHED:
            if self._has(day):
                for due in self._times_of(day, last):
                    if due > last:
                        last = due
                        yield due
            elif day.month not in self.months:
                day = _end_of_month(day)
            day += _DAY

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_date or by_weekday) if self.either_day else (by_date and by_weekday)

    def _times_of(self, day: date, after: datetime) -> Iterator[datetime]:
        """The due times of one local day; only those of an ordinary day leave out what is not after `after`."""
        offset = _offset_of(day, self.zone)
        if offset is None:
            yield from sorted(self._times_of_change(day))
            return
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) - offset
        passed = max(0, (after - midnight) // _SECOND) // 60
        for hour in self.hours[bisect_left(self.hours, passed // 60) :]:
            for minute in self.minutes:
                yield midnight + timedelta(hours=hour, minutes=minute)

    def _times_of_change(self, day: date) -> set[datetime]:
        """A day on which the clocks change."""
        found: set[datetime] = set()
        for hour in self.hours:
            for minute in self.minutes:
                wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)
                first = wall.astimezone(UTC)
                if not _is(first, wall):
                    if not self.is_hourly:
                        found.add(_end_of_gap(wall))
                    continue
                found.add(first)
                second = wall.replace(fold=1).astimezone(UTC)
                if self.is_hourly and _is(second, wall):
                    found.add(second)
        return found


def read_cron(text: str) -> Cron:
    """The schedule a text means; raises CronRefused with a sentence for people."""
    zone, rest = _zone_and_rest(text.strip())
    if rest.startswith("@"):
        if rest.lower() not in _DESCRIPTORS:
            known = ", ".join(_DESCRIPTORS)
            raise CronRefused(f"{rest.split()[0]} is not a descriptor; known are {known}.")
        rest = _DESCRIPTORS[rest.lower()]
    fields = rest.split()
    if len(fields) == 6:
        raise CronRefused(
            "A cron has five fields: minute, hour, day of month, month, weekday. Seconds are not supported."
        )
    if len(fields) != 5:
        raise CronRefused(f"A cron has five fields, this one has {len(fields)}.")
    minutes, _ = _field(fields[0], "minute", 0, 59)
    hours, is_every_hour = _field(fields[1], "hour", 0, 23)
    days, any_day = _field(fields[2], "day of month", 1, 31)
    months, _ = _field(fields[3], "month", 1, 12, _MONTHS)
    weekdays, any_weekday = _field(fields[4], "weekday", 0, 7, _DAYS)
    cron = Cron(
        zone,
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(n % 7 for n in weekdays),
        either_day=not (any_day or any_weekday),
        is_hourly=is_every_hour or fields[1].startswith(("*", "?")),
    )
    if cron.next_after(datetime(2024, 1, 1, tzinfo=UTC)) is None:
        raise CronRefused("This cron never comes due.")
    return cron


def jitter_of(seed: bytes, jitter: timedelta) -> timedelta:
    """How much later than its due time a run starts: 1 s up to `jitter`, the same for the same seed.

    The reference hashes the id of an internal job (protocol 24), which nobody can see; the hash here is our own.
    """
    if jitter <= timedelta():
        return timedelta()
    span = (jitter - _SECOND) // timedelta(microseconds=1)
    if span <= 0:
        return _SECOND
    return _SECOND + timedelta(microseconds=int.from_bytes(sha256(seed).digest()[:8], "big") % span)


def _zone_and_rest(text: str) -> tuple[ZoneInfo, str]:
    for prefix in ("TZ=", "CRON_TZ="):
        if text.startswith(prefix):
            name, _, rest = text.removeprefix(prefix).partition(" ")
            try:
                return ZoneInfo(name), rest.strip()
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise CronRefused(f"{name or 'An empty name'} is not a known time zone, such as Europe/Rome.") from None
    return ZoneInfo("UTC"), text


def _field(text: str, what: str, low: int, high: int, names: dict[str, int] | None = None) -> tuple[set[int], bool]:
    """The values of one field, and whether it leaves everything open (`*` or `?`)."""
    values: set[int] = set()
    is_open = False
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, part, what, None) if slash else 1
        if step < 1:
            raise CronRefused(f"{part!r} in the field {what}: a step is 1 or more.")
        if span in ("*", "?"):
            start, end = low, 6 if what == "weekday" else high
            is_open = is_open or step == 1
        else:
            first, dash, second = span.partition("-")
            start = _number(first, part, what, names)
            end = _number(second, part, what, names) if dash else (high if slash else start)
            if slash and not dash and what == "weekday":
                end = 6
        if start < low or end > high:
            raise CronRefused(f"{part!r} in the field {what} is not within {low} to {high}.")
        if start > end:
            raise CronRefused(f"{part!r} in the field {what} ends before it begins.")
        values.update(range(start, end + 1, step))
    return values, is_open


def _number(text: str, part: str, what: str, names: dict[str, int] | None) -> int:
    if names is not None and text.lower() in names:
        return names[text.lower()]
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        hint = " L, W and # are not supported." if any(c in part for c in "LW#") else ""
        raise CronRefused(f"{part!r} in the field {what} is not understood.{hint}")
    return int(text)


def _offset_of(day: date, zone: ZoneInfo) -> timedelta | None:
    """The zone's offset on a local day; None when it changes on that day or at its edges."""
    start = datetime(day.year, day.month, day.day, tzinfo=zone)
    offset = start.utcoffset()
    for wall in (start.replace(fold=1), start.replace(hour=12), start + _DAY, (start + _DAY).replace(fold=1)):
        if wall.utcoffset() != offset:
            return None
    return offset


def _is(instant: datetime, wall: datetime) -> bool:
    """Whether the clock of the zone shows `wall` at the instant: not so in a gap."""
    return instant.astimezone(wall.tzinfo).replace(tzinfo=None, fold=0) == wall.replace(tzinfo=None, fold=0)


def _end_of_gap(wall: datetime) -> datetime:
    """The first instant after the gap that swallowed a local time."""
    # Read with the offset before the change it lies after it, with the one after the change before it.
    late, early = wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)
    after = late.astimezone(wall.tzinfo).utcoffset()
    while late - early > _SECOND:
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(wall.tzinfo).utcoffset() == after:
            late = middle
        else:
            early = middle
    return late


def _end_of_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1) - _DAY
