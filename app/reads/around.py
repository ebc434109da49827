"""What stands around a run: its work to do, the runs made from it, the runs it invoked, and failures like its own.

One statement. Failures alike have the same function, error name and message, numbers aside; at most `MOST_ALIKE` of the
newest are looked at.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.flow.gcra import Pace, arrive
from app.domain.ids import EnvironmentId, RunId, to_ulid
from app.reads.timeline.facts import ItemFacts
from app.store.db import Connection

MOST_ALIKE = 1000
_MOST_ITEMS = 10_000
_MOST_KIN = 200


@dataclass(frozen=True, slots=True)
class Kin:
    """A run beside this one; `status` is the stored one."""

    ulid: str
    status: str


@dataclass(frozen=True, slots=True)
class Alike:
    """Other runs that failed the same way; `is_cut` when there may be more, and the first seen an earlier one."""

    others: int
    is_cut: bool
    first_seen: datetime
    first_version: int


@dataclass(frozen=True, slots=True)
class QueueCause:
    """What keeps due work of the run from being called. `kind`: paused, calls, runs or throttle; `key` "" for none.

    `scope`: function, environment or account; of `limit` slots `used` are taken.
    """

    kind: str
    key: str = ""
    scope: str = ""
    limit: int = 0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Around:
    """`children` by the key of the step that invoked them; `replays` the oldest first."""

    items: tuple[ItemFacts, ...] = ()
    replays: tuple[Kin, ...] = ()
    children: dict[str, Kin] = field(default_factory=dict)
    alike: Alike | None = None
    cause: QueueCause | None = None


async def load_around(connection: Connection, environment_id: EnvironmentId, run_id: RunId) -> Around:
    """Everything at once, as JSON per kind; an ended run has no items."""
    record = await connection.fetchrow(
        f"""with run as materialized (
              select id, function_id, lane_id, status, error_name, error_message, ended_at from runs
              where id = $1 and environment_id = $2
            ), alike as (
              select x.id, x.queued_at, x.function_version from run r cross join lateral (
                select f.id, f.queued_at, f.function_version, f.error_message from runs f
                where f.environment_id = $2 and f.function_id = r.function_id and f.status = 'failed'
                  and f.error_name = r.error_name
                order by f.id desc limit {MOST_ALIKE + 1}) x
              where r.status = 'failed' and regexp_replace(left(coalesce(x.error_message, ''), 500), '[0-9]+', '0', 'g')
                = regexp_replace(left(coalesce(r.error_message, ''), 500), '[0-9]+', '0', 'g')
            ), held as (
              -- All items of a run stand in one lane.
              select json_agg(json_build_array(f.kind, k.key, k.scope, x.live,
                case when f.kind <> 'throttle' and (k.cap_until is null or k.cap_until > clock())
                  then coalesce(k.cap, o.cap) else o.cap end, k.tat, extract(epoch from o.every)) order by f.kind, k.id) as keys
              from run r join lanes l on l.id = r.lane_id and l.is_gated
              cross join unnest(l.flow_key_ids, l.limit_ids) as u (key_id, limit_id)
              join flow_keys k on k.id = u.key_id join flow_limits f on f.id = u.limit_id
              cross join lateral (select count(*)::int as live from slots s where s.flow_key_id = k.id) x
              cross join lateral (select case when f.own_until > clock() then f.own_cap else f.cap end as cap,
                case when f.own_until > clock() then f.own_every else f.every end as every) o
              where r.ended_at is null and not exists (select from slots s where s.flow_key_id = k.id and s.lease_id = r.id)
                and exists (select from items i where i.run_id = r.id and i.lease_id is null and i.due_at <= clock())
            )
            select
              (select keys::text from held) as keys,
              (select f.paused_at is not null from run r join functions f on f.id = r.function_id where r.ended_at is null) as is_paused,
              (select status = 'queued' from run) as is_new,
              clock() as now,
              (select json_agg(json_build_array(i.kind, i.step_key, i.attempt, i.due_at,
                 case when i.lease_id is not null then i.leased_at end))
               from (select i.* from run r join items i on i.run_id = r.id where r.ended_at is null limit {_MOST_ITEMS}) i
              )::text as items,
              (select json_agg(json_build_array(n.id, n.status) order by n.id) from
                (select id, status from runs where original_run_id = $1 and environment_id = $2 order by id
                 limit {_MOST_KIN}) n)::text as replays,
              (select json_agg(json_build_array(n.id, n.status, n.parent_step_key) order by n.id) from
                (select id, status, parent_step_key from runs where parent_run_id = $1 and environment_id = $2 order by id
                 limit {_MOST_KIN}) n)::text as children,
              (select count(*) from alike) as alike,
              (select json_build_array(a.queued_at, a.function_version) from alike a order by a.id limit 1)::text as first""",
        run_id,
        environment_id,
    )
    children = {key: Kin(_ulid(run), status) for run, status, key in _list(record["children"]) if key}
    alike = None
    if record["first"]:
        at, version = json.loads(record["first"])
        is_cut = record["alike"] > MOST_ALIKE
        alike = Alike(min(record["alike"], MOST_ALIKE) - 1, is_cut, datetime.fromisoformat(at), version)
    return Around(
        tuple(_item(values) for values in _list(record["items"])),
        tuple(Kin(_ulid(run), status) for run, status in _list(record["replays"])),
        children,
        alike,
        QueueCause("paused") if record["is_paused"] else _cause(_list(record["keys"]), record["is_new"], record["now"]),
    )


def _cause(keys: Sequence[Any], is_new: bool, now: datetime) -> QueueCause | None:
    """The key that is full, a limit before a throttle, which only holds runs that have not begun."""
    for kind, key, scope, used, limit, tat, every_s in keys:
        if kind != "throttle":
            if used >= limit:
                return QueueCause(kind, key, scope, limit, used)
        elif is_new and tat is not None:
            pace = Pace(timedelta(seconds=every_s), limit)
            if not arrive(pace, datetime.fromisoformat(tat), now).is_admitted:
                return QueueCause("throttle", key, scope, limit + 1)
    return None


def _list(text: str | None) -> list[Any]:
    found: list[Any] = [] if text is None else json.loads(text)
    return found


def _ulid(text: str) -> str:
    return to_ulid(UUID(text))


def _item(values: list[Any]) -> ItemFacts:
    kind, key, attempt, due, leased = values
    # A timer without an end is stored as infinity, which no datetime can say.
    due_at = datetime.max.replace(tzinfo=UTC)
    if due not in (None, "infinity"):
        due_at = datetime.fromisoformat(due)
    return ItemFacts(kind, key, attempt, due_at, None if leased is None else datetime.fromisoformat(leased))
