"""Numbers and hostile text as people read them: the filters behind `templates/components/`.

Pure functions. Nothing here knows pages; nothing in `reads` formats. The forms are those of the dashboard's language:
`440 ms`, `2.40 s`, `12.4 s`, `8 min 34 s`, `3 h 12 min`; counts in full to 99,999, then `612k`.
"""

import math
import unicodedata
from datetime import UTC, datetime

#: Longest text of a tenant shown in a row, a label or a heading.
SHORT = 200


def duration(ms: float | None) -> str:
    """Milliseconds for people; an empty string for None."""
    if ms is None:
        return ""
    ms = max(0.0, ms)
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def brief(ms: float) -> str:
    """Milliseconds for an axis: `6 min`, `2 s`, `350 ms`; drops the smaller unit when it is zero."""
    text = duration(ms)
    if "." in text:
        number, unit = text.split(" ")
        return f"{number.rstrip('0').rstrip('.')} {unit}"
    parts = text.split(" ")
    return " ".join(parts[:2]) if len(parts) == 4 and parts[2] == "0" else text


def band(ms: float) -> str:
    """A length in the larger unit only, for the narrow band of a fold: `6 min`, `3 h`."""
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if ms >= unit_ms:
            return f"{ms / unit_ms:.0f} {unit}"
    return f"{ms / 1000:.0f} s"


def log_share(ms: float) -> float:
    """A length as percent of a small bar, on a log scale: 1 s stands at about a quarter, an hour near the end."""
    return round(min(100.0, max(1.5, 22 * math.log10(1 + ms / 250))), 1)


def axis_time(ms: float, finest_ms: float = 1000) -> str:
    """A tick's label: time since the start; past a minute as `8:22`, past an hour as `3:12:00`."""
    if ms < 60_000:
        return "0" if ms == 0 else brief(ms)
    whole, rest = divmod(ms / 1000, 60)
    seconds = f"{rest:04.1f}" if finest_ms < 1000 else f"{rest:02.0f}"
    hours, minutes = divmod(int(whole), 60)
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def count(number: int) -> str:
    """A count in full to 99,999, then rounded: `612k`, `4.2M`."""
    if number < 100_000:
        return f"{number:,}"
    if number < 1_000_000:
        return f"{number // 1000}k"
    return f"{number / 1_000_000:.1f}M"


def percent(share: float) -> str:
    """A share, 0 to 1, for people: `0 %`, `0.4 %`, `12 %`; never 0 or 100 for what is only near it."""
    value = 100 * share
    if 0 < value < 10 or 99.5 <= value < 100:
        return f"{min(max(value, 0.1), 99.9):.1f} %"
    return f"{value:.0f} %"


def size(octets: int | None) -> str:
    """Bytes for people, in powers of 1024; an empty string for None."""
    if octets is None:
        return ""
    if octets < 1024:
        return f"{octets} B"
    kilo = octets / 1024
    return f"{kilo:.1f} KB" if kilo < 1024 else f"{kilo / 1024:.1f} MB"


def ago(at: datetime, now: datetime) -> str:
    """How long ago, up to a day; then the date, with the year when it is another one."""
    seconds = int((now - at).total_seconds())
    if seconds < 2:
        return "just now" if seconds > -60 else f"in {duration(-seconds * 1000)}"
    if seconds < 60:
        return f"{seconds} s ago"
    if seconds < 3600:
        return f"{seconds // 60} min ago"
    if seconds < 86_400:
        return f"{seconds // 3600} h ago"
    return f"{at.day} {at:%b}" if at.year == now.year else f"{at.day} {at:%b %Y}"


def iso(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: what `datetime` attributes and copies carry."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_time(at: datetime) -> str:
    """Time of day in UTC with milliseconds; the zone is named beside it."""
    return f"{at.astimezone(UTC):%H:%M:%S}.{at.microsecond // 1000:03d}"


def moment(at: datetime, now: datetime) -> str:
    """When something was or will be: the time of day on the same day, else with its date."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S}" if at.date() == now.astimezone(UTC).date() else f"{at.day} {at:%b, %H:%M}"


def full_time(at: datetime) -> str:
    """Date and time in UTC for titles: `23 Nov 2026, 14:31:00.204 UTC`."""
    return f"{at.day} {at.astimezone(UTC):%b %Y}, {clock_time(at)} UTC"


def visible(text: str, limit: int | None = None) -> str:
    """Tenant text with nothing hidden in it: control, bidi and other format characters appear as code points.

    `limit` cuts to that many characters and says so with an ellipsis. Tabs and line ends stay. Escaping for HTML is
    the template's work, not ours.
    """
    cut = text if limit is None or len(text) <= limit else text[:limit] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"[U+{ord(c):04X}]" for c in cut)


def short(text: str | None) -> str:
    """`visible` on one line and cut at 200 characters."""
    return visible(" ".join((text or "").split()), SHORT)
