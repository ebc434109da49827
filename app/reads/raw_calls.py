"""One step's calls as they went over the wire: request and answer, with headers. One statement.

The request is put together again from the same rows and by the same code that made it (`domain.protocol.call`), so nothing
is stored for it; its signature and its generation are not known any more and are left out. Of an answer history keeps
status, SDK, time and request id, and of a failure its headers and the first 2 KB of its body too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.domain.errors import Refused
from app.domain.ids import EnvironmentId, RunId, derive_item_id, to_ulid
from app.domain.protocol.addresses import call_url
from app.domain.protocol.call import DISCOVERY, call_body, call_headers
from app.domain.protocol.function_config import read_stored
from app.reads.stored import indented, read_object, text_of
from app.store.db import Connection

#: Calls shown of one step, the newest, and characters shown of each body.
MOST = 5
SHOWN = 16_384
#: Octets of memos put into a request that is put together again; what comes later in the order of memos is left out.
_MOST_MEMOS = 131_072
_MOST_EVENTS = 20


@dataclass(frozen=True, slots=True)
class RawCall:
    """One call, `number` from 1. `method` is POST; the request is None where its function is gone.

    `answer_body` is None where none was kept. `more` is what else history knows of the call.
    """

    number: int
    url: str
    request_headers: tuple[tuple[str, str], ...]
    request_body: str | None
    status: int | None
    answer_headers: tuple[tuple[str, str], ...]
    answer_body: str | None
    more: tuple[tuple[str, str], ...]


async def load_raw_calls(
    connection: Connection, environment_id: EnvironmentId, run_id: RunId, key: str, server_kind: str
) -> tuple[RawCall, ...]:
    """The newest `MOST` calls of a step, the newest first; () for a step without calls of its own."""
    record = await connection.fetchrow(
        f"""select r.request_version, r.is_planned, r.max_attempts, r.function_id, f.slug, f.config, v.name as environment,
              e.payload,
              (select json_agg(json_build_array(s.step_key, s.memo, s.settled_at) order by s.memo_order) from
                (select s.step_key, s.memo, s.settled_at, s.memo_order,
                   sum(octet_length(s.memo)) over (order by s.memo_order) as total
                 from steps s where s.run_id = r.id and s.environment_id = $2 and s.memo_order is not null) s
               where s.total <= {_MOST_MEMOS})::text as memos,
              (select json_agg(x.payload order by x.position) from (select m.payload, b.position from run_events b
                 join events m on m.environment_id = b.environment_id and m.id = b.event_id and m.received_at = b.received_at
                 where b.run_id = r.id order by b.position limit {_MOST_EVENTS}) x)::text as batch,
              (select json_agg(json_build_array(h.number, h.item_key, h.attempt, h.started_at, h.detail)) from
                (select row_number() over (order by version, position) as number, item_key, attempt,
                   coalesce(started_at, at) as started_at, left(detail, 65536) as detail
                 from history where run_id = $1 and environment_id = $2 and step_key = $3 and kind = 'call'
                 order by version desc, position desc limit {MOST}) h)::text as calls
            from runs r join environments v on v.id = r.environment_id
            left join functions f on f.id = r.function_id and f.environment_id = r.environment_id
            left join events e on e.environment_id = r.environment_id and e.id = r.event_id and e.received_at = r.event_received_at
            where r.id = $1 and r.environment_id = $2""",
        run_id,
        environment_id,
        key,
    )
    if record is None or record["calls"] is None:
        return ()
    memos = [
        (step, memo, datetime.fromisoformat(at) if at else None)
        for step, memo, at in json.loads(record["memos"] or "[]")
    ]
    return tuple(
        _call(
            record, memos, run_id, server_kind, number, item_key or "", attempt or 0, datetime.fromisoformat(at), detail
        )
        for number, item_key, attempt, at, detail in json.loads(record["calls"])
    )


def _call(
    record: Any,
    memos: Sequence[tuple[str, str, datetime | None]],
    run_id: RunId,
    server_kind: str,
    number: int,
    item_key: str,
    attempt: int,
    started_at: datetime,
    detail: str | None,
) -> RawCall:
    told = read_object(detail)
    request_id = text_of(told.get("request_id")) or ""
    step_id = item_key.removeprefix("step:") if item_key.startswith("step:") else DISCOVERY
    url, body, headers = "", None, {}
    try:
        url = call_url(read_stored(record["config"].encode()).url, record["slug"], step_id)
    except (AttributeError, Refused, msgspec.MsgspecError):
        # The function was removed, or nobody can read its configuration any more.
        url = ""
    if url and record["payload"]:
        known = [(key, memo.encode()) for key, memo, at in memos if at is not None and at <= started_at]
        events = [record["payload"], *json.loads(record["batch"] or "[]")]
        item_id = str(derive_item_id(run_id, item_key))
        version = record["request_version"] if known else -1
        body = call_body(
            run_id=to_ulid(run_id),
            function_id=str(UUID(str(record["function_id"]))),
            item_id=item_id,
            request_id=request_id,
            generation_id=0,
            step_id=step_id,
            attempt=attempt,
            max_attempts=record["max_attempts"],
            is_planned=record["is_planned"] and bool(known),
            environment=record["environment"],
            stack=tuple(key for key, _ in known),
            event=record["payload"].encode(),
            events=[text.encode() for text in events],
            steps=known,
            version=version,
            use_api=False,
        )
        headers = call_headers(
            run_id=to_ulid(run_id),
            request_id=request_id,
            item_id=item_id,
            generation_id=0,
            step_id=step_id,
            version=version,
            server_kind="dev" if server_kind == "dev" else "cloud",
        )
    answer = told.get("answer")
    answer = answer if isinstance(answer, dict) else {}
    kept = answer.get("headers")
    found: Mapping[str, Any] = kept if isinstance(kept, dict) else {}
    sdk = text_of(told.get("sdk"))
    if not found and sdk:
        found = {"x-inngest-sdk": sdk}
    status = told.get("status")
    return RawCall(
        number,
        url,
        tuple(headers.items()),
        None if body is None else indented(body.decode()),
        status if isinstance(status, int) else None,
        tuple((name, str(value)) for name, value in found.items()),
        text_of(answer.get("body")),
        tuple(_more(told)),
    )


def _more(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What history says of a call beside its answer, in words."""
    pairs = []
    for name, words, unit in (("ms", "Took", " ms"), ("queued_ms", "Waited in the queue", " ms"), ("redeliveries", "Given out again", " times"), ("retry_after_ms", "Asked to wait", " ms")):  # fmt: skip
        value = told.get(name)
        if isinstance(value, (int, float)) and value:
            pairs.append((words, f"{value:,.0f}{unit}"))
    if told.get("held_back") is True:
        pairs.append(("Held back", "the app did not answer other calls"))
    return pairs
