"""What each method of `step` asks for, written once for both kinds of handlers."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from stepwell._durations import Duration, moment_to_wire, to_wire
from stepwell._event import EventMessage, Sendable, received, to_message
from stepwell._replay import Wish

#: True while a step's own code runs, where no further step may be used.
inside_step: ContextVar[bool] = ContextVar("stepwell_inside_step", default=False)

#: True in the branches of a race group.
in_race: ContextVar[bool] = ContextVar("stepwell_in_race", default=False)

_ULID_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

#: A wait may end at a moment or after a span.
Until = Duration | datetime

#: Sends messages under a seed and gives their ids; blocking.
Send = Callable[..., list[str]]


def run(step_id: str, work: Callable[..., Any], args: tuple[Any, ...]) -> Wish:
    """Execute `work(*args)` once and remember what it returned."""
    if not callable(work):
        raise TypeError(
            f"step.run({step_id!r}, …) needs the function itself and its arguments, not its result: "
            f"write step.run({step_id!r}, charge, order) instead of step.run({step_id!r}, charge(order))."
        )
    return Wish(_checked(step_id), "StepRun", opts={"type": "step.run"}, work=work, args=args)


def sleep(step_id: str, span: Duration) -> Wish:
    """Wake after a span. Server generations differ in where they look for it, so it is sent in both places."""
    wire = to_wire(span)
    return Wish(_checked(step_id), "Sleep", name=wire, opts={"duration": wire}, shape=_nothing)


def sleep_until(step_id: str, moment: datetime) -> Wish:
    """Wake at a moment; a past one wakes at once."""
    wire = moment_to_wire(moment)
    return Wish(_checked(step_id), "Sleep", name=wire, opts={"duration": wire}, shape=_nothing)


def wait_for_event(step_id: str, event: str, timeout: Until, if_: str | None) -> Wish:
    """Wake when a matching event arrives, or with None when time is up."""
    opts = {"event": event, "timeout": _until(timeout), "if": if_}
    return Wish(_checked(step_id), "WaitForEvent", name=event, opts=opts, shape=_event_or_none)


def invoke(step_id: str, function_id: str, payload: Mapping[str, Any], timeout: Until | None) -> Wish:
    """Run another function and wait for its result."""
    opts: dict[str, Any] = {"function_id": function_id, "payload": {"data": dict(payload)}}
    if timeout is not None:
        opts["timeout"] = _until(timeout)
    return Wish(_checked(step_id), "InvokeFunction", opts=opts)


def send_event(step_id: str, events: Sendable | Sequence[Sendable], send: Send, run_id: str) -> Wish:
    """Send events as a step.

    The event ids are derived from the run and the step, so a step that is executed again after a crash sends the same
    events, and the server starts nothing twice.
    """
    messages = to_messages(events)

    def work(hashed_id: str) -> dict[str, list[str]]:
        return {"ids": send(messages, seed=derive_seed(run_id, hashed_id))}

    return Wish(
        _checked(step_id),
        "StepRun",
        name="sendEvent",
        opts={"type": "step.sendEvent"},
        work=work,
        wants_key=True,
        shape=_event_ids,
    )


def to_messages(events: Sendable | Sequence[Sendable]) -> list[EventMessage]:
    """Accept one event or several."""
    several = [events] if isinstance(events, (EventMessage, Mapping)) else events
    return [to_message(event) for event in several]


def derive_seed(run_id: str, hashed_id: str) -> str:
    """The event id seed of a step: the run's own time and ten bytes of a hash (protocol 5.5)."""
    millis = 0
    for digit in run_id[:10].upper():
        millis = millis * 32 + max(0, _ULID_DIGITS.find(digit))
    digest = hashlib.sha256(f"{run_id}/{hashed_id}".encode()).digest()
    return f"{max(1, millis)},{base64.b64encode(digest[:10]).decode()}"


def _checked(step_id: str) -> str:
    if not step_id:
        raise ValueError("A step needs an id: a text that says what the step does, such as 'charge-payment'.")
    return step_id


def _until(timeout: Until) -> str:
    return moment_to_wire(timeout) if isinstance(timeout, datetime) else to_wire(timeout)


def _nothing(_: Any) -> None:
    return None


def _event_or_none(memo: Any) -> EventMessage | None:
    return received(memo) if isinstance(memo, dict) else None


def _event_ids(memo: Any) -> list[str]:
    ids = memo.get("ids", []) if isinstance(memo, dict) else memo
    return list(ids) if isinstance(ids, list) else [ids]
