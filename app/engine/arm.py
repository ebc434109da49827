"""What ends a run from outside, set up in the transaction that makes the run (protocol 23.4).

    cancel[] rules    ─► waits of kind `cancel`: found by the same index as waits for events, gone with the run
    timeouts.start    ─► a queue item due at the run's time + start, in a lane of its own that no limit blocks
    timeouts.finish   ─► kept with the run; its item is made when the run starts

Whoever makes runs calls `arm` for those it made. Runs of functions without any of this cost one truth test.
A rule is owed the second look of every wait (architecture 5, rule 15): events that came in after the one that started
the run, but before the run was there, cancel it too.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.domain.expressions import ExpressionRefused
from app.domain.function import Function
from app.domain.ids import FunctionId, LaneId, RunId, derive_item_id, derive_uuid, to_ulid
from app.domain.matching import stored_wait
from app.domain.run import keys
from app.domain.scope import Scope
from app.domain.settings import CancelRule
from app.store.named import fetch, named

log = logging.getLogger(__name__)

#: No key of a user's can be this: keys are texts of expressions and hold no control characters that begin them.
_LANE = "\x01deadlines"


@dataclass(frozen=True, slots=True)
class Fresh:
    """A run that was just made of `event`; `received_at` is when that came in, or when somebody asked for the run."""

    run_id: RunId
    scope: Scope
    event: bytes
    function: Function
    received_at: datetime


def must_arm(function: Function) -> bool:
    """Whether a run of the function can be ended from outside."""
    return bool(function.cancel or function.timeouts.start or function.timeouts.finish)


async def arm(connection: Any, fresh: Sequence[Fresh]) -> bool:
    """Set up the ends of these runs; true when a second look is owed."""
    rules = [row for one in fresh for row in _rules(one)]
    if rules:
        columns = list(zip(*rules, strict=True))
        names = "run_id step_key account environment event expression path value requested_at expires_at"
        await fetch(connection, named("cancel", "arm"), **dict(zip(names.split(), columns, strict=True)))
    timed = [one for one in fresh if one.function.timeouts.start or one.function.timeouts.finish]
    if timed:
        await fetch(
            connection,
            named("cancel", "set_deadlines"),
            run_id=[one.run_id for one in timed],
            account=[one.scope.account_id for one in timed],
            environment=[one.scope.environment_id for one in timed],
            function=[one.function.id for one in timed],
            item_id=[derive_item_id(one.run_id, keys.START_TIMEOUT) for one in timed],
            lane_id=[deadline_lane(one.function.id) for one in timed],
            start_by=[
                one.received_at + one.function.timeouts.start if one.function.timeouts.start else None for one in timed
            ],
            finish_within=[one.function.timeouts.finish for one in timed],
            lane_key=_LANE,
        )
    return bool(rules)


def deadline_lane(function_id: FunctionId) -> LaneId:
    """The lane of a function's start deadlines."""
    return LaneId(derive_uuid("lane", function_id.bytes, _LANE))


def _rules(one: Fresh) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for number, rule in enumerate(one.function.cancel):
        expression = path = value = None
        if rule.expression:
            try:
                bound = stored_wait(rule.expression, one.event)
            except ExpressionRefused:
                # Registration refuses these; a rule that cannot be judged cancels nothing.
                log.warning("cancel rule left out", extra={"run_id": to_ulid(one.run_id), "rule": number})
                continue
            if bound.never:
                continue
            expression, path, value = bound.expression, bound.path, bound.value
        rows.append(
            (
                one.run_id,
                keys.cancel(number),
                one.scope.account_id,
                one.scope.environment_id,
                rule.event,
                expression,
                path,
                value,
                one.received_at,
                _ends(rule, one.received_at),
            )
        )
    return rows


def _ends(rule: CancelRule, start: datetime) -> datetime:
    return start + rule.timeout if isinstance(rule.timeout, timedelta) else rule.timeout
