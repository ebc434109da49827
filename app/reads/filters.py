"""Which runs are meant: the filters of lists, counts, histograms and bulk actions, as conditions of SQL.

Pure but for names: functions and apps come as slugs and names and are compared inside the environment. Times are whole
minutes. A range by the time of queuing means the minute of a run's id, so that a list, which pages by id, and the minute
counters agree; ranges by start and end look at the rows. An expression is no SQL: `scan` works it out.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.ids import EnvironmentId, RunId, millis, ulid_of

#: Time ranges offered, as written in the URL. `any` is no range at all.
RANGES = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
DEFAULT_RANGE = "24h"
ANY = "any"

_HAS_CALLS = "exists (select 1 from items c where c.run_id = r.id and c.kind in ('discover', 'step'))"
#: Display states that are filters, each as a condition on `runs r`.
STATUSES = {
    "running": f"(r.status = 'running' and {_HAS_CALLS})",
    "queued": "r.status = 'queued'",
    "waiting": f"(r.status = 'running' and not {_HAS_CALLS})",
    "failed": "r.status = 'failed'",
    "completed": "r.status = 'completed'",
    "cancelled": "r.status in ('cancelled', 'skipped')",
}
#: Which of its times puts a run into a range.
TIMES = ("queued", "started", "ended")
#: Events looked through for a sender's key, newest first: they have no index by it. Keys of the last day have.
KEYS_LOOKED_AT = 20_000
#: How far beyond its function's usual length (p95 of its newest `_LENGTHS` completed runs) a run counts as stuck.
_STUCK, _LENGTHS = 3, 200
_LONG_WAIT = "1 minute"
#: One object of function id → p95 in seconds, worked out once a statement, for functions with runs under way.
_USUAL = f"""(select jsonb_object_agg(u.function_id::text, u.p95) from (
    select o.function_id, percentile_cont(0.95) within group (order by extract(epoch from c.ended_at - c.started_at)) as p95
    from (select distinct y.function_id from (select function_id from runs
            where environment_id = $1 and status = 'running' order by id desc limit 10000) y) o
    cross join lateral (select x.started_at, x.ended_at from runs x where x.environment_id = $1
      and x.function_id = o.function_id and x.status = 'completed' order by x.id desc limit {_LENGTHS}) c
    group by 1) u)"""
#: Traits that are filters: what people read, and the condition on `runs r`. None of them is ever null.
MARKS = {
    "unreplayed": ("not replayed", "not exists (select 1 from runs n where n.original_run_id = r.id)"),
    "stuck": (
        f"running longer than {_STUCK} × p95",
        f"""coalesce(r.status = 'running' and extract(epoch from clock() - r.started_at)
             > {_STUCK} * ({_USUAL} ->> r.function_id::text)::float, false)""",
    ),
    "waited": (
        "queued over 1 min",
        f"(coalesce(r.started_at, r.ended_at, clock()) - r.queued_at > interval '{_LONG_WAIT}')",
    ),
}
#: Messages are alike when they differ in numbers only.
_ALIKE = "regexp_replace({}, '[0-9]+', '0', 'g')"


@dataclass(frozen=True, slots=True)
class Choice:
    """Values of one field: any of `wanted` (all when empty), none of `unwanted`."""

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.wanted or self.unwanted)

    @classmethod
    def of(cls, texts: list[str]) -> "Choice":
        """Read the repeated values of a parameter: a leading `-` means not. At most 20."""
        texts = [text for text in dict.fromkeys(texts) if text.removeprefix("-")][:20]
        return cls(
            tuple(text for text in texts if not text.startswith("-")),
            tuple(text[1:] for text in texts if text.startswith("-")),
        )

    def texts(self) -> tuple[str, ...]:
        """The values as they stand in the URL."""
        return (*self.wanted, *(f"-{text}" for text in self.unwanted))


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What the address asks for.

    `ids`: the search text as ids, matched against run and event. `since` and `until`: absolute range, whole minutes,
    the end not included; else `last` is one of `RANGES`, or None for any time. `alike`: a failed run whose error others
    share. `bulk`: the bulk action that made the runs. `items`: a bulk action that was about them, and with which outcome
    (all when empty). `by`: which of `TIMES` the range is about. `key`: an idempotency key. `expression`: over event and
    output, worked out by `scan` and by nobody else.
    """

    status: Choice = Choice()
    ids: tuple[UUID, ...] = ()
    functions: Choice = Choice()
    apps: Choice = Choice()
    last: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    alike: RunId | None = None
    bulk: UUID | None = None
    marks: Choice = Choice()
    items: tuple[UUID, str] | None = None
    by: str = "queued"
    key: str = ""
    expression: str = ""

    @property
    def tab(self) -> str:
        """The one status asked for; `all` for none or several."""
        one = len(self.status.wanted) == 1 and not self.status.unwanted
        return self.status.wanted[0] if one else "all"

    @property
    def is_counted(self) -> bool:
        """Whether the minute counters can answer how many there are."""
        others = self.ids or self.alike or self.bulk or self.marks or self.items or self.key or self.expression
        return not others and self.by == "queued" and (self.last is not None or self.since is not None)

    @property
    def is_few(self) -> bool:
        """Whether it is about certain runs, and not about a range: then they are found once and counted together."""
        return bool(self.ids or self.key or self.bulk or self.items)

    def without_status(self) -> "RunFilter":
        """The same for all statuses: what the tabs count."""
        return replace(self, status=Choice())

    def span(self, now: datetime) -> tuple[datetime, datetime] | None:
        """First minute and the minute after the last one; None when there is no beginning."""
        end = self.until or minute(now) + timedelta(minutes=1)
        if self.since is not None:
            return self.since, max(end, self.since + timedelta(minutes=1))
        return (end - RANGES[self.last], end) if self.last in RANGES else None

    def frozen(self, now: datetime) -> "RunFilter":
        """The same set tomorrow: relative times become absolute, and later runs stay out."""
        span = self.span(now)
        since, until = span if span is not None else (None, self.until or minute(now) + timedelta(minutes=1))
        return replace(self, last=None, since=since, until=until)


def minute(at: datetime) -> datetime:
    """The minute an instant lies in."""
    return at.astimezone(UTC).replace(second=0, microsecond=0)


class Where:
    """Conditions on `runs r` with numbered arguments; the environment is always the first."""

    def __init__(self, environment_id: EnvironmentId) -> None:
        self.arguments: list[Any] = [environment_id]
        self.conditions = ["r.environment_id = $1"]

    def add(self, condition: str, argument: Any) -> None:
        """One more condition, whose `?` is the argument."""
        self.arguments.append(argument)
        self.conditions.append(condition.replace("?", f"${len(self.arguments)}"))

    def __str__(self) -> str:
        return " and ".join(self.conditions)


def where(environment_id: EnvironmentId, wanted: RunFilter, now: datetime) -> Where:
    """The conditions of a filter."""
    out = Where(environment_id)
    if wanted.ids:
        out.add("(r.id = any(?) or r.event_id = any(?))", list(wanted.ids))
    add_code(out, wanted)
    if wanted.status.wanted:
        out.conditions.append("(" + " or ".join(STATUSES[s] for s in wanted.status.wanted) + ")")
    out.conditions += [f"not {STATUSES[s]}" for s in wanted.status.unwanted]
    out.conditions += [MARKS[mark][1] for mark in wanted.marks.wanted]
    out.conditions += [f"not {MARKS[mark][1]}" for mark in wanted.marks.unwanted]
    _add_range(out, wanted, now)
    if wanted.alike is not None:
        same = _ALIKE.format("coalesce(x.error_message, '')") + " = " + _ALIKE.format("coalesce(r.error_message, '')")
        out.add(
            "exists (select 1 from runs x where x.id = ? and x.environment_id = $1 and x.function_id = r.function_id"
            f" and x.error_name is not distinct from r.error_name and {same}) and r.status = 'failed'",
            wanted.alike,
        )
    if wanted.bulk is not None:
        out.add(
            "r.id in (select new_run_id from bulk_items where environment_id = $1 and bulk_id = ?)",
            wanted.bulk,
        )
    if wanted.items is not None:
        bulk, outcome = wanted.items
        out.add("r.id in (select run_id from bulk_items where environment_id = $1 and bulk_id = ?)", bulk)
        if outcome:
            out.add(
                f"r.id in (select run_id from bulk_items where bulk_id = ${len(out.arguments)} and state = ?)", outcome
            )
    if wanted.key:
        out.add(
            "(r.id = any(array(select d.run_id from dedupe d where d.environment_id = $1 and d.key = ? and d.function_id"
            " in (select id from functions where environment_id = $1))) or r.event_id = any(array("
            " select e.id from (select id, client_id from events where environment_id = $1 order by received_at desc"
            f" limit {KEYS_LOOKED_AT}) e where e.client_id = ?)))",
            wanted.key,
        )
    return out


def _add_range(out: Where, wanted: RunFilter, now: datetime) -> None:
    span = wanted.span(now)
    if wanted.by == "queued":
        if span is not None:
            out.add("r.id >= ?", floor_id(span[0]))
        if wanted.until is not None:
            out.add("r.id < ?", floor_id(wanted.until))
        return
    column = f"r.{wanted.by}_at"
    out.conditions.append(f"{column} is not null")
    if span is not None:
        out.add(f"{column} >= ?", span[0])
    if wanted.until is not None:
        # Nothing starts or ends before it was queued.
        out.add("r.id < ?", floor_id(wanted.until))
        out.add(f"{column} < ?", wanted.until)


def add_code(out: Where, wanted: RunFilter) -> None:
    """The conditions on functions and apps; they hold for `usage_minutes r` too."""
    functions = "(select id from functions where environment_id = $1 and slug = any(?))"
    of_apps = (
        "(select f.id from functions f join apps a on a.id = f.app_id and a.environment_id = f.environment_id"
        " where f.environment_id = $1 and a.name = any(?))"
    )
    for choice, ids in ((wanted.functions, functions), (wanted.apps, of_apps)):
        if choice.wanted:
            out.add(f"r.function_id in {ids}", list(choice.wanted))
        if choice.unwanted:
            out.add(f"r.function_id not in {ids}", list(choice.unwanted))


#: What a list can be put in order by, over the alias {0}. What has not happened yet is the latest; `queued` is the id.
_SORT_KEYS = {
    "queued": "{0}.id",
    "started": "coalesce({0}.started_at, 'infinity')",
    "ended": "coalesce({0}.ended_at, 'infinity')",
    "duration": "coalesce(coalesce({0}.ended_at, clock()) - {0}.started_at, interval '-1 second')",
    "wait": "coalesce({0}.started_at, {0}.ended_at, clock()) - {0}.queued_at",
}
SORTS = tuple(text for key in _SORT_KEYS for text in (f"-{key}", key))


def put_in_order(out: Where, sort: str, *, before: UUID | None = None, after: UUID | None = None) -> str:
    """Add the place in the list (the run it begins behind, or ends before) and give the `order by` that goes with it.

    `sort` is one of `SORTS`, a leading `-` meaning largest first. With `after` rows come in reverse.
    """
    name, is_down = sort.removeprefix("-"), sort.startswith("-") == (after is None)
    word, sign = ("desc", "<") if is_down else ("asc", ">")
    key = _SORT_KEYS[name]
    place = after or before
    if name == "queued":
        if place is not None:
            out.add(f"r.id {sign} ?", place)
        return f"r.id {word}"
    if place is not None:
        out.add(
            f"({key.format('r')}, r.id) {sign} (select {key.format('x')}, x.id from runs x"
            " where x.environment_id = $1 and x.id = ?)",
            place,
        )
    return f"{key.format('r')} {word}, r.id {word}"


def floor_id(at: datetime) -> UUID:
    """The smallest id of an instant."""
    return ulid_of(millis(at), b"\x00" * 10)
