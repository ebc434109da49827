"""Rows of steps, history and items as the facts a timeline is computed from.

History is read as the engine writes it: one row per (run, version, position), of kind `call` for each answered call of
the app and `gateway` for each request that was made for a step.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from app.reads.runs import RunRow
from app.reads.stored import number_of, read_object, text_of
from app.reads.timeline.facts import CALL_KINDS, CallFacts, Facts, ItemFacts, ModelFacts, RunFacts, StepFacts

_CALLS = frozenset({"call", "gateway"})


def facts_of(row: RunRow, steps: Sequence[Any], history: Sequence[Any], items: Sequence[ItemFacts]) -> Facts:
    """The facts of a run; `steps` and `history` are database rows, history in order of version and position."""
    versions: dict[str, int] = {}
    opened: dict[int, list[str]] = defaultdict(list)
    for h in history:
        if h["step_key"] is None:
            continue
        versions[h["step_key"]] = h["version"]
        if h["kind"] == "step.opened":
            opened[h["version"]].append(h["step_key"])
    found = [_step(s) for s in steps]
    calls = [_call(h) for h in history if h["kind"] in _CALLS]
    calls += _saved_while_calling(found, history, calls, items)
    status = row.state if row.is_ended else "queued" if row.state == "queued" else "running"
    return Facts(
        run=RunFacts(
            status, row.function_name, row.version, row.queued_at, row.started_at, row.ended_at, row.original_run
        ),
        steps=found,
        calls=calls,
        items=items,
        now=row.now,
        versions=versions,
        groups={key: version for version, keys in opened.items() if len(keys) > 1 for key in keys},
    )


def _saved_while_calling(
    steps: Sequence[StepFacts], history: Sequence[Any], calls: Sequence[CallFacts], items: Sequence[ItemFacts]
) -> list[CallFacts]:
    """Steps that an app saved (checkpoints) while a call of no particular step ran, as calls of their own.

    Nobody reports when such a step began: it is taken to begin when the call did, or when the step saved before it
    ended. Its attempt follows those that failed in calls of their own.
    """
    inline = {s.key for s in steps if s.kind in CALL_KINDS}
    reported = {(h["version"], h["step_key"]) for h in history if h["kind"] in _CALLS}
    last_attempt = {c.step_key: c.attempt for c in sorted(calls, key=lambda c: c.attempt)}
    around: list[tuple[datetime, datetime | None, float]] = [
        (h["started_at"], h["at"], number_of(read_object(h["detail"]).get("queued_ms")) or 0.0)
        for h in history
        if h["kind"] == "call" and h["step_key"] is None and h["started_at"] is not None
    ]
    around += [(i.leased_at, None, 0.0) for i in items if i.leased_at is not None]
    out: list[CallFacts] = []
    before: datetime | None = None
    for h in history:
        key: str | None = h["step_key"]
        ended: datetime = h["at"]
        if h["kind"] not in {"step.completed", "step.failed"} or key not in inline or (h["version"], key) in reported:
            continue
        within = max((c for c in around if c[0] <= ended and (c[1] is None or ended <= c[1])), key=_begin, default=None)
        if within is None and h["started_at"] is None:
            continue
        began: datetime = h["started_at"] or (within[0] if within is not None else ended)
        is_first = before is None or before <= began
        queued_ms = within[2] if within is not None and is_first and key in last_attempt else 0.0
        out.append(
            CallFacts(
                key,
                None,
                last_attempt.get(key, -1) + 1,
                began if is_first or before is None else before,
                ended,
                "ok" if h["kind"] == "step.completed" else "error",
                queued_ms,
            )
        )
        before = ended
    return out


def _begin(call: tuple[datetime, datetime | None, float]) -> datetime:
    return call[0]


def _step(record: Any) -> StepFacts:
    opts = read_object(record["opts"])
    target = opts.get("function_id")
    event = opts.get("event") or opts.get("signal")
    head = (record["memo_head"] or "").replace(" ", "")
    return StepFacts(
        key=record["step_key"],
        kind=record["kind"],
        name=record["name"],
        state=record["state"],
        created_at=record["created_at"],
        settled_at=record["settled_at"],
        event_name=event if isinstance(event, str) else None,
        target=target if isinstance(target, str) else None,
        is_empty=head in {"null", '{"data":null}'},
    )


def _call(record: Any) -> CallFacts:
    detail = read_object(record["detail"])
    error = detail.get("error")
    error = error if isinstance(error, dict) else {}
    started = record["started_at"] or record["at"]
    ms = number_of(detail.get("ms"))
    status, sdk = detail.get("status"), detail.get("sdk")
    return CallFacts(
        step_key=record["step_key"],
        item_key=record["item_key"],
        attempt=record["attempt"] or 0,
        started_at=started,
        ended_at=record["at"] if ms is None else started + timedelta(milliseconds=ms),
        outcome=str(detail.get("outcome", "ok")),
        queued_ms=number_of(detail.get("queued_ms")) or 0.0,
        retry_after_ms=number_of(detail.get("retry_after_ms")),
        status=status if isinstance(status, int) else None,
        sdk=sdk if isinstance(sdk, str) else None,
        error_name=text_of(error.get("name")),
        error_message=text_of(error.get("message")),
        error_stack=text_of(error.get("stack")),
        request_id=text_of(detail.get("request_id")),
        model=_model(detail.get("ai")),
    )


def _model(told: Any) -> ModelFacts | None:
    if not isinstance(told, dict):
        return None
    read, written = (told.get(name) for name in ("input_tokens", "output_tokens"))
    return ModelFacts(
        text_of(told.get("provider")),
        text_of(told.get("model")),
        read if isinstance(read, int) else None,
        written if isinstance(written, int) else None,
    )
