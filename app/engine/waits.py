"""Finds the waits an event ends: children's ends by correlation, waits for events by name and value.

Waits are never scanned: a wait whose expression holds an equality is stored with the path and value it compares, and
an event asks the index with its own values (D7). The rest of the expression is judged here.
Both looks of rule 15 use this module: whoever commits an event looks for waits (`waits_ended_by`), and whoever opens a
wait looks for events received since (`recheck`). One of the two sees the other.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec

from app.domain import canonical
from app.domain.ids import RunId
from app.domain.matching import wait_matches, wait_value
from app.domain.protocol.error_object import as_memo, made_error
from app.domain.run.happenings import CancelRequested, Happening, Resumed
from app.store.named import fetch, named

_CANCEL = "cancel"
#: Waits, or events, looked at in one statement; and what comes before every id.
_SLICE = 1000
_FIRST = UUID(int=0)
log = logging.getLogger(__name__)


async def waits_ended_by(
    connection: Any, rows: list[Any], room: int = _SLICE
) -> AsyncIterator[tuple[int, RunId, Happening]]:
    """The runs that claimed events resume, with what they are told: the place of the event in `rows`, run, happening.

    `rows` are of `claim` (sql/inbox.sql). However many waits there are, `room` of them are in memory at once; those of an
    event come in one piece, in the order of the events. An event of a name nobody waits for costs nothing here.
    """
    children = [(n, row) for n, row in enumerate(rows) if row["correlation"] is not None]
    if children:
        for pause in await fetch(
            connection,
            named("inbox", "pauses_of_children"),
            n=[n for n, _ in children],
            environment=[row["environment_id"] for _, row in children],
            correlation=[row["correlation"] for _, row in children],
        ):
            yield pause["n"], pause["run_id"], _of_child(pause["step_key"], rows[pause["n"]]["payload"])
    waited = [(n, row) for n, row in enumerate(rows) if row["has_waits"]]
    if not waited:
        return
    lookups = await _lookups(connection, waited)
    last = (-1, _FIRST, "")
    decoded: tuple[int, Any] = (-1, None)
    while True:
        pauses = await fetch(
            connection,
            named("inbox", "matching_pauses"),
            n=[n for n, _ in waited],
            environment=[row["environment_id"] for _, row in waited],
            name=[row["name"] for _, row in waited],
            **lookups,
            after_n=last[0],
            after_run=last[1],
            after_step=last[2],
            room=room,
        )
        for pause in pauses:
            row = rows[pause["n"]]
            if not _is_in_time(pause, row):
                continue
            if decoded[0] != pause["n"]:
                decoded = pause["n"], msgspec.json.decode(row["payload"])
            if wait_matches(pause["expression"], decoded[1], row["received_at"])[0]:
                yield pause["n"], pause["run_id"], _ended(pause, row)
        if len(pauses) < room:
            return
        last = (pauses[-1]["n"], pauses[-1]["run_id"], pauses[-1]["step_key"])


async def _lookups(connection: Any, waited: list[tuple[int, Any]]) -> dict[str, list[Any]]:
    """What `matching_pauses` looks for by value: each event's values at the paths that waits of its name compare by."""
    pairs = list({(row["environment_id"], row["name"]) for _, row in waited})
    paths: dict[tuple[UUID, str], list[str]] = {}
    for found in await fetch(
        connection, named("inbox", "pause_paths"), environment=[p[0] for p in pairs], name=[p[1] for p in pairs]
    ):
        paths.setdefault((found["environment_id"], found["name"]), []).append(found["path"])
    wanted: list[tuple[int, UUID, str, str, str | None]] = []
    for n, row in waited:
        pair = (row["environment_id"], row["name"])
        if pair in paths:
            event = msgspec.json.decode(row["payload"])
            wanted += [(n, *pair, path, wait_value(path, event)) for path in paths[pair]]
    columns = ("value_n", "value_environment", "value_name", "path", "value")
    return {column: [values[i] for values in wanted] for i, column in enumerate(columns)}


async def recheck(connection: Any, pause: Any, room: int = _SLICE) -> Happening | None:
    """The second look of a wait: an event that came in between its request and its commit, the first that ends it."""
    since, last = pause["requested_at"], _FIRST
    while True:
        rows = await fetch(
            connection,
            named("inbox", "events_since"),
            environment=pause["environment_id"],
            name=pause["event_name"],
            since=since,
            after=last,
            room=room,
        )
        for row in rows:
            # A rule is dated by the event that started its run, which is no reason to cancel it; a first wait may be too.
            if not _is_in_time(pause, row):
                continue
            if wait_matches(pause["expression"], msgspec.json.decode(row["payload"]), row["received_at"])[0]:
                return _ended(pause, row)
        if len(rows) < room:
            return None
        since, last = rows[-1]["received_at"], rows[-1]["id"]


def _is_in_time(pause: Any, row: Any) -> bool:
    return bool(
        pause["requested_at"] < row["received_at"]
        and (pause["expires_at"] is None or row["received_at"] < pause["expires_at"])
    )


def _ended(pause: Any, row: Any) -> Happening:
    """What the event is to the run: the memo of its step, or the end."""
    if pause["kind"] == _CANCEL:
        return CancelRequested("event")
    return Resumed(pause["step_key"], row["payload"].encode())


def _of_child(step_key: str, payload: str) -> Happening:
    """A child's end as the memo of its parent's step (protocol 23.3)."""
    event = msgspec.json.decode(payload.encode(), type=_Finished)
    if error := bytes(event.data.error):
        return Resumed(step_key, _as_memo(error), is_error=True)
    if result := bytes(event.data.result):
        return Resumed(step_key, b'{"data":' + result + b"}")
    return child_refused(step_key, "The invoked function was cancelled before it finished.")


def child_refused(step_key: str, message: str) -> Resumed:
    """What a parent is told of a child that never ran or never finished: an error it can catch (protocol 14.4)."""
    return Resumed(step_key, as_memo(made_error("Error", message)), is_error=True)


def _as_memo(error: bytes) -> bytes:
    """The child's error as the memo of a step; go cannot replay one that has no `data` (protocol 10.3)."""
    keys = msgspec.json.decode(error, type=dict[str, msgspec.Raw])
    if "data" not in keys:
        error = canonical.encode({**canonical.decode(error), "data": None})
    return as_memo(error)


class _FinishedData(msgspec.Struct):
    # Empty when absent: `Raw | None` would let only null through.
    error: msgspec.Raw = msgspec.Raw(b"")
    result: msgspec.Raw = msgspec.Raw(b"")


class _Finished(msgspec.Struct):
    data: _FinishedData
