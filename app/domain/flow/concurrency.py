"""Limits that hold queue items back: which a function has, and what they count (protocol 21.2).

`calls` are slots held while an app is called, `runs` slots held from a run's start to its end, a `throttle` paces starts.
Function scope counts per function; environment and account scope are shared by all functions whose key has the same
value, and each of them compares the shared count with its own limit.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Protocol
from uuid import UUID

from app.domain.flow import throttle
from app.domain.flow.keys import key_bytes, key_of, shown
from app.domain.ids import FunctionId, derive_uuid
from app.domain.limits import PlanLimits
from app.domain.scope import Scope
from app.domain.settings import Concurrency, Throttle
from app.domain.settings import Scope as Over

#: The place of a plan's limit among those of calls; settings have the places 0 and 1.
_PLAN = 9
#: A limit that limits nothing; what people set on it does, for a time.
NO_LIMIT: Final = 1_000_000
_SCOPE_WORDS = {Over.FUNCTION: "function", Over.ENVIRONMENT: "environment", Over.ACCOUNT: "account"}


class Kind(StrEnum):
    """What a limit counts."""

    CALLS = "calls"
    RUNS = "runs"
    THROTTLE = "throttle"


#: Limits by the names people and the API use: kind and place.
_NAMES: Final = {
    "concurrency": (Kind.CALLS, 0),
    "concurrency2": (Kind.CALLS, 1),
    "runs": (Kind.RUNS, 0),
    "throttle": (Kind.THROTTLE, 0),
}


class Limited(Protocol):
    """What is read of a function; `Function` and `FunctionConfig` both have it."""

    @property
    def concurrency(self) -> tuple[Concurrency, ...]:
        """Limits of calls."""

    @property
    def run_concurrency(self) -> Concurrency | None:
        """The limit of whole runs."""

    @property
    def throttle(self) -> Throttle | None:
        """The pace of starts."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One setting as the queue knows it. `cap` is slots, or the burst of a throttle whose pace is `every`."""

    id: UUID
    kind: Kind
    cap: int
    over: Over = Over.FUNCTION
    key: str | None = None
    every: timedelta | None = None


@dataclass(frozen=True, slots=True)
class FlowKey:
    """What one limit counts under, for one value. `scope` is the word of the flow_keys table, `text` for people."""

    id: UUID
    limit_id: UUID
    scope: str
    text: str


def limits_of(
    function_id: FunctionId, settings: Limited, plan: PlanLimits | None = None, changed: Collection[UUID] = ()
) -> tuple[Limit, ...]:
    """The limits of a function. Ids follow from function, kind and place, so a changed number is the same limit.

    A plan that limits the calls of an account adds one that all its functions share. `changed` are the limits that people
    have changed for now: one of calls may be among them although the code has none.
    """
    found = [
        Limit(_limit_id(function_id, Kind.CALLS, place), Kind.CALLS, rule.limit, rule.scope, rule.key)
        for place, rule in enumerate(settings.concurrency)
    ]
    if not settings.concurrency and (added := added_limit(function_id)).id in changed:
        found.append(added)
    if (runs := settings.run_concurrency) is not None:
        found.append(Limit(_limit_id(function_id, Kind.RUNS, 0), Kind.RUNS, runs.limit, runs.scope, runs.key))
    if plan is not None and plan.concurrency is not None:
        found.append(Limit(_limit_id(function_id, Kind.CALLS, _PLAN), Kind.CALLS, plan.concurrency, Over.ACCOUNT))
    if (rule := settings.throttle) is not None:
        pace = throttle.pace(rule)
        limit_id = _limit_id(function_id, Kind.THROTTLE, 0)
        found.append(Limit(limit_id, Kind.THROTTLE, pace.burst, Over.FUNCTION, rule.key, pace.every))
    return tuple(found)


def flow_key(limit: Limit, scope: Scope, event: Mapping[str, Any]) -> FlowKey:
    """The key of a limit for one event."""
    # Only a plan's limit counts an account without a key; no value of a user's key can meet it.
    is_plan = limit.key is None and limit.over is Over.ACCOUNT
    return flow_key_of(limit, scope, "\x00plan" if is_plan else key_of(limit.key, event))


def flow_key_of(limit: Limit, scope: Scope, value: str) -> FlowKey:
    """The key of a limit for a value."""
    is_plan = limit.key is None and limit.over is Over.ACCOUNT
    # Two limits of one function never share a count, even where their keys have the same value.
    owners = {
        Over.FUNCTION: limit.id.bytes,
        Over.ENVIRONMENT: scope.environment_id.bytes,
        Over.ACCOUNT: scope.account_id.bytes,
    }
    key_id = derive_uuid("flow", limit.over, limit.kind, owners[limit.over], key_bytes(value))
    return FlowKey(key_id, limit.id, _SCOPE_WORDS[limit.over], "the plan" if is_plan else shown(value))


def added_limit(function_id: FunctionId) -> Limit:
    """The limit of calls that people may set on a function whose code has none. One that comes with a sync takes its place."""
    return Limit(_limit_id(function_id, Kind.CALLS, 0), Kind.CALLS, NO_LIMIT)


def named_limits(function_id: FunctionId, settings: Limited) -> dict[str, Limit]:
    """The limits that people may change, by the names they have on pages and in the API. A plan's is not among them."""
    by_id = {limit.id: limit for limit in limits_of(function_id, settings)}
    found = {name: by_id.get(_limit_id(function_id, kind, place)) for name, (kind, place) in _NAMES.items()}
    return {name: limit for name, limit in found.items() if limit is not None}


def _limit_id(function_id: FunctionId, kind: Kind, place: int) -> UUID:
    return derive_uuid("limit", function_id.bytes, kind, str(place))
