"""Columns of the runs list and lists under a name: what one person keeps in one environment, and what a page adds.

Also the values of the added columns that do not stand in a run's row: payload fields and attempts. One statement a page.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from app.domain.ids import EnvironmentId, UserId, to_ulid
from app.reads.runs import RunRow
from app.store.db import Connection
from app.store.named import fetch, named

#: Columns that can be added, and their headings.
MORE_COLUMNS = {
    "started": "Started",
    "ended": "Ended",
    "version": "Version",
    "attempts": "Attempts",
    "batch": "Batch size",
    "event": "Event ID",
}
MOST_PATHS = 3
#: A path into the event: `data.order.id`, `data.items[0].sku`. `event.` in front may be left out.
_PATH = re.compile(r"(?:[A-Za-z_][\w-]{0,99}|\[\d{1,4}\])(?:\.[A-Za-z_][\w-]{0,99}|\[\d{1,4}\]){0,19}\Z", re.ASCII)
_PARTS = re.compile(r"[\w-]+")
#: Payloads above this many bytes are not opened for a list.
_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Columns:
    """What is shown beside the usual columns: keys of `MORE_COLUMNS`, and paths into the event."""

    keys: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, keys: Sequence[str], paths: Sequence[str]) -> "Columns":
        """What of a form or a row can be shown, in the order of the page; raises ValueError with a path that is none."""
        clean = []
        for text in paths:
            path = text.strip().removeprefix("event.")
            if path and not _PATH.match(path):
                raise ValueError(text.strip())
            clean += [path] if path else []
        return cls(tuple(k for k in MORE_COLUMNS if k in keys), tuple(dict.fromkeys(clean))[:MOST_PATHS])


async def columns_of(connection: Connection, environment_id: EnvironmentId, user_id: UserId) -> Columns:
    """What this person has chosen here."""
    rows = await fetch(connection, named("views", "columns"), environment=environment_id, user=user_id)
    return Columns.of(rows[0]["columns"], rows[0]["paths"]) if rows else Columns()


@dataclass(frozen=True, slots=True)
class View:
    """A list under a name. `filters` is its query string, or empty; `by` who made it, empty for what the system offers."""

    ulid: str
    name: str
    filters: str
    is_shared: bool
    is_own: bool
    by: str


#: Offered to everybody, before anybody has kept anything.
SYSTEM_VIEWS = (
    View("", "Needs attention", "status=failed&is=unreplayed", is_shared=True, is_own=False, by=""),
    View("", "Stuck", "last=any&is=stuck", is_shared=True, is_own=False, by=""),
    View("", "Long queue wait", "is=waited", is_shared=True, is_own=False, by=""),
)


async def views_of(connection: Connection, environment_id: EnvironmentId, user_id: UserId) -> list[View]:
    """One's own views and the shared ones, by name."""
    return [
        View(to_ulid(r["id"]), r["name"], r["filters"], r["is_shared"], r["user_id"] == user_id, r["by"])
        for r in await fetch(connection, named("views", "views"), environment=environment_id, user=user_id)
    ]


async def find_view(
    connection: Connection, environment_id: EnvironmentId, user_id: UserId, view_id: UUID
) -> tuple[str, Columns] | None:
    """The query string and the columns of a view that this person may open."""
    rows = await fetch(connection, named("views", "view"), environment=environment_id, user=user_id, id=view_id)
    return (rows[0]["filters"], Columns.of(rows[0]["columns"], rows[0]["paths"])) if rows else None


async def more_of(
    connection: Connection, environment_id: EnvironmentId, columns: Columns, rows: Sequence[RunRow]
) -> Mapping[str, tuple[str, ...]]:
    """By run (ULID): the number of attempts when it is shown, then the value at each path. No statement when neither is."""
    has_attempts = "attempts" in columns.keys
    if not rows or not (has_attempts or columns.paths):
        return {}
    attempts = "(select max(h.attempt) from history h where h.run_id = r.id)" if has_attempts else "null"
    payload = (
        f"""(select case when octet_length(e.payload) <= {_LARGEST} then e.payload end from events e
             where e.environment_id = $1 and e.id = r.event_id and e.received_at = r.event_received_at)"""
        if columns.paths
        else "null"
    )
    records = await connection.fetch(
        f"""select r.id, {attempts} as attempts, {payload} as payload from runs r
            where r.environment_id = $1 and r.id = any($2)""",
        environment_id,
        [row.id for row in rows],
    )
    out = {}
    for r in records:
        first = ("" if r["attempts"] is None else str(r["attempts"] + 1),) if has_attempts else ()
        event = _decoded(r["payload"])
        out[to_ulid(r["id"])] = (*first, *(_shown(_at(event, path)) for path in columns.paths))
    return out


def _decoded(text: str | None) -> Any:
    try:
        return None if text is None else msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _at(value: Any, path: str) -> Any:
    for part in _PARTS.findall(path):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value[:80]
    return msgspec.json.encode(value).decode()[:80]
