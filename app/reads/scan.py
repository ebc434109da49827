"""Runs for which an expression is true: a bounded look at payloads, newest first, that says how far it looked.

Payloads are text and expressions are no SQL, so rows come to us: one statement, read in chunks, judged in a thread so
that other requests go on. It ends at `EXAMINED` rows, `MOST_BYTES` of payload or `WITHIN_S`, whichever comes first; what
was not looked at is never counted as "no".
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.domain.expressions import compile_expression
from app.domain.ids import EnvironmentId, RunId
from app.reads.filters import STATUSES, RunFilter, put_in_order
from app.reads.filters import where as conditions_of
from app.reads.run_search import VARIABLES, uses
from app.store.db import Connection

#: Rows looked at for one page; payloads above `LARGEST` bytes are not looked into.
EXAMINED = 10_000
LARGEST = 64 * 1024
MOST_BYTES = 32 * 1024 * 1024
#: Seconds for one page. The budget of a page with an expression is 0.8 s.
WITHIN_S = 0.6
_CHUNK = 500
#: Rows looked at however long it takes.
_ALWAYS = 50

_AS_FOUND = "set local enable_hashjoin = {0}; set local enable_mergejoin = {0}; set local enable_seqscan = {0}"
_STATE = "case " + " ".join(f"when {condition} then '{status}'" for status, condition in STATUSES.items()) + " end"
_EVENT = """left join lateral (select e.payload from events e where e.environment_id = r.environment_id
  and e.id = r.event_id and e.received_at = r.event_received_at) e on true"""
_ENDING = """left join lateral (select h.detail from history h where h.run_id = r.id and h.kind = 'run.completed'
  order by h.version desc, h.position desc limit 1) h on r.status = 'completed'"""


@dataclass(slots=True)
class Found:
    """What a look found. `ids` in the order of the list, of the wanted status; `counts` by status, over all.

    `is_cut`: there was more to look at; `last` is the last run looked at. `too_large`: runs whose payload was not read.
    """

    ids: list[RunId] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    examined: int = 0
    too_large: int = 0
    is_cut: bool = False
    last: UUID | None = None


async def find(
    connection: Connection,
    environment_id: EnvironmentId,
    wanted: RunFilter,
    now: datetime,
    *,
    room: int,
    sort: str = "-queued",
    before: UUID | None = None,
    after: UUID | None = None,
    is_counting: bool = False,
    most: int = EXAMINED,
) -> Found:
    """The first `room` runs of a filter with an expression; `is_counting` looks on when they are found."""
    where = conditions_of(environment_id, wanted.without_status() if is_counting else wanted, now)
    order = put_in_order(where, sort, before=before, after=after)
    has_event, has_output = uses(wanted.expression, "event"), uses(wanted.expression, "output")
    # Rows must come as they are found: a plan that joins and sorts everything first looks at the whole environment.
    await connection.execute(_AS_FOUND.format("off"))
    cursor = await connection.cursor(
        f"""select r.id, {_STATE} as state,
              {_cut("e.payload") if has_event else "null, 0"}, {_cut("h.detail") if has_output else "null, 0"}
            from (select r.* from runs r where {where} order by {order} limit {most + 1}) r
            {_EVENT if has_event else ""} {_ENDING if has_output else ""} order by {order}""",
        *where.arguments,
    )
    found = Found()
    judge = _Judge(wanted, now, time.monotonic() + WITHIN_S, most, room)
    while rows := await cursor.fetch(_CHUNK):
        is_over = await asyncio.to_thread(judge.take, found, rows)
        if is_over or (len(found.ids) >= room and not is_counting):
            break
    await connection.execute(_AS_FOUND.format("on"))
    return found


def _cut(column: str) -> str:
    return f"case when octet_length({column}) <= {LARGEST} then {column} end, coalesce(octet_length({column}), 0)"


@dataclass(slots=True)
class _Judge:
    wanted: RunFilter
    now: datetime
    until: float
    most: int
    room: int
    octets: int = 0

    def take(self, found: Found, rows: Sequence[Any]) -> bool:
        """Look at a chunk; whether to stop here."""
        expression = compile_expression(self.wanted.expression, VARIABLES)
        for run_id, state, payload, payload_octets, detail, detail_octets in rows:
            is_late = found.examined >= _ALWAYS and time.monotonic() > self.until
            if found.examined >= self.most or self.octets > MOST_BYTES or is_late:
                found.is_cut = True
                return True
            found.examined += 1
            found.last = run_id
            self.octets += len(payload or "") + len(detail or "")
            if max(payload_octets, detail_octets) > LARGEST:
                found.too_large += 1
                continue
            bindings: dict[str, Any] = {}
            if payload is not None:
                bindings["event"] = _decoded(payload)
            ending = _decoded(detail) if detail is not None else None
            if isinstance(ending, dict) and "output" in ending:
                bindings["output"] = ending["output"]
            if expression.matches(bindings, self.now):
                found.counts[state] += 1
                if len(found.ids) < self.room and self._is_wanted(state):
                    found.ids.append(run_id)
        return False

    def _is_wanted(self, state: str) -> bool:
        choice = self.wanted.status
        return (not choice.wanted or state in choice.wanted) and state not in choice.unwanted


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
