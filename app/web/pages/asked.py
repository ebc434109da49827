"""The query string of lists of runs: read with care, written back with parts replaced.

What is not understood is left out, never an error page. Repeated parameters mean "or", a leading `-` means "not".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from app.domain.ids import RunId, parse_ulid, to_ulid
from app.reads.filters import ANY, DEFAULT_RANGE, MARKS, RANGES, SORTS, STATUSES, TIMES, Choice, RunFilter, minute
from app.reads.run_search import read_search
from app.reads.runs import SIZES

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
FIELDS = {"status": "Status", "fn": "Function", "app": "App", "is": "Run"}
#: Outcomes of a bulk action that its runs can be asked for by.
_OUTCOMES = ("failed", "skipped", "done")
#: Characters of a search that are read; longer expressions are refused.
LONGEST_SEARCH = 1001


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
        self.q = first.get("q", "").strip()[:LONGEST_SEARCH]
        self.search = read_search(self.q)
        #: One sentence under the search field, or None.
        self.problem = self.search.problem
        self.choices = {name: Choice.of([text for key, text in pairs if key == name]) for name in FIELDS}
        known = [text for text in self.choices["status"].texts() if text.removeprefix("-") in STATUSES]
        self.choices["status"] = Choice.of(known)
        marks = [text for text in self.choices["is"].texts() if text.removeprefix("-") in MARKS]
        self.choices["is"] = Choice.of(marks)
        self.since, self.until = _time(first.get("from")), _time(first.get("to"))
        if self.since is not None and self.until is not None and self.until <= self.since:
            self.until = None
        last = first.get("last", "")
        self.last = last if last in RANGES or last == ANY else DEFAULT_RANGE
        if self.since is not None or self.until is not None:
            self.last = ANY
        self.by = first["by"] if first.get("by") in TIMES else TIMES[0]
        self.sort = first["sort"] if first.get("sort") in SORTS else f"-{self.by}"
        size = first.get("size", "")
        self.size = next((known for known in SIZES if str(known) == size), SIZES[0])
        self.before: UUID | None = parse_ulid(first.get("before", ""))
        self.after: UUID | None = parse_ulid(first.get("after", ""))
        #: The saved view this was opened from: its columns hold.
        self.view: UUID | None = parse_ulid(first.get("view", ""))
        self.before_text, self.after_text = first.get("before"), first.get("after")
        alike, bulk = parse_ulid(first.get("alike", "")), parse_ulid(first.get("bulk", ""))
        self.alike, self.bulk = None if alike is None else RunId(alike), bulk
        items, _, outcome = first.get("items", "").partition(".")
        acted = parse_ulid(items)
        self.items = None if acted is None else (acted, outcome if outcome in _OUTCOMES else "")
        search = self.search
        #: What is looked for by an id or a key is looked for at any time.
        self.ignores_range = bool(
            search.ids or search.key or search.bulk or self.alike is not None or self.bulk is not None or self.items
        )
        self.wanted = RunFilter(
            status=self.choices["status"],
            ids=search.ids,
            functions=self.choices["fn"],
            apps=self.choices["app"],
            last=self.last if self.last in RANGES and not self.ignores_range else None,
            since=self.since,
            until=self.until,
            alike=self.alike,
            bulk=bulk or search.bulk,
            marks=self.choices["is"],
            items=self.items,
            by=self.by,
            key=search.key,
            expression=search.expression,
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
            or self.items
        )

    @property
    def is_first_page(self) -> bool:
        """Whether new runs belong at the top of this page."""
        return self.before is None and self.after is None and self.sort == "-queued"

    @property
    def is_top(self) -> bool:
        """Whether this is where the list begins: an expression's counts are of what comes from there."""
        return not self.wanted.expression or (self.before is None and self.after is None)

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
            "items": "" if self.items is None else to_ulid(self.items[0]) + f".{self.items[1]}".rstrip("."),
            "view": "" if self.view is None else to_ulid(self.view),
            "by": self.by if self.by != TIMES[0] else "",
            "sort": self.sort if self.sort != f"-{self.by}" else "",
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

    def filters(self) -> str:
        """The query string of the set alone, without order and size: what a saved view keeps. Empty when all is usual."""
        return self.query(size=None, view=None)[1:]

    def as_seen(self, now: datetime) -> str:
        """The same list with absolute times: what it shows tomorrow is what it shows now."""
        span = self.wanted.span(now)
        if span is None:
            until = self.wanted.until or minute(now) + timedelta(minutes=1)
            return self.query(**({} if self.ignores_range else {"last": None, "to": f"{until:%Y-%m-%dT%H:%M}"}))
        return self.query(last=None, **{"from": f"{span[0]:%Y-%m-%dT%H:%M}", "to": f"{span[1]:%Y-%m-%dT%H:%M}"})

    def with_value(self, name: str, value: str) -> str:
        """The query string with one more value of a field; a status takes the place of others, being a tab."""
        return "?" + urlencode([*self.pairs(**({"status": None} if name == "status" else {})), (name, value)])

    def sorted_by(self, key: str) -> str:
        """The list in the order of a column, largest first, or turned around when it is that already."""
        return self.query(sort=key if self.sort == f"-{key}" else f"-{key}")

    def direction(self, key: str) -> str | None:
        """How a column sorts the list, as `aria-sort` says it; None when it does not."""
        return {f"-{key}": "descending", key: "ascending"}.get(self.sort)

    def between(self, since: datetime, until: datetime) -> str:
        """The same list in another range: what a bar of the histogram links to."""
        return "?" + urlencode(
            [*self.pairs(last=None), ("from", f"{since:%Y-%m-%dT%H:%M}"), ("to", f"{until:%Y-%m-%dT%H:%M}")]
            if self.since is None and self.until is None
            else self.pairs(**{"from": f"{since:%Y-%m-%dT%H:%M}", "to": f"{until:%Y-%m-%dT%H:%M}"})
        )

    def chips(self) -> list[Chip]:
        """Every filter that is no tab, the search as it was understood first."""
        out: list[Chip] = []
        if self.search.words:
            out.append(Chip(self.search.words, "is", self.q, self.query(q=None)))
        for name, choice in self.choices.items():
            if name == "status" and self.tab != "all":
                continue
            out += [
                Chip(
                    FIELDS[name],
                    "is not" if text.startswith("-") else "is",
                    MARKS[text.removeprefix("-")][0] if name == "is" else text.removeprefix("-"),
                    self._changed(name, text, None),
                    self._changed(name, text, text[1:] if text.startswith("-") else f"-{text}"),
                )
                for text in choice.texts()
            ]
        if self.alike is not None:
            out.append(Chip("Error", "like that of", to_ulid(self.alike)[:10], self.query(alike=None)))
        if self.bulk is not None:
            out.append(Chip("Made by bulk action", "", to_ulid(self.bulk)[:10], self.query(bulk=None)))
        if self.items is not None:
            which = f", {self.items[1]}" if self.items[1] else ""
            out.append(Chip("Part of bulk action", "", to_ulid(self.items[0])[:10] + which, self.query(items=None)))
        return out

    def kept(self) -> list[tuple[str, str]]:
        """Filters that the form has no visible field for, as hidden fields."""
        shown = {"q", "last", "from", "to", "by"}
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
