"""The events Stepwell itself publishes about runs (protocol section 6), spliced from stored canonical JSON."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from app.domain.ids import EventId, derive_event_id, millis, to_ulid
from app.domain.run.effects import FinishRun, InvokeFunction
from app.domain.run.state import Run, RunStatus
from app.engine.hot import Facts

FINISHED = "inngest/function.finished"
FAILED = "inngest/function.failed"
CANCELLED = "inngest/function.cancelled"
INVOKED = "inngest/function.invoked"

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
    out = [_event(derive_event_id(run.id, "finished", now), FINISHED, None, ts, data, correlation)]
    # Every invoke whose event went into the batch hears of its end, each by an event of its own.
    for n, more in enumerate(_correlations(facts.events[1:]), 1):
        own = [field for field in fields if field[0] != b"correlation_id"]
        own.insert(1, (b"correlation_id", _text(more)))
        body = b"{" + b",".join(b'"' + k + b'":' + v for k, v in own) + b"}"
        out.append(_event(derive_event_id(run.id, f"finished:{n}", now), FINISHED, None, ts, body, more))
    if finish.status == RunStatus.FAILED:
        out.append(_event(derive_event_id(run.id, "failed", now), FAILED, run_text, ts, data, None))
    elif finish.status == RunStatus.CANCELLED:
        out.append(_event(derive_event_id(run.id, "cancelled", now), CANCELLED, run_text, ts, data, None))
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
    client_id = None
    if "id" in payload:
        decoded = msgspec.json.decode(payload["id"])
        client_id = decoded if isinstance(decoded, str) and decoded else None
    return _event(
        derive_event_id(run.id, f"invoke:{invoke.step_key}", now), INVOKED, client_id, millis(now), body, None
    )


def _event(
    event_id: EventId, name: str, client_id: str | None, ts: int, data: bytes, correlation: str | None
) -> InternalEvent:
    payload = (
        b'{"data":'
        + data
        + b',"id":'
        + _text(client_id or to_ulid(event_id))
        + b',"name":'
        + _text(name)
        + b',"ts":'
        + str(ts).encode()
        + b',"user":{}}'
    )
    return InternalEvent(event_id, name, client_id, ts, payload, correlation)


def _error_of_event(error: bytes | None) -> bytes:
    """The `error` object of failed and finished events: `error`, `message`, `name` are always there (section 6)."""
    try:
        found = msgspec.json.decode(error or b"{}")
    except msgspec.DecodeError:
        found = {}
    if not isinstance(found, dict):
        found = {"message": str(found)}
    message = str(found.get("message") or "Function execution error")
    found["message"] = message
    found["name"] = str(found.get("name") or "Error")
    found["error"] = str(found.get("error") or message)
    return msgspec.json.encode(found, order="sorted")


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")
