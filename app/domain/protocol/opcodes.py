"""The ops by which an SDK reports steps (protocol section 12), as values the state machine can read.

`read_ops` turns the decoded list of an answer or a checkpoint into them, leniently where SDKs differ and strictly where a
mistake would hang a run. Keys it does not know are ignored and not kept: TypeScript v4 leaks many (12.1).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from app.domain import canonical
from app.domain.durations import parse_when
from app.domain.errors import DurationRefused, OpsRefused
from app.domain.limits import (
    DEFAULT_LONG_WAIT,
    MAX_OPS_PER_ANSWER,
    MAX_OUTPUT_BYTES,
    MAX_SLEEP,
    MAX_STEP_ID_CHARS,
    MAX_STEP_NAME_CHARS,
)
from app.domain.protocol.error_object import app_error


class OpCode(StrEnum):
    """Names on the wire. `StepNotFound` is never sent over HTTP by the exercised SDKs (12.2)."""

    NONE = "None"
    STEP = "Step"
    STEP_RUN = "StepRun"
    STEP_ERROR = "StepError"
    STEP_FAILED = "StepFailed"
    STEP_PLANNED = "StepPlanned"
    SLEEP = "Sleep"
    WAIT_FOR_EVENT = "WaitForEvent"
    WAIT_FOR_SIGNAL = "WaitForSignal"
    INVOKE_FUNCTION = "InvokeFunction"
    AI_GATEWAY = "AIGateway"
    GATEWAY = "Gateway"
    RUN_COMPLETE = "RunComplete"
    SYNC_RUN_COMPLETE = "SyncRunComplete"
    DISCOVERY_REQUEST = "DiscoveryRequest"
    DEFER_ADD = "DeferAdd"
    DEFER_ABORT = "DeferAbort"
    STEP_NOT_FOUND = "StepNotFound"


#: Ops that end the run.
ENDS = frozenset({OpCode.RUN_COMPLETE, OpCode.SYNC_RUN_COMPLETE})
#: Ops that never count as a step and never make a list parallel (12.4).
LAZY = frozenset({OpCode.NONE, OpCode.DEFER_ADD, OpCode.DEFER_ABORT})


@dataclass(frozen=True, slots=True)
class Op:
    """One decoded op. Payload fields are canonical JSON bytes, spliced later and never decoded again.

    `wake_at`/`wake_after`: a sleep's end or a wait's expiry, absolute or relative, whichever the SDK sent (12.3);
    both None when the op has none. `memo` is the value the step will have in `steps` (protocol 10.3), already
    wrapped: `{"data":…}` for a result, `{"error":…}` for an error; None for ops that carry no result yet.

    `payload` holds the parts of an invoked event, or the run's unwrapped result (`RunComplete`, `SyncRunComplete`).
    `function` is a slug or a UUID as text. `raw_opts` are the op's options as sent, None for ops with a result and where
    there are none. Texts hold no NUL, so they can be stored.
    """

    code: OpCode
    id: str
    name: str
    step_type: str | None = None
    memo: bytes | None = None
    input: bytes | None = None
    wake_at: datetime | None = None
    wake_after: timedelta | None = None
    event: str | None = None
    expression: str | None = None
    signal: str | None = None
    conflict: str | None = None
    function: str | None = None
    payload: bytes | None = None
    is_race: bool = False
    raw_opts: bytes | None = None


#: Ops a checkpoint may hold (17.2).
CHECKPOINTABLE = frozenset({OpCode.STEP, OpCode.STEP_RUN, OpCode.STEP_PLANNED, OpCode.DEFER_ADD, OpCode.DEFER_ABORT})

#: SHA-1 hex in every known SDK. Others are accepted as long as they need no escape in JSON, a URL or a log line.
_STEP_ID = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_STEP_ID_CHARS}}}")
_AT_ONCE = timedelta()
#: Ops whose id names no step, so that it may occur twice.
_NO_STEP = LAZY | ENDS | {OpCode.DISCOVERY_REQUEST}


def read_ops(value: object, now: datetime) -> tuple[Op, ...]:
    """The ops of a decoded list, in order; a single object counts as a list of one (SDKs before 1.0).

    `now` is only compared with instants that SDKs name. Raises `OpsRefused`: `app_response_invalid` (may be tried
    again), `output_too_large`, `too_many_steps`, `timeout_too_long`, `duplicate_step`, `step_not_found`.
    """
    items: list[Any]
    if isinstance(value, list):
        items = value
    elif isinstance(value, dict):
        items = [value]
    else:
        raise _unusable("The answer is not a list of ops.")
    if len(items) > MAX_OPS_PER_ANSWER:
        raise OpsRefused(
            "too_many_steps",
            f"The answer holds {len(items)} ops; {MAX_OPS_PER_ANSWER} are allowed.",
            name="InngestErrFunctionOverflowed",
            is_fatal=True,
        )
    ops = tuple([_read_op(item, now) for item in items])
    if len(ops) > 1:
        _check_ids(ops)
    return ops


def _check_ids(ops: tuple[Op, ...]) -> None:
    ids = [op.id for op in ops if op.code not in _NO_STEP]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise OpsRefused(
            "duplicate_step", f"The answer reports step {twice} more than once.", name="duplicate_step", is_fatal=True
        )


def _read_op(item: object, now: datetime) -> Op:
    if not isinstance(item, dict):
        raise _unusable("An op is not an object.")
    code = item.get("op")
    reader = _READERS.get(code) if isinstance(code, str) else None
    if reader is None:
        raise _unusable(f"The op {str(code)[:40]!r} is not known.")
    step_id = item.get("id")
    if not isinstance(step_id, str) or _STEP_ID.fullmatch(step_id) is None:
        if code not in LAZY or step_id:
            raise _unusable(f"An op {code} has no usable step id.")
        step_id = ""
    opts = item.get("opts")
    return reader(item, opts if isinstance(opts, dict) else {}, step_id, now)


_Item = dict[str, Any]


def _read_result(item: _Item, opts: _Item, step_id: str, _now: datetime) -> Op:
    memo = canonical.encode(item.get("data"))
    _check_size(memo, "output")
    return Op(
        OpCode.STEP_RUN,
        step_id,
        _name(item),
        step_type=_text(opts.get("type")) if opts else None,
        memo=b'{"data":%s}' % memo,
        input=_input(opts) if opts else None,
        is_race=_is_race(opts) if opts else False,
    )


def _read_legacy_step(item: _Item, opts: _Item, step_id: str, _now: datetime) -> Op:
    # Its data is wrapped already.
    memo = canonical.encode(item.get("data"))
    _check_size(memo, "output")
    return Op(OpCode.STEP, step_id, _name(item), step_type=_text(opts.get("type")), memo=memo)


def _read_error(code: OpCode) -> Callable[[_Item, _Item, str, datetime], Op]:
    def read(item: _Item, opts: _Item, step_id: str, _now: datetime) -> Op:
        # ts repeats the error of a failed step as its data; a null error is none (12.1).
        value = item.get("error")
        error = app_error(item.get("data") if value is None else value, fallback="The step failed without a message.")
        return Op(
            code,
            step_id,
            _name(item),
            step_type=_text(opts.get("type")),
            memo=b'{"error":%s}' % error,
            input=_input(opts),
            is_race=_is_race(opts),
        )

    return read


def _read_opening(code: OpCode) -> Callable[[_Item, _Item, str, datetime], Op]:
    """Ops that say no more than their options: planned steps, gateways, defers, discovery requests."""

    def read(item: _Item, opts: _Item, step_id: str, _now: datetime) -> Op:
        return Op(
            code,
            step_id,
            _name(item),
            step_type=_text(opts.get("type")),
            input=_input(opts),
            is_race=_is_race(opts),
            raw_opts=_raw(opts),
        )

    return read


def _read_complete(code: OpCode) -> Callable[[_Item, _Item, str, datetime], Op]:
    def read(item: _Item, _opts: _Item, step_id: str, _now: datetime) -> Op:
        value = item.get("data")
        if code is OpCode.SYNC_RUN_COMPLETE and isinstance(value, dict) and value.keys() == {"data"}:
            value = value["data"]  # the answer of a durable endpoint comes wrapped (12.2)
        result = canonical.encode(value)
        _check_size(result, "output")
        return Op(code, step_id, _name(item), payload=result)

    return read


def _read_sleep(item: _Item, opts: _Item, step_id: str, now: datetime) -> Op:
    # go says the length in opts and has the step id as name, so the order matters (12.3).
    length = opts.get("duration")
    if not isinstance(length, str):
        length = item.get("name")
    at, after = _when(length, now, "sleep", when_empty=_AT_ONCE)
    return Op(
        OpCode.SLEEP,
        step_id,
        _display(item),
        step_type=_text(opts.get("type")),
        wake_at=at,
        wake_after=after,
        is_race=_is_race(opts),
        raw_opts=_raw(opts),
    )


def _read_wait(item: _Item, opts: _Item, step_id: str, now: datetime) -> Op:
    event = _text(opts.get("event")) or _text(item.get("name"))
    if not event:
        raise _unusable("An op WaitForEvent names no event.")
    at, after = _when(opts.get("timeout"), now, "wait", when_empty=_AT_ONCE)
    return Op(
        OpCode.WAIT_FOR_EVENT,
        step_id,
        _display(item),
        step_type=_text(opts.get("type")),
        wake_at=at,
        wake_after=after,
        event=event,
        expression=_text(opts.get("if")) or None,
        is_race=_is_race(opts),
        raw_opts=_raw(opts),
    )


def _read_signal(item: _Item, opts: _Item, step_id: str, now: datetime) -> Op:
    signal = _text(opts.get("signal")) or _text(item.get("name"))
    if not signal:
        raise _unusable("An op WaitForSignal names no signal.")
    at, after = _when(opts.get("timeout"), now, "wait", when_empty=DEFAULT_LONG_WAIT)
    return Op(
        OpCode.WAIT_FOR_SIGNAL,
        step_id,
        _display(item),
        step_type=_text(opts.get("type")),
        wake_at=at,
        wake_after=after,
        signal=signal,
        conflict="replace" if opts.get("conflict") == "replace" else "fail",
        is_race=_is_race(opts),
        raw_opts=_raw(opts),
    )


def _read_invoke(item: _Item, opts: _Item, step_id: str, now: datetime) -> Op:
    function = _text(opts.get("function_id"))
    if not function:
        raise _unusable("An op InvokeFunction names no function.")
    payload = opts.get("payload")
    text = canonical.encode(payload) if isinstance(payload, dict) else b"{}"
    _check_size(text, "input")
    at, after = _when(opts.get("timeout"), now, "wait", when_empty=DEFAULT_LONG_WAIT)
    return Op(
        OpCode.INVOKE_FUNCTION,
        step_id,
        _name(item),
        step_type=_text(opts.get("type")),
        wake_at=at,
        wake_after=after,
        function=function,
        payload=text,
        is_race=_is_race(opts),
        raw_opts=_raw(opts),
    )


def _read_missing(_item: _Item, _opts: _Item, step_id: str, _now: datetime) -> Op:
    raise OpsRefused("step_not_found", f"The app does not find step {step_id}.", name="StepNotFound")


_READERS: dict[str, Callable[[_Item, _Item, str, datetime], Op]] = {
    OpCode.NONE: _read_opening(OpCode.NONE),
    OpCode.STEP: _read_legacy_step,
    OpCode.STEP_RUN: _read_result,
    OpCode.STEP_ERROR: _read_error(OpCode.STEP_ERROR),
    OpCode.STEP_FAILED: _read_error(OpCode.STEP_FAILED),
    OpCode.STEP_PLANNED: _read_opening(OpCode.STEP_PLANNED),
    OpCode.SLEEP: _read_sleep,
    OpCode.WAIT_FOR_EVENT: _read_wait,
    OpCode.WAIT_FOR_SIGNAL: _read_signal,
    OpCode.INVOKE_FUNCTION: _read_invoke,
    OpCode.AI_GATEWAY: _read_opening(OpCode.AI_GATEWAY),
    OpCode.GATEWAY: _read_opening(OpCode.GATEWAY),
    OpCode.RUN_COMPLETE: _read_complete(OpCode.RUN_COMPLETE),
    OpCode.SYNC_RUN_COMPLETE: _read_complete(OpCode.SYNC_RUN_COMPLETE),
    OpCode.DISCOVERY_REQUEST: _read_opening(OpCode.DISCOVERY_REQUEST),
    OpCode.DEFER_ADD: _read_opening(OpCode.DEFER_ADD),
    OpCode.DEFER_ABORT: _read_opening(OpCode.DEFER_ABORT),
    OpCode.STEP_NOT_FOUND: _read_missing,
}


def _unusable(message: str) -> OpsRefused:
    return OpsRefused("app_response_invalid", message)


def _text(value: object) -> str | None:
    """A text that can be stored, or None: Postgres takes no NUL, and no page needs more than the first part."""
    if not isinstance(value, str):
        return None
    return value.replace("\x00", "\ufffd") if "\x00" in value else value


def _display(item: _Item) -> str:
    """The developer's name of a step whose `name` is an argument (sleeps and waits)."""
    name = item.get("displayName")
    if not isinstance(name, str) or not name:
        userland = item.get("userland")
        name = userland.get("id") if isinstance(userland, dict) else None
    return (_text(name) or _text(item.get("name")) or "")[:MAX_STEP_NAME_CHARS]


def _name(item: _Item) -> str:
    name = item.get("displayName")
    if isinstance(name, str) and len(name) <= MAX_STEP_NAME_CHARS and "\x00" not in name and name:
        return name
    return _display(item)


def _is_race(opts: _Item) -> bool:
    mode = opts.get("parallelMode")
    return isinstance(mode, str) and mode.lower() == "race"


def _input(opts: _Item) -> bytes | None:
    value = opts.get("input")
    if value is None:
        return None
    text = canonical.encode(value)
    _check_size(text, "input")
    return text


def _raw(opts: _Item) -> bytes | None:
    if not opts:
        return None
    text = canonical.encode(opts)
    _check_size(text, "input")
    return text


def _check_size(text: bytes, what: str) -> None:
    if len(text) > MAX_OUTPUT_BYTES:
        message = f"A step's {what} has {len(text)} bytes; {MAX_OUTPUT_BYTES} are allowed."
        raise OpsRefused("output_too_large", message, name="output_too_large", is_fatal=True)


def _when(
    value: object, now: datetime, what: str, *, when_empty: timedelta
) -> tuple[datetime | None, timedelta | None]:
    """An instant in the future, or a length that is not negative."""
    if value is None or value == "":
        return None, when_empty
    if not isinstance(value, str):
        raise _unusable(f"The time of a {what} is not a text.")
    try:
        when = parse_when(value)
    except DurationRefused as refused:
        raise _unusable(f"The time of a {what} cannot be read: {refused.message}") from None
    length = when - now if isinstance(when, datetime) else when
    if length > MAX_SLEEP:
        raise OpsRefused(
            "timeout_too_long",
            f"A {what} may last {MAX_SLEEP.days} days at most.",
            name="InngestErrTimeoutTooLong",
            is_fatal=True,
        )
    if length <= _AT_ONCE:
        return None, _AT_ONCE
    return (when, None) if isinstance(when, datetime) else (None, when)
