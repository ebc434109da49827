"""What a process knows of apps and functions: one immutable view per environment, replaced when its version moved.

Ingest and react must not read configuration per event (D7), and may not miss a function that was just synced. So the
environment row carries a version, every claim of events answers with it, and a view older than that is reloaded before
anything is matched.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.domain.backoff import read_backoff
from app.domain.flow.gates import Gates, gates_of
from app.domain.flow.lanes import Flow, flow_of, lane_of
from app.domain.function import Function, function_of
from app.domain.ids import EnvironmentId, FunctionId, LaneId
from app.domain.limits import PLANS, PlanLimits, plan_of
from app.domain.matching import Trigger, TriggerIndex
from app.domain.protocol.function_config import read_stored
from app.domain.scope import Scope
from app.store.db import Pool
from app.store.named import fetch, named

#: A view used without a version to compare it with (a call's URL, a key) may be this old.
_FRESH_S = 1.0
#: Views kept; the one used longest ago goes first.
_KEPT = 2000


@dataclass(frozen=True, slots=True)
class KnownFunction:
    """A function as the engine uses it.

    `lane_id` is its plain lane. `flow` and `gates` are None for functions that nothing holds back: they take the short way.
    """

    function: Function
    lane_id: LaneId
    flow: Flow | None = None
    gates: Gates | None = None
    #: Its app is archived: it is not started any more, and its runs go on.
    is_archived: bool = False
    #: When its app was synced last.
    synced_at: datetime | None = None

    @property
    def id(self) -> FunctionId:
        """The function's id."""
        return self.function.id


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """The functions of an environment at one version of its catalogue."""

    scope: Scope
    name: str
    version: int
    functions: dict[FunctionId, KnownFunction]
    by_slug: dict[str, KnownFunction]
    triggers: TriggerIndex[FunctionId]
    signing_keys: tuple[str, ...]
    loaded_at: float
    limits: PlanLimits = PLANS["self_hosted"]
    #: Why the account starts no new runs (`allowance`, `spend_cap`); None when it does.
    stops_for: str | None = None


class Catalogue:
    """The views of a process. `keys_of` gives an environment's signing keys, the one to sign with first."""

    def __init__(self, pool: Pool, keys_of: Callable[[EnvironmentId], Awaitable[list[str]]]) -> None:
        self._pool = pool
        self._keys_of = keys_of
        self._views: dict[EnvironmentId, EnvironmentView] = {}
        self._loading: dict[EnvironmentId, asyncio.Lock] = {}
        self._limited: set[FunctionId] = set()

    def is_limited(self, function_id: FunctionId) -> bool:
        """Whether calls of the function take slots, as far as this process has seen."""
        return function_id in self._limited

    async def view(self, scope: Scope, version: int | None = None) -> EnvironmentView:
        """The view at `version` or newer; without a version, one that is at most a second old."""
        found = self._views.get(scope.environment_id)
        if found is not None:
            is_good = found.version >= version if version is not None else time.monotonic() - found.loaded_at < _FRESH_S
            if is_good:
                return found
        lock = self._loading.setdefault(scope.environment_id, asyncio.Lock())
        async with lock:
            again = self._views.get(scope.environment_id)
            if again is not None and again is not found and (version is None or again.version >= version):
                return again
            view = await self._load(scope)
            self._views.pop(scope.environment_id, None)
            self._views[scope.environment_id] = view
            while len(self._views) > _KEPT:
                oldest = next(iter(self._views))
                del self._views[oldest]
                self._loading.pop(oldest, None)
            return view

    async def _load(self, scope: Scope) -> EnvironmentView:
        async with self._pool.acquire(timeout=10) as connection:
            environment = (
                await fetch(connection, named("functions", "environment"), environment=scope.environment_id)
            )[0]
            rows = await fetch(connection, named("functions", "of_environment"), environment=scope.environment_id)
        keys = await self._keys_of(scope.environment_id)
        plan = plan_of(environment["plan"])
        functions: dict[FunctionId, KnownFunction] = {}
        for row in rows:
            known = known_function(row, plan)
            functions[known.id] = known
            if known.flow is not None and known.flow.takes_slots:
                self._limited.add(known.id)
            else:
                self._limited.discard(known.id)
        triggers = TriggerIndex(
            Trigger(known.id, trigger.event, trigger.expression)
            for known in functions.values()
            if not known.is_archived
            for trigger in known.function.triggers
            if trigger.event
        )
        return EnvironmentView(
            scope,
            environment["name"],
            environment["catalogue_version"],
            functions,
            {known.function.slug: known for known in functions.values() if not known.is_archived},
            triggers,
            tuple(keys),
            time.monotonic(),
            plan,
            environment["stops_for"],
        )


def known_function(row: Any, plan: PlanLimits) -> KnownFunction:
    """A function from a row of `of_environment` (sql/functions.sql), under the limits of its account's plan."""
    function = function_of(
        read_stored(row["config"].encode()),
        id=row["id"],
        app_id=row["app_id"],
        app_name=row["app_name"],
        version=row["version"],
        sdk=row["sdk"],
        is_paused=row["paused_at"] is not None,
        held_until=row["held_until"],
        own_backoff=read_backoff(row["own_backoff"]),
    )
    flow = flow_of(function.id, function, function.priority, plan, row["changed_limits"])
    return KnownFunction(
        function, lane_of(function.id), flow, gates_of(function), row["archived_at"] is not None, row["synced_at"]
    )
