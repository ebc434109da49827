"""Which runs are meant: the filters of lists, counts, histograms and bulk actions, as conditions of SQL.

Pure but for names: functions and apps come as slugs and names and are compared inside the environment. Times are whole
minutes and mean the minute of a run's id, so that a list, which pages by id, and the minute counters agree.
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
    share. `bulk`: the bulk action that made the runs.
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

    @property
    def tab(self) -> str:
        """The one status asked for; `all` for none or several."""
        one = len(self.status.wanted) == 1 and not self.status.unwanted
        return self.status.wanted[0] if one else "all"

    @property
    def is_counted(self) -> bool:
        """Whether the minute counters can answer how many there are."""
        return not (self.ids or self.alike or self.bulk) and (self.last is not None or self.since is not None)

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
    span = wanted.span(now)
    if span is not None:
        out.add("r.id >= ?", floor_id(span[0]))
    if wanted.until is not None:
        out.add("r.id < ?", floor_id(wanted.until))
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
    return out


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


def floor_id(at: datetime) -> UUID:
    """The smallest id of an instant."""
    return ulid_of(millis(at), b"\x00" * 10)
