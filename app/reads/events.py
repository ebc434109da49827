"""Events as people look at them: the list with what each set off, one event, and why a function did not run.

Reads only, inside a tenant transaction (`store.db.tenant`); at most three statements a page, none per row. The list goes
by (received_at, id), newest first. Names, senders' ids and the wish to see no internal events have no index of their own:
they are looked for among the next `SCANNED` events, and the page says so where that was not enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.ids import EnvironmentId, parse_ulid, to_ulid
from app.reads.handles import handle_of
from app.reads.run_state import ENDED, display_state
from app.reads.runs import parse_search
from app.reads.stored import Payload
from app.store.db import Connection

#: Rows of a page.
SIZE = 50
#: Events looked through for one page; about 30 ms.
SCANNED = 20_000
#: Status dots of one event; more are a "+".
MOST_DOTS = 12
#: Characters of a payload a page shows; the whole of a larger one is a download.
LARGEST = 256 * 1024
#: Runs and answers listed on an event's page.
MOST_RUNS = 100
_MOST_NEW = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Why a function did not run: what people read for each outcome of `dispositions` and each reason of a skipped run.
WHY_NOT = {
    "duplicate": "An event with this ID has started the function within the last 24 hours.",
    "filtered": "The trigger's condition was not true for this event.",
    "expression_error": "The trigger's condition could not be worked out for this event.",
    "rate_limited": "The function's rate limit was reached.",
    "debounced": "A later event took its place: the function is debounced.",
    "batched": "It waits for its batch to fill.",
    "paused": "The function was paused.",
    "backlog": "Too much was waiting; the run starts later.",
    "singleton": "A run of the function was active, and it allows one at a time.",
    "drained": "The function was drained.",
    "allowance": "The organization starts no new runs just now: see Billing.",
}


#: A debounced event that no newer one has replaced: before its run is made, and after.
_HELD_BACK = "It is held back until no more events come: the function is debounced."
_RAN_FOR_ALL = "The function is debounced: this run is for it and the events before it."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of events begins or ends."""

    received_at: datetime
    id: UUID

    def __str__(self) -> str:
        return f"{(self.received_at - _EPOCH) // timedelta(microseconds=1)}-{to_ulid(self.id)}"

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """Read what `str` wrote; None for anything else."""
        digits, _, ulid = text.partition("-")
        found = parse_ulid(ulid)
        if found is None or not digits.isascii() or not digits.isdigit() or len(digits) > 16:
            return None
        return cls(_EPOCH + timedelta(microseconds=int(digits)), found)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What the address asks for. `id` is an internal id, `client_id` a sender's own."""

    names: tuple[str, ...] = ()
    has_internal: bool = False
    id: UUID | None = None
    client_id: str = ""

    @classmethod
    def of(cls, text: str, names: Sequence[str], *, has_internal: bool) -> "EventFilter":
        """A filter for what somebody typed into the search field: an internal id, or else a sender's id."""
        found = parse_search(text) if text else None
        return cls(tuple(names), has_internal, found[0] if found else None, "" if found else text)

    @property
    def is_looking(self) -> bool:
        """Whether events have to be looked through, and not only read in order."""
        return bool(self.names or self.client_id or not self.has_internal)


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run as a dot."""

    ulid: str
    state: str
    function_name: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of the list. `why_not` is the first reason that a function gave, when nothing was started."""

    ulid: str
    name: str
    source: str
    client_id: str | None
    received_at: datetime
    runs: tuple[StartedRun, ...]
    has_more_runs: bool
    why_not: str | None
    place: Place

    @property
    def is_settled(self) -> bool:
        """Whether nothing about the line changes any more: it started something, and all of that has ended."""
        return bool(self.runs) and all(run.state in ENDED for run in self.runs)


@dataclass(frozen=True, slots=True)
class EventList:
    """One page. `is_cut`: there was more to look through than was looked through."""

    rows: tuple[EventRow, ...]
    newer: str | None
    older: str | None
    now: datetime
    is_cut: bool = False

    @property
    def newest(self) -> str:
        """The place after which events are new to this page."""
        return str(self.rows[0].place) if self.rows else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one function made of the event. `run` is its run, or that of other events which took it in; `outcome` says why
    there is none, or why it is another's or was skipped.
    """

    function_name: str
    function_path: str
    run: StartedRun | None
    outcome: str | None
    detail: str
    at: datetime

    @property
    def sentence(self) -> str:
        """Why nothing was done, for people."""
        if self.run is not None and self.outcome == "batched":
            return "It is part of this batch."
        if self.outcome == "debounced" and not self.detail.startswith("superseded"):
            return _RAN_FOR_ALL if self.run is not None else _HELD_BACK
        return WHY_NOT.get(self.outcome or "", self.outcome or "")


@dataclass(frozen=True, slots=True)
class EventPage:
    """One event. `is_handled` is false while nobody has looked for what it sets off."""

    ulid: str
    name: str
    client_id: str | None
    source: str
    ts: datetime
    received_at: datetime
    payload: Payload
    has_original: bool
    answers: tuple[Answer, ...]
    is_handled: bool
    now: datetime

    @property
    def is_internal(self) -> bool:
        """Whether Stepwell made it; such events cannot be sent."""
        return is_internal(self.name)

    @property
    def is_live(self) -> bool:
        """Whether something may still change: a page then listens."""
        is_open = any(a.run is not None and a.run.state not in ENDED for a in self.answers)
        return not self.is_handled or is_open or self.now - self.received_at < timedelta(minutes=10)


def is_internal(name: str) -> bool:
    """Say whether Stepwell made the event (protocol 6)."""
    return name[:8].lower() == "inngest/"


async def list_events(
    connection: Connection,
    environment_id: EnvironmentId,
    wanted: EventFilter,
    *,
    before: Place | None = None,
    after: Place | None = None,
) -> EventList:
    """A page of events, newest first: `before` gives older ones, `after` newer ones."""
    now: datetime = await connection.fetchval("select clock()")
    arguments: list[Any] = [environment_id]
    inner, outer = ["e.environment_id = $1"], ["true"]

    def add(conditions: list[str], condition: str, *values: Any) -> None:
        for value in values:
            arguments.append(value)
            condition = condition.replace("?", f"${len(arguments)}", 1)
        conditions.append(condition)

    if wanted.id is not None:
        add(inner, "e.id = ?", wanted.id)
    if after is not None:
        add(inner, "(e.received_at, e.id) > (?, ?)", after.received_at, after.id)
    elif before is not None:
        add(inner, "(e.received_at, e.id) < (?, ?)", before.received_at, before.id)
    if wanted.names:
        add(outer, "e.name = any(?)", list(wanted.names))
    elif not wanted.has_internal and wanted.id is None:
        outer.append("lower(left(e.name, 8)) <> 'inngest/'")
    if wanted.client_id:
        add(outer, "e.client_id = ?", wanted.client_id)
    order = "asc" if after is not None else "desc"
    inside = (
        "select e.id, e.name, e.source, e.client_id, e.received_at from events e"
        f" where {' and '.join(inner)} order by e.received_at {order}, e.id {order} limit {SCANNED}"
    )
    records = await connection.fetch(
        f"select e.* from ({inside}) e where {' and '.join(outer)}"
        f" order by e.received_at {order}, e.id {order} limit {SIZE + 1}",
        *arguments,
    )
    has_more = len(records) > SIZE
    records = records[:SIZE]
    if after is not None:
        records.reverse()
        if not records:
            return await list_events(connection, environment_id, wanted)
    last: Place | None = Place(records[-1]["received_at"], records[-1]["id"]) if records else None
    is_cut = False
    if wanted.is_looking and not has_more and after is None:
        # Fewer than a page: is that all there is, or all that was looked through?
        end = await connection.fetchrow(
            f"select e.received_at, e.id from ({inside}) e offset {SCANNED - 1} limit 1",
            *arguments[: _highest(inner)],
        )
        if end is not None:
            is_cut, last = True, Place(end["received_at"], end["id"])
    rows = await _rows(connection, environment_id, records)
    has_newer = has_more if after is not None else before is not None
    has_older = has_more or is_cut if after is None else True
    return EventList(
        rows=rows,
        newer=str(rows[0].place) if rows and has_newer else None,
        older=str(last) if last is not None and has_older else None,
        now=now,
        is_cut=is_cut,
    )


async def rows_by_id(
    connection: Connection, environment_id: EnvironmentId, ids: Sequence[UUID]
) -> tuple[EventRow, ...]:
    """The lines of these events, in no order; ids of other environments are simply not found."""
    records = await connection.fetch(
        "select e.id, e.name, e.source, e.client_id, e.received_at from events e"
        " where e.environment_id = $1 and e.id = any($2)",
        environment_id,
        list(ids)[:SIZE],
    )
    return await _rows(connection, environment_id, records)


async def count_newer(
    connection: Connection, environment_id: EnvironmentId, wanted: EventFilter, newest: Place | None
) -> int:
    """How many events the list would show above `newest`, at most 100."""
    if wanted.id is not None or wanted.client_id or newest is None:
        return 0
    number: int = await connection.fetchval(
        "select count(*) from (select 1 from (select e.name from events e where e.environment_id = $1"
        f" and (e.received_at, e.id) > ($2, $3) limit {SCANNED}) e"
        " where ($4::text[] = '{}' and ($5 or lower(left(e.name, 8)) <> 'inngest/') or e.name = any($4))"
        f" limit {_MOST_NEW}) x",
        environment_id,
        newest.received_at,
        newest.id,
        list(wanted.names),
        wanted.has_internal,
    )
    return number


async def list_mark(connection: Connection, environment_id: EnvironmentId) -> str:
    """A text that changes when an event arrives, or a run among the newest 200 moves."""
    mark: str | None = await connection.fetchval(
        "select (select e.received_at::text || e.id from events e where e.environment_id = $1"
        " order by e.received_at desc, e.id desc limit 1) || ':' || coalesce((select sum(r.version) || ':' || count(*)"
        " from (select version from runs where environment_id = $1 order by id desc limit 200) r), '')",
        environment_id,
    )
    return mark or ""


async def find_event(connection: Connection, environment_id: EnvironmentId, event_id: UUID) -> EventPage | None:
    """One event with what every function made of it; None when the environment has no such event.

    An id that a sender chose may stand twice; the one received last is meant.
    """
    row = await connection.fetchrow(
        f"""select e.id, e.name, e.client_id, e.source, e.ts, e.received_at, left(e.payload, {LARGEST}) as payload,
              octet_length(e.payload) as octets, e.original is not null as has_original, clock() as now,
              exists (select from inbox i where i.environment_id = e.environment_id and i.event_id = e.id) as is_waiting
            from events e where e.environment_id = $1 and e.id = $2 order by e.received_at desc limit 1""",
        environment_id,
        event_id,
    )
    if row is None:
        return None
    runs = await connection.fetch(
        f"select r.id, {display_state('r')} as status, r.error_code, r.queued_at,"
        " case when r.started_at is null then (select d.outcome from dispositions d where d.environment_id = r.environment_id"
        " and d.event_id = r.event_id and d.function_id = r.function_id and d.outcome = 'backlog') end as delayed,"
        " coalesce(f.name, '') as function_name, f.slug, f.id as function_id"
        " from runs r left join functions f on f.id = r.function_id and f.environment_id = r.environment_id"
        f" where r.environment_id = $1 and r.event_id = $2 order by r.id limit {MOST_RUNS}",
        environment_id,
        event_id,
    )
    refusals = await connection.fetch(
        f"select d.outcome, d.detail, d.at, coalesce(f.name, '') as function_name, f.slug, d.function_id, r.id,"
        f" {display_state('r')} as status"
        " from dispositions d left join functions f on f.id = d.function_id and f.environment_id = d.environment_id"
        " left join runs r on r.id = d.run_id and r.environment_id = d.environment_id"
        # A run of the event itself is its own line already, with the reason when it was skipped.
        " where d.environment_id = $1 and d.event_id = $2 and r.event_id is distinct from d.event_id"
        f" order by f.slug limit {MOST_RUNS}",
        environment_id,
        event_id,
    )
    answers = [
        Answer(
            r["function_name"],
            handle_of(r["slug"], r["function_id"]),
            StartedRun(to_ulid(r["id"]), r["status"], r["function_name"]),
            (r["error_code"] or "skipped") if r["status"] == "skipped" else r["delayed"],
            "",
            r["queued_at"],
        )
        for r in runs
    ]
    answers += [
        Answer(
            d["function_name"],
            handle_of(d["slug"], d["function_id"]),
            None if d["id"] is None else StartedRun(to_ulid(d["id"]), d["status"], d["function_name"]),
            d["outcome"],
            d["detail"],
            d["at"],
        )
        for d in refusals
    ]
    return EventPage(
        ulid=to_ulid(row["id"]),
        name=row["name"],
        client_id=row["client_id"],
        source=row["source"],
        ts=_EPOCH + timedelta(milliseconds=row["ts"]),
        received_at=row["received_at"],
        payload=Payload(row["payload"], row["octets"], row["octets"] > len(row["payload"].encode())),
        has_original=row["has_original"],
        answers=tuple(answers),
        is_handled=not row["is_waiting"],
        now=row["now"],
    )


async def event_text(connection: Connection, environment_id: EnvironmentId, event_id: UUID) -> str | None:
    """The whole payload, with the digits its sender wrote where those were kept; None when there is no such event."""
    text: str | None = await connection.fetchval(
        "select coalesce(e.original, e.payload) from events e where e.environment_id = $1 and e.id = $2"
        " order by e.received_at desc limit 1",
        environment_id,
        event_id,
    )
    return text


async def event_mark(connection: Connection, environment_id: EnvironmentId, event_id: UUID) -> str:
    """A text that changes when anything about the event does: handled, a run more, a run that moved, an answer more."""
    mark: str = await connection.fetchval(
        "select (select count(*) from inbox where environment_id = $1 and event_id = $2)"
        " || ':' || (select count(*) || ':' || coalesce(sum(version), 0) || ':' || count(ended_at) from runs"
        "   where environment_id = $1 and event_id = $2)"
        " || ':' || (select count(*) from dispositions where environment_id = $1 and event_id = $2)",
        environment_id,
        event_id,
    )
    return mark


async def first_run(connection: Connection, environment_id: EnvironmentId, event_id: UUID) -> tuple[bool, str | None]:
    """Whether an event has been handled, and the first run it started."""
    row = await connection.fetchrow(
        "select exists (select from inbox where environment_id = $1 and event_id = $2) as is_waiting,"
        " (select id from runs where environment_id = $1 and event_id = $2 order by id limit 1) as run",
        environment_id,
        event_id,
    )
    return not row["is_waiting"], None if row["run"] is None else to_ulid(row["run"])


async def _rows(connection: Connection, environment_id: EnvironmentId, records: Sequence[Any]) -> tuple[EventRow, ...]:
    """The lines of records, with the runs of all of them and the reasons of those without."""
    if not records:
        return ()
    ids = [record["id"] for record in records]
    started = await connection.fetch(
        f"select e.id as event_id, r.id, {display_state('r')} as status, coalesce(f.name, '') as function_name"
        " from unnest($2::uuid[]) e (id) cross join lateral (select x.id, x.status, x.function_id from runs x"
        f"   where x.environment_id = $1 and x.event_id = e.id order by x.id limit {MOST_DOTS + 1}) r"
        " left join functions f on f.id = r.function_id and f.environment_id = $1 order by r.id",
        environment_id,
        ids,
    )
    refused = await connection.fetch(
        "select distinct on (d.event_id) d.event_id, d.outcome from dispositions d"
        " where d.environment_id = $1 and d.event_id = any($2) order by d.event_id, d.function_id",
        environment_id,
        ids,
    )
    runs: dict[UUID, list[StartedRun]] = {}
    for run in started:
        runs.setdefault(run["event_id"], []).append(StartedRun(to_ulid(run["id"]), run["status"], run["function_name"]))
    reasons: dict[UUID, str] = {r["event_id"]: r["outcome"] for r in refused}
    return tuple(
        EventRow(
            ulid=to_ulid(record["id"]),
            name=record["name"],
            source=record["source"],
            client_id=record["client_id"],
            received_at=record["received_at"],
            runs=tuple(runs.get(record["id"], ())[:MOST_DOTS]),
            has_more_runs=len(runs.get(record["id"], ())) > MOST_DOTS,
            why_not=None if record["id"] in runs else reasons.get(record["id"]),
            place=Place(record["received_at"], record["id"]),
        )
        for record in records
    )


def _highest(conditions: Sequence[str]) -> int:
    """The number of arguments that conditions use; those of the inner query come first."""
    return " ".join(conditions).count("$")
