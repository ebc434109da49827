"""What people changed about a function for a time: what is in force, what is over, and which limits may be changed.

Reads only, inside a tenant transaction (`store.db.tenant`); two statements for all of it.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.flow.concurrency import Kind, Limit, added_limit, named_limits
from app.domain.ids import FunctionId
from app.domain.protocol.function_config import FunctionConfig
from app.domain.scope import Scope
from app.domain.settings import Scope as Over
from app.reads.settings_of import read_config, span
from app.store.db import Connection

#: Changes that are over and still told.
PAST = 10
_MOST = 100
_OVER = {Over.FUNCTION: "", Over.ENVIRONMENT: ", over the environment", Over.ACCOUNT: ", over the organization"}


@dataclass(frozen=True, slots=True)
class Override:
    """One change. `kind`: limit, key, hold or retry. `ended_by` is empty while it is in force."""

    id: UUID
    kind: str
    subject: str
    setting: str
    reason: str
    actor: str
    created_at: datetime
    until: datetime | None
    ended_at: datetime | None
    ended_by: str


@dataclass(frozen=True, slots=True)
class LimitLine:
    """A limit that may be changed. `setting` is what the code says, `expression` its key; `is_added`: the code has none."""

    name: str
    label: str
    setting: str
    expression: str
    is_throttle: bool
    changed: Override | None
    is_added: bool = False


@dataclass(frozen=True, slots=True)
class Overrides:
    """Everything there is to say about one function. `waits` is the retry policy of the code, empty for the usual one."""

    limits: tuple[LimitLine, ...]
    live: tuple[Override, ...]
    past: tuple[Override, ...]
    waits: str
    now: datetime

    def of_kind(self, kind: str) -> Override | None:
        """The one in force of a kind that exists once (hold, retry)."""
        return next((o for o in self.live if o.kind == kind), None)


async def overrides_of(connection: Connection, scope: Scope, function_id: FunctionId) -> Overrides | None:
    """The function's changes; None when there is no such function."""
    function = await connection.fetchrow(
        "select f.config, clock() as now from functions f where f.environment_id = $1 and f.id = $2",
        scope.environment_id,
        function_id,
    )
    if function is None:
        return None
    columns = (
        "o.id, o.kind, o.subject, o.setting, o.reason, o.actor, o.created_at, o.until, o.ended_at,"
        " coalesce(o.ended_by, '') as ended_by, o.limit_id"
    )
    rows = await connection.fetch(
        f"""(select {columns} from overrides o where o.environment_id = $1 and o.function_id = $2 and o.ended_at is null
             order by o.created_at desc limit {_MOST})
            union all
            (select {columns} from overrides o where o.environment_id = $1 and o.function_id = $2 and o.ended_at is not null
             order by o.created_at desc limit {PAST})""",
        scope.environment_id,
        function_id,
    )
    found = [(row["limit_id"], Override(*list(row)[:-1])) for row in rows]
    # A change whose time is up holds no more, though the keeper has not closed its row yet.
    now: datetime = function["now"]
    live = tuple(o for _, o in found if o.ended_at is None and (o.until is None or o.until > now))
    changed = {limit_id: o for limit_id, o in found if o in live and o.kind == "limit"}
    config = read_config(function["config"])
    limits = named_limits(function_id, config) if config is not None else {}
    added = added_limit(function_id)
    first = (
        []
        if "concurrency" in limits
        else [LimitLine("concurrency", "Concurrency", "no limit", "", False, changed.get(added.id), True)]
    )
    return Overrides(
        limits=(*first, *(_line(name, limit, config, changed.get(limit.id)) for name, limit in limits.items())),
        live=live,
        past=tuple(o for _, o in found if o not in live)[:PAST],
        waits=waits_of(config),
        now=now,
    )


def waits_of(config: FunctionConfig | None) -> str:
    """The waits between retries that the code asks for, in words."""
    backoff = config.backoff if config is not None else None
    if backoff is None:
        return ""
    return f"{span(backoff.initial)}, times {backoff.factor:g}, at most {span(backoff.cap)}"


def _line(name: str, limit: Limit, config: FunctionConfig | None, changed: Override | None) -> LimitLine:
    labels = {
        "concurrency": "Concurrency",
        "concurrency2": "Second concurrency limit",
        "runs": "Runs at once",
        "throttle": "Throttle",
    }
    is_throttle = limit.kind is Kind.THROTTLE
    throttle = config.throttle if config is not None else None
    if is_throttle and throttle is not None:
        setting = f"{throttle.limit} starts per {span(throttle.period)}"
        setting += f", {throttle.burst} more at once" if throttle.burst else ""
    else:
        setting = f"{limit.cap:,} at once" + (" for each value" if limit.key else "") + _OVER[limit.over]
    return LimitLine(name, labels[name], setting, limit.key or "", is_throttle, changed)
