-- Changes by people that hold for a time. engine/overrides.py tells the story.

-- name: function
-- A function with its settings, held so that one change comes after the other.
select f.id, f.slug, f.config, f.archived_at, clock() as now from functions f
where f.environment_id = :environment::uuid and f.id = :function::uuid for no key update

-- name: put
insert into overrides (id, account_id, environment_id, function_id, kind, limit_id, flow_key_id, subject, setting, reason, actor, until)
values (:id::uuid, :account::uuid, :environment::uuid, :function::uuid, :kind::text, :limit::uuid, :flow_key::uuid,
  :subject::text, :setting::text, :reason::text, :actor::text, :until::timestamptz)

-- name: live_on
-- What is in force already on the same thing, held until the new change takes its place.
select o.id from overrides o
where o.function_id = :function::uuid and o.ended_at is null and o.kind = :kind::text
  and o.limit_id is not distinct from :limit::uuid and o.flow_key_id is not distinct from :flow_key::uuid for update

-- name: find
select o.* from overrides o
where o.environment_id = :environment::uuid and o.function_id = :function::uuid and o.id = :id::uuid for update

-- name: over
-- Changes whose time is up, or whose limit a sync took away.
select o.*, f.slug from overrides o join functions f on f.id = o.function_id
where o.ended_at is null and o.until <= clock() order by o.until limit :room::int for update of o skip locked

-- name: close
update overrides o set ended_at = clock(), changed_at = clock(), ended_by = :actor::text where o.id = any(:ids::uuid[])

-- name: set_limit
-- Answers what the limit allowed until now, and nothing when there is no such limit.
with old as materialized (
  select f.id, case when f.own_until > clock() then f.own_cap else f.cap end as cap, f.kind from flow_limits f
  where f.id = :limit::uuid and f.function_id = :function::uuid for update
), put as (
  update flow_limits f set own_cap = :cap::int, own_every = :every::interval, own_until = :until::timestamptz
  from old o where f.id = o.id
)
select cap, kind from old

-- name: changed_limits
-- Limits of functions that people have changed for now.
select o.limit_id from overrides o
where o.function_id = any(:functions::uuid[]) and o.kind = 'limit' and o.ended_at is null

-- name: config
-- What the code of a function says now; nothing is held.
select f.config from functions f where f.environment_id = :environment::uuid and f.id = :function::uuid

-- name: add_limit
-- A limit of calls for a function whose code has none, with its one key. What waits in its lanes obeys from the next lease on.
with put as (
  insert into flow_limits (id, account_id, environment_id, function_id, kind, cap)
  values (:limit::uuid, :account::uuid, :environment::uuid, :function::uuid, 'calls', :cap::int) on conflict (id) do nothing
), key as (
  insert into flow_keys (id, account_id, environment_id, function_id, scope, key)
  values (:flow_key::uuid, :account::uuid, :environment::uuid, :function::uuid, 'function', :key::text) on conflict (id) do nothing
), held as materialized (
  select l.id from lanes l where l.function_id = :function::uuid and not :limit::uuid = any(l.limit_ids)
  order by l.id for no key update
)
update lanes l set flow_key_ids = l.flow_key_ids || :flow_key::uuid, limit_ids = l.limit_ids || :limit::uuid, is_gated = true
from held h where l.id = h.id

-- name: drop_limit
-- The end of a limit that only people had set; its lanes are as the code has them.
with gone as (
  delete from flow_limits f where f.id = :limit::uuid
), held as materialized (
  select l.id from lanes l where l.function_id = :function::uuid and :limit::uuid = any(l.limit_ids) order by l.id for no key update
)
update lanes l set limit_ids = array_remove(l.limit_ids, :limit::uuid), flow_key_ids = x.keys, is_gated = l.is_ranked or x.keys <> '{}'
from held h join lanes o on o.id = h.id cross join lateral (
  select array(select u.key_id from unnest(o.flow_key_ids, o.limit_ids) with ordinality as u (key_id, limit_id, n)
               where u.limit_id <> :limit::uuid order by u.n) as keys) x
where l.id = h.id

-- name: waited_for
-- Who holds slots of a limit's keys gives them back after the call under way: the next lease counts anew.
update flow_keys k set waited_since = coalesce(k.waited_since, clock()) where k.id in (
  select x.id from flow_keys x where x.id in (
    select k.id from lanes l cross join unnest(l.flow_key_ids, l.limit_ids) as k (id, limit_id)
    where l.function_id = :function::uuid and k.limit_id = :limit::uuid)
  order by x.id for no key update)

-- name: lift_limit
update flow_limits f set own_cap = null, own_every = null, own_until = null where f.id = :limit::uuid

-- name: set_key
-- The slots of one key. It may not have been used yet.
insert into flow_keys as k (id, account_id, environment_id, function_id, scope, key, cap, cap_until, waited_since)
values (:flow_key::uuid, :account::uuid, :environment::uuid, :function::uuid, :scope::text, :key::text, :cap::int,
  :until::timestamptz, clock())
on conflict (id) do update set cap = excluded.cap, cap_until = excluded.cap_until,
  waited_since = coalesce(k.waited_since, excluded.waited_since)

-- name: lift_key
update flow_keys k set cap = null, cap_until = null where k.id = :flow_key::uuid

-- name: unblock_key
-- Lanes that wait for a key look again at once.
update lanes set blocked_by = null, blocked_until = null, next_due = least(next_due, clock())
where id in (select l.id from lanes l where l.blocked_by = :flow_key::uuid order by l.id for no key update)
returning id

-- name: unblock_function
update lanes set blocked_by = null, blocked_until = null, next_due = least(next_due, clock())
where id in (select l.id from lanes l where l.function_id = :function::uuid and l.blocked_by is not null
             order by l.id for no key update)
returning id

-- name: unblock_lately
-- A lease that read a limit just before it was changed may have blocked a lane by it afterwards: it looks again.
update lanes set blocked_by = null, blocked_until = null, next_due = least(next_due, clock())
where id in (select l.id from lanes l where l.blocked_until > clock() + interval '1 second' and l.function_id in (
    select o.function_id from overrides o where o.kind = 'limit' and o.changed_at > clock() - interval '5 seconds')
  order by l.id for no key update skip locked)
returning id

-- name: set_hold
update functions f set held_until = :until::timestamptz where f.id = :function::uuid

-- name: set_backoff
update functions f set own_backoff = :backoff::text where f.id = :function::uuid
