"""Where a run's items stand in the queue: one lane for each combination of key values, so that a full key holds back
nobody else.

    lane         calls that follow the first; the limits of calls and runs
    first lane   first items, where their order or start is limited: throttle, priority, limit of runs. Apart, so that runs
                 that may go on never stand behind runs that may not start

A function without limits has one lane for everything. Limits without key expression and with the function's own scope
are on that lane from the sync on, so a limit that is added later holds for work that waits already.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.domain.flow.concurrency import FlowKey, Kind, Limit, Limited, flow_key, limits_of
from app.domain.flow.keys import key_bytes, shown
from app.domain.ids import FunctionId, LaneId, derive_uuid
from app.domain.limits import PlanLimits
from app.domain.scope import Scope


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane and the keys every item of it must pass, in the order of their ids. A ranked one goes by rank."""

    id: LaneId
    key: str
    flow_keys: tuple[FlowKey, ...] = ()
    is_ranked: bool = False

    @property
    def is_gated(self) -> bool:
        """Whether leasing from it asks for capacity or order."""
        return bool(self.flow_keys) or self.is_ranked


@dataclass(frozen=True, slots=True)
class Lanes:
    """The lanes of one run. `first` is None where `run` serves for it."""

    run: Lane
    first: Lane | None = None

    @property
    def all(self) -> tuple[Lane, ...]:
        """Every lane that must exist before the run."""
        return tuple(lane for lane in (self.run, self.first) if lane is not None)


@dataclass(frozen=True, slots=True)
class Flow:
    """The queue's side of a function's settings; None of it for a function without limits and priority."""

    function_id: FunctionId
    limits: tuple[Limit, ...]
    priority: str | None = None

    def lanes(self, scope: Scope, event: Mapping[str, Any]) -> Lanes:
        """The lanes of a run of this event; keys are frozen with them."""
        keys = {limit.id: flow_key(limit, scope, event) for limit in self.limits}
        lasting = [limit for limit in self.limits if limit.kind is not Kind.THROTTLE]
        # The key "" is the function's plain lane: limits that follow from no event are on it.
        name = _name([keys[limit.id] for limit in lasting if not _is_plain(limit)])
        run = self._lane(name, [keys[limit.id] for limit in lasting])
        first = None
        if self.priority is not None or len(lasting) < len(self.limits) or any(x.kind is Kind.RUNS for x in lasting):
            ranked = self.priority is not None
            mark = "first!" if ranked else "first"
            first = self._lane(_joined(mark, *(keys[x.id] for x in self.limits)), list(keys.values()), ranked)
        return Lanes(run, first)

    @property
    def takes_slots(self) -> bool:
        """Whether calls or runs are limited; a throttle and a priority only concern starts."""
        return any(limit.kind is not Kind.THROTTLE for limit in self.limits)

    def plain_lane(self, scope: Scope) -> Lane:
        """The function's plain lane with the limits that hold for all its items."""
        plain = [flow_key(x, scope, {}) for x in self.limits if _is_plain(x)]
        return self._lane("", plain)

    def _lane(self, name: str, keys: list[FlowKey], is_ranked: bool = False) -> Lane:
        ordered = tuple(sorted(keys, key=lambda key: key.id))
        return Lane(lane_of(self.function_id, name), shown(name), ordered, is_ranked)


def flow_of(
    function_id: FunctionId,
    settings: Limited,
    priority: str | None,
    plan: PlanLimits | None = None,
    changed: Collection[UUID] = (),
) -> Flow | None:
    """The flow of a function; None when nothing holds its items back. `changed` as `limits_of` has it."""
    limits = limits_of(function_id, settings, plan, changed)
    return Flow(function_id, limits, priority) if limits or priority is not None else None


def lane_of(function_id: FunctionId, name: str = "") -> LaneId:
    """The id of a function's lane."""
    return LaneId(derive_uuid("lane", function_id.bytes, key_bytes(name)))


def _is_plain(limit: Limit) -> bool:
    return limit.kind is not Kind.THROTTLE and limit.key is None


def _name(keys: list[FlowKey]) -> str:
    return _joined("keys", *keys) if keys else ""


def _joined(mark: str, *keys: FlowKey) -> str:
    # Ids tell values apart that people see shortened.
    return json.dumps([mark, *(f"{key.text} {key.id.hex[:12]}" for key in keys)], ensure_ascii=False)
