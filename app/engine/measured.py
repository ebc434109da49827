"""Counts and traces what the engine has committed: called with entries that won, never before.

Event → run → call is one trace: its id is that of the event (the first of a batch), the span of a run and of a call follow
from their ids. So no process needs to hand anything to another, and an app is told its place by `traceparent`.
"""

import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from app import telemetry
from app.domain.event import NewEvent
from app.domain.ids import RunId, to_ulid
from app.domain.run.effects import FinishRun, SaveStep
from app.engine.apply import Entry
from app.engine.hot import HotRun, LeasedItem

_FAILED_FROM = 400


def committed(entries: Iterable[Entry]) -> None:
    """Count what these entries settled and ended."""
    for entry in entries:
        for effect in entry.effects:
            if isinstance(effect, SaveStep):
                telemetry.count("stepwell_steps_settled_total", 1, str(effect.state))
            elif isinstance(effect, FinishRun):
                telemetry.count("stepwell_runs_ended_total", 1, str(effect.status))
                if telemetry.spans is not None:
                    _run_span(entry, effect)


def called(hot: HotRun, item: LeasedItem, status: int, millis: float, request_id: str) -> None:
    """Count one call to an app; `status` is 0 when nobody answered."""
    is_error = status == 0 or status >= _FAILED_FROM
    outcome = "unreachable" if status == 0 else "error" if is_error else "ok"
    telemetry.count("stepwell_calls_total", 1, outcome)
    telemetry.observe("stepwell_call_seconds", millis / 1000)
    if telemetry.spans is None:
        return
    now = time.time()
    telemetry.add_span(
        telemetry.Span(
            hot.facts.event_id.bytes,
            call_span(item),
            run_span(hot.run.id),
            f"call {hot.facts.function_slug}",
            now - millis / 1000,
            now,
            {
                "stepwell.run": to_ulid(hot.run.id),
                "stepwell.environment": str(hot.facts.scope.environment_id),
                "stepwell.step": item.step_key or "",
                "stepwell.attempt": item.attempt,
                "stepwell.request": request_id,
                "http.response.status_code": status,
            },
            is_error,
        )
    )


def received(environment_id: UUID, ids: Sequence[UUID], events: Sequence[NewEvent], source: str, began: float) -> None:
    """Count the events of one request; `began` is Unix seconds."""
    telemetry.count("stepwell_events_received_total", len(ids), source)
    if telemetry.spans is None:
        return
    now = time.time()
    for event_id, event in zip(ids, events, strict=True):
        telemetry.add_span(
            telemetry.Span(
                event_id.bytes,
                event_span(event_id),
                None,
                f"event {event.name}",
                began,
                now,
                {"stepwell.event": to_ulid(event_id), "stepwell.environment": str(environment_id)},
            )
        )


def event_span(event_id: UUID) -> bytes:
    """The span of an event."""
    return telemetry.span_id("event", str(event_id))


def run_span(run_id: RunId) -> bytes:
    """The span of a run."""
    return telemetry.span_id("run", str(run_id))


def call_span(item: LeasedItem) -> bytes:
    """The span of one call: every lease of an item is another."""
    return telemetry.span_id("call", str(item.id), str(item.fence))


def trace_header(hot: HotRun, item: LeasedItem) -> str | None:
    """The `traceparent` of a call, or none when nobody collects."""
    if telemetry.spans is None:
        return None
    return telemetry.traceparent(hot.facts.event_id.bytes, call_span(item))


def _run_span(entry: Entry, end: FinishRun) -> None:
    run, facts = entry.run, entry.facts
    telemetry.add_span(
        telemetry.Span(
            facts.event_id.bytes,
            run_span(run.id),
            event_span(facts.event_id),
            f"run {facts.function_slug}",
            facts.queued_at.timestamp(),
            time.time(),
            {
                "stepwell.run": to_ulid(run.id),
                "stepwell.environment": str(facts.scope.environment_id),
                "stepwell.status": str(end.status),
                "stepwell.error": end.code or "",
            },
            str(end.status) == "failed",
        )
    )
