"""The query string of lists of runs: read with care, written back with parts replaced.

What is not understood is left out, never an error page. Repeated parameters mean "or", a leading `-` means "not".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import UUID

from app.domain.ids import RunId, parse_ulid, to_ulid
from app.reads.filters import ANY, DEFAULT_RANGE, RANGES, STATUSES, Choice, RunFilter, minute
from app.reads.runs import SIZES, parse_search

#: Words of the ranges, after "queued".
RANGE_WORDS = {
    "15m": "last 15 minutes",
    "1h": "last hour",
    "24h": "last 24 hours",
    "7d": "last 7 days",
    "30d": "last 30 days",
    ANY: "at any time",
}
#: Fields whose values are repeated parameters, and what they are called.
FIELDS = {"status": "Status", "fn": "Function", "app": "App"}


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter as people see it; `remove` and `flip` are query strings, `flip` is none where there is no "not"."""

    field: str
    operator: str
    value: str
    remove: str
    flip: str | None = None

    @property
    def words(self) -> str:
        """The whole filter as a sentence."""
        return f"{self.field} {self.operator} {self.value}"


class Asked:
    """What the address asks of a list."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """`pairs` as they stand in the query string or a form."""
        # Postgres knows no NUL, and no name holds one.
        pairs = [(name, text.replace("\x00", "")) for name, text in pairs]
        first = dict(reversed(pairs))
        self.q = first.get("q", "").strip()[:200]
        found = parse_search(self.q) if self.q else ()
        #: One sentence under the search field, or None.
        self.problem = None if found is not None else "Not a run ID or an event ID: both have 26 letters and digits."
        self.choices = {name: Choice.of([text for key, text in pairs if key == name]) for name in FIELDS}
        known = [text for text in self.choices["status"].texts() if text.removeprefix("-") in STATUSES]
        self.choices["status"] = Choice.of(known)
        self.since, self.until = _time(first.get("from")), _time(first.get("to"))
        if self.since is not None and self.until is not None and self.until <= self.since:
            self.until = None
        last = first.get("last", "")
        self.last = last if last in RANGES or last == ANY else DEFAULT_RANGE
        if self.since is not None or self.until is not None:
            self.last = ANY
        size = first.get("size", "")
        self.size = int(size) if size.isdigit() and int(size) in SIZES else SIZES[0]
        self.before: UUID | None = parse_ulid(first.get("before", ""))
        self.after: UUID | None = parse_ulid(first.get("after", ""))
        self.before_text, self.after_text = first.get("before"), first.get("after")
        alike, bulk = parse_ulid(first.get("alike", "")), parse_ulid(first.get("bulk", ""))
        self.alike, self.bulk = None if alike is None else RunId(alike), bulk
        #: What is looked for by id is looked for at any time.
        self.ignores_range = bool(found) or self.alike is not None or self.bulk is not None
        self.wanted = RunFilter(
            status=self.choices["status"],
            ids=found or (),
            functions=self.choices["fn"],
            apps=self.choices["app"],
            last=self.last if self.last in RANGES and not self.ignores_range else None,
            since=self.since,
            until=self.until,
            alike=self.alike,
            bulk=bulk,
        )

    @property
    def tab(self) -> str:
        """The tab that is open."""
        return self.wanted.tab

    @property
    def has_filters(self) -> bool:
        """Whether anything could be taken away to see more."""
        return bool(
            self.q
            or any(self.choices.values())
            or self.last != ANY
            or self.since
            or self.until
            or self.alike
            or self.bulk
        )

    @property
    def is_first_page(self) -> bool:
        """Whether new runs belong at the top of this page."""
        return self.before is None and self.after is None

    @property
    def range_words(self) -> str:
        """The range for people, with its zone."""
        if self.since is None and self.until is None:
            return RANGE_WORDS[self.last]
        parts = [f"from {_words(self.since)}"] if self.since else []
        parts += [f"until {_words(self.until)}"] if self.until else []
        return " ".join(parts) + " UTC"

    @property
    def since_text(self) -> str:
        """The beginning as a form field has it."""
        return "" if self.since is None else f"{self.since:%Y-%m-%dT%H:%M}"

    @property
    def until_text(self) -> str:
        """The end as a form field has it."""
        return "" if self.until is None else f"{self.until:%Y-%m-%dT%H:%M}"

    def pairs(self, **other: str | None) -> list[tuple[str, str]]:
        """All filters as they stand in the address, with some replaced (None removes); no place in the list."""
        single = {
            "q": self.q,
            "last": self.last if self.last != DEFAULT_RANGE and not (self.since or self.until) else "",
            "from": self.since_text,
            "to": self.until_text,
            "alike": "" if self.alike is None else to_ulid(self.alike),
            "bulk": "" if self.bulk is None else to_ulid(self.bulk),
            "size": str(self.size) if self.size != SIZES[0] else "",
        } | other
        parts = [(name, value) for name, value in single.items() if value]
        for name, choice in self.choices.items():
            if name not in other:
                parts += [(name, text) for text in choice.texts()]
        return parts

    def query(self, **other: str | None) -> str:
        """The query string with some parts replaced (None removes); `?` alone clears it."""
        return "?" + urlencode(self.pairs(**other))

    def between(self, since: datetime, until: datetime) -> str:
        """The same list in another range: what a bar of the histogram links to."""
        return "?" + urlencode(
            [*self.pairs(last=None), ("from", f"{since:%Y-%m-%dT%H:%M}"), ("to", f"{until:%Y-%m-%dT%H:%M}")]
            if self.since is None and self.until is None
            else self.pairs(**{"from": f"{since:%Y-%m-%dT%H:%M}", "to": f"{until:%Y-%m-%dT%H:%M}"})
        )

    def chips(self) -> list[Chip]:
        """Every filter that is no tab and no search text."""
        out: list[Chip] = []
        for name, choice in self.choices.items():
            if name == "status" and self.tab != "all":
                continue
            out += [
                Chip(
                    FIELDS[name],
                    "is not" if text.startswith("-") else "is",
                    text.removeprefix("-"),
                    self._changed(name, text, None),
                    self._changed(name, text, text[1:] if text.startswith("-") else f"-{text}"),
                )
                for text in choice.texts()
            ]
        if self.alike is not None:
            out.append(Chip("Error", "like that of", to_ulid(self.alike)[:10], self.query(alike=None)))
        if self.bulk is not None:
            out.append(Chip("Made by bulk action", "", to_ulid(self.bulk)[:10], self.query(bulk=None)))
        return out

    def kept(self) -> list[tuple[str, str]]:
        """Filters that the form has no visible field for, as hidden fields."""
        shown = {"q", "last", "from", "to"}
        return [(name, value) for name, value in self.pairs() if name not in shown]

    def frozen(self, now: datetime) -> RunFilter:
        """The filter as it is now, for an action on everything that matches."""
        return replace(self.wanted.frozen(now))

    def _changed(self, name: str, old: str, new: str | None) -> str:
        parts = [
            (key, new if (key, value) == (name, old) and new is not None else value)
            for key, value in self.pairs()
            if (key, value) != (name, old) or new is not None
        ]
        return "?" + urlencode(parts)


def _time(text: str | None) -> datetime | None:
    """A minute in UTC, as `datetime-local` fields and links write it; None when it is none."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text[:40])
        return minute(at.replace(tzinfo=at.tzinfo or UTC)) if 2000 <= at.year <= 9000 else None
    except (ValueError, OverflowError):
        return None


def _words(at: datetime) -> str:
    return f"{at.day} {at:%b, %H:%M}"
