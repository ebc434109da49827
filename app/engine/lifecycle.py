"""The events Stepwell itself publishes about runs (protocol section 6), spliced from stored canonical JSON."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from app.domain import canonical
from app.domain.errors import EventRefused, JsonRefused
from app.domain.event import INVOKED, client_id_of, event_meta
from app.domain.ids import EventId, derive_event_id, millis, to_ulid
from app.domain.run.effects import AddDefer, FinishRun, InvokeFunction
from app.domain.run.state import Run, RunStatus
from app.engine.hot import Facts

FINISHED = "inngest/function.finished"
FAILED = "inngest/function.failed"
DEFERRED = "inngest/deferred.schedule"
CANCELLED = "inngest/function.cancelled"

_STATUS_WORD = {RunStatus.COMPLETED: b"Completed", RunStatus.FAILED: b"Failed", RunStatus.CANCELLED: b"Cancelled"}
_text = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class InternalEvent:
    """One event to store and to put into the inbox. `payload` is canonical JSON of the whole event."""

    id: EventId
    name: str
    client_id: str | None
    ts: int
    payload: bytes
    #: `{parent run}.{step}` of the invoke this ends, on finished events only.
    correlation: str | None = None


def events_of_end(run: Run, facts: Facts, finish: FinishRun, now: datetime) -> list[InternalEvent]:
    """Finished, and failed or cancelled beside it. Quiet runs publish nothing (recursion guard)."""
    if run.is_quiet or finish.status not in _STATUS_WORD:
        return []
    run_text = to_ulid(run.id)
    correlation = (
        f"{to_ulid(facts.parent_run_id)}.{facts.parent_step_key}"
        if facts.parent_run_id and facts.parent_step_key
        else None
    )
    fields: list[tuple[bytes, bytes]] = [(b"_inngest", b'{"status":"' + _STATUS_WORD[finish.status] + b'"}')]
    if correlation is not None:
        fields.append((b"correlation_id", _text(correlation)))
    if finish.status == RunStatus.FAILED:
        fields.append((b"error", _error_of_event(finish.output)))
    fields += [
        (b"event", facts.event),
        (b"events", b"[" + b",".join(facts.events) + b"]"),
        (b"function_id", _text(facts.function_slug)),
    ]
    if finish.status == RunStatus.COMPLETED:
        fields.append((b"result", finish.output or b"null"))
    fields.append((b"run_id", _text(run_text)))
    # Keys are in canonical order as written above.
    data = b"{" + b",".join(b'"' + k + b'":' + v for k, v in fields) + b"}"
    ts = millis(now)
    meta = _sessions(facts.event)
    out = [_event(derive_event_id(run.id, "finished", now), FINISHED, None, ts, data, correlation, meta=meta)]
    # Every invoke whose event went into the batch hears of its end, each by an event of its own.
    for n, more in enumerate(_correlations(facts.events[1:]), 1):
        own = [field for field in fields if field[0] != b"correlation_id"]
        own.insert(1, (b"correlation_id", _text(more)))
        body = b"{" + b",".join(b'"' + k + b'":' + v for k, v in own) + b"}"
        out.append(_event(derive_event_id(run.id, f"finished:{n}", now), FINISHED, None, ts, body, more, meta=meta))
    if finish.status == RunStatus.FAILED:
        out.append(_event(derive_event_id(run.id, "failed", now), FAILED, run_text, ts, data, meta=meta))
    elif finish.status == RunStatus.CANCELLED:
        out.append(_event(derive_event_id(run.id, "cancelled", now), CANCELLED, run_text, ts, data, meta=meta))
    return out


def _correlations(events: tuple[bytes, ...]) -> list[str]:
    """The invokes behind the further events of a batch."""
    found: list[str] = []
    for event in events:
        if b'"correlation_id"' in event:
            decoded = msgspec.json.decode(event)
            meta = decoded["data"].get("_inngest") if decoded.get("name") == INVOKED else None
            if isinstance(meta, dict) and isinstance(meta.get("correlation_id"), str):
                found.append(meta["correlation_id"])
    return found


def event_of_invoke(run: Run, facts: Facts, invoke: InvokeFunction, now: datetime) -> InternalEvent:
    """The invoked event of a child: the payload's data with the `_inngest` metadata beside it."""
    payload = msgspec.json.decode(invoke.payload, type=dict[str, msgspec.Raw])
    try:
        data = msgspec.json.decode(payload.get("data") or b"{}", type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        data = {}
    meta = {
        "correlation_id": f"{to_ulid(run.id)}.{invoke.step_key}",
        "fn_id": invoke.function,
        "name": invoke.name,
        "source_app_id": str(facts.app_id),
        "source_fn_id": str(facts.function_id),
    }
    data["_inngest"] = msgspec.Raw(msgspec.json.encode(meta, order="sorted"))
    body = b"{" + b",".join(_text(k) + b":" + bytes(data[k]) for k in sorted(data, key=_utf16)) + b"}"
    rest = {key: canonical.decode(bytes(payload[key])) for key in ("id", "user", "v", "meta") if key in payload}
    try:
        client_id = client_id_of(rest.get("id"))
    except EventRefused:
        client_id = None  # the child is worth more than its idempotency
    user, sessions, v = rest.get("user"), rest.get("meta"), rest.get("v")
    return _event(
        derive_event_id(run.id, f"invoke:{invoke.step_key}", now),
        INVOKED,
        client_id,
        millis(now),
        body,
        user=canonical.encode(user) if isinstance(user, dict) else b"{}",
        meta=event_meta(sessions) if isinstance(sessions, dict) else None,
        v=v if isinstance(v, str) else None,
    )


def event_of_defer(run: Run, facts: Facts, defer: AddDefer, now: datetime) -> InternalEvent:
    """The event that starts a deferred function: its input with the `_inngest` metadata its trigger asks for (section 6)."""
    meta = {
        "fn_slug": defer.function,
        "parent_app_id": str(facts.app_id),
        "parent_fn_id": str(facts.function_id),
        "parent_fn_slug": facts.function_slug,
        "parent_run_id": to_ulid(run.id),
    }
    data = canonical.encode({**canonical.decode(defer.input), "_inngest": meta})
    sessions = event_meta(canonical.decode(defer.meta)) if defer.meta is not None else None
    event_id = derive_event_id(run.id, f"defer:{defer.key}", now)
    return _event(event_id, DEFERRED, None, millis(now), data, meta=sessions)


def _event(
    event_id: EventId,
    name: str,
    client_id: str | None,
    ts: int,
    data: bytes,
    correlation: str | None = None,
    *,
    user: bytes = b"{}",
    meta: bytes | None = None,
    v: str | None = None,
) -> InternalEvent:
    parts = [b'{"data":', data, b',"id":', _text(client_id or to_ulid(event_id))]
    if meta is not None:
        parts += [b',"meta":', meta]
    parts += [b',"name":', _text(name), b',"ts":%d,"user":' % ts, user]
    if v is not None:
        parts += [b',"v":', _text(v)]
    payload = b"".join((*parts, b"}"))
    return InternalEvent(event_id, name, client_id, ts, payload, correlation)


def _sessions(event: bytes) -> bytes | None:
    """The sessions of the triggering event as the `meta` of what its run publishes (section 6); None for most."""
    if b'"sessions":' not in event:
        return None
    meta = msgspec.json.decode(event, type=dict[str, msgspec.Raw]).get("meta")
    if meta is None:
        return None
    sessions = msgspec.json.decode(meta, type=dict[str, msgspec.Raw]).get("sessions")
    return None if sessions is None else b'{"sessions":' + bytes(sessions) + b"}"


def _error_of_event(error: bytes | None) -> bytes:
    """The `error` object of failed and finished events: `error`, `message`, `name` are always there (section 6)."""
    try:
        found = canonical.decode(error or b"{}")
    except JsonRefused:
        found = {}
    if not isinstance(found, dict):
        found = {"message": str(found)}
    message = str(found.get("message") or "Function execution error")
    found["message"] = message
    found["name"] = str(found.get("name") or "Error")
    found["error"] = str(found.get("error") or message)
    return canonical.encode(found)


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")
