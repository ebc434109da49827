-- name: lease_free
-- Due items of lanes without flow keys: leased in one round trip, lanes served least recently first (D10).
with lane as materialized (
  select l.id from lanes l
  where (l.next_due <= clock() or l.id = any(:hints::uuid[])) and l.flow_key_ids = '{}'
  order by l.served_at limit :lanes::int for no key update skip locked
), pick as materialized (
  select i.id, i.lane_id from lane l cross join lateral (
    select x.id, x.lane_id from items x where x.lane_id = l.id and x.lease_id is null and x.due_at <= clock()
    order by x.due_at limit :per_lane::int for update skip locked
  ) i limit :room::int
), taken as (
  update items i set lease_id = gen_random_uuid(), worker_id = :worker::uuid, leased_at = clock(), fence = i.fence + 1
  from pick p where i.id = p.id
  returning i.id, i.run_id, i.lane_id, i.key, i.kind, i.step_key, i.attempt, i.redeliveries, i.fence, i.lease_id,
    i.environment_id, i.account_id, i.function_id, i.due_at
), served as (
  update lanes l set served_at = clock(), next_due = coalesce((
    select min(x.due_at) from (
      select y.due_at from items y where y.lane_id = l.id and y.lease_id is null and not exists (select from pick p where p.id = y.id)
      order by y.due_at limit 1) x), 'infinity')
  from lane where lane.id = l.id
)
select t.*, clock() as now from taken t

-- name: limited_lanes
-- Due items of lanes with flow keys, their lane and item rows locked; capacity is decided by the caller. Timers and requests need
-- none, so calls that wait for room must not hide them. A lane without due work is answered too, with nulls: else its
-- clock would never be corrected, and it would stand in front of the others for ever.
with lane as materialized (
  select l.id, l.flow_key_ids from lanes l
  where (l.next_due <= clock() or l.id = any(:hints::uuid[])) and l.flow_key_ids <> '{}'
    and (l.blocked_until is null or l.blocked_until <= clock() or l.id = any(:hints::uuid[]))
  order by l.served_at limit :lanes::int for no key update skip locked
)
select i.id, i.kind, lane.id as lane_id, lane.flow_key_ids
from lane left join lateral (
  select * from (
    select x.id, x.kind from items x where x.lane_id = lane.id and x.lease_id is null and x.due_at <= clock()
      and x.kind not in ('discover', 'step')
    order by x.due_at limit :per_lane::int for update skip locked
  ) free_of_limits
  union all
  select * from (
    select x.id, x.kind from items x where x.lane_id = lane.id and x.lease_id is null and x.due_at <= clock()
      and x.kind in ('discover', 'step')
    order by x.due_at limit :per_lane::int for update skip locked
  ) calls
) i on true limit :room::int

-- name: lock_flow_keys
-- The counters of limits, always in the order of their ids (rule 9), with the slots taken now.
select k.id, k.cap, (select count(*)::int from slots s where s.flow_key_id = k.id) as live
from flow_keys k where k.id = any(:ids::uuid[]) order by k.id for no key update of k

-- name: lease_limited
-- Leases the admitted items, takes their slots, marks the keys that refused somebody and sets the lanes' clocks.
with pick as materialized (
  select * from unnest(:item_ids::uuid[], :lease_ids::uuid[]) as p (id, lease_id)
), taken as (
  update items i set lease_id = p.lease_id, worker_id = :worker::uuid, leased_at = clock(), fence = i.fence + 1
  from pick p where i.id = p.id
  returning i.id, i.run_id, i.lane_id, i.key, i.kind, i.step_key, i.attempt, i.redeliveries, i.fence, i.lease_id,
    i.environment_id, i.account_id, i.function_id, i.due_at
), slotted as (
  insert into slots (flow_key_id, lease_id, account_id, environment_id, run_id, item_id)
  select s.flow_key_id, s.lease_id, t.account_id, t.environment_id, t.run_id, t.id
  from unnest(:slot_keys::uuid[], :slot_leases::uuid[]) as s (flow_key_id, lease_id) join taken t on t.lease_id = s.lease_id
), waited as (
  update flow_keys k set waited_since = case when k.id = any(:refused::uuid[]) then coalesce(k.waited_since, clock()) end
  where k.id = any(:locked::uuid[]) and (k.id = any(:refused::uuid[])) <> (k.waited_since is not null)
), served as (
  update lanes l set served_at = clock(),
    blocked_by = b.flow_key_id, blocked_until = case when b.flow_key_id is not null then clock() + interval '1 second' end,
    next_due = coalesce((
      select min(x.due_at) from (
        select y.due_at from items y where y.lane_id = l.id and y.lease_id is null and not exists (select from pick p where p.id = y.id)
        order by y.due_at limit 1) x), 'infinity')
  from unnest(:lane_ids::uuid[], :lane_blocked_by::uuid[]) as b (id, flow_key_id) where l.id = b.id
)
select t.*, clock() as now from taken t

-- name: load
-- Runs with their steps, items and first event, as one consistent picture; memos only for who makes the next call.
select r.id, r.account_id, r.environment_id, r.app_id, r.function_id, r.function_version, r.lane_id, r.status, r.version,
  r.request_version, r.is_planned, r.is_quiet, r.completed, r.pending, r.group_key, r.discoveries, r.state_bytes,
  r.max_attempts, r.event_id, r.event_received_at, r.batch_size, r.parent_run_id, r.parent_step_key, r.queued_at,
  r.started_at, r.ended_at, r.finish_within, f.slug, f.url, v.name as environment_name,
  (select a.plan from accounts a where a.id = r.account_id) as plan,
  coalesce((select l.flow_key_ids <> '{}' from lanes l where l.id = r.lane_id), false) as is_limited,
  (select e.payload from events e where e.environment_id = r.environment_id and e.id = r.event_id
     and e.received_at = r.event_received_at) as event,
  s.keys, s.kinds, s.states, s.members, s.races, s.memos, s.inputs, i.keys as item_keys, i.kinds as item_kinds, i.steps as item_steps,
  i.attempts as item_attempts, d.keys as defer_keys, d.states as defer_states, d.sizes as defer_sizes, clock() as now
from runs r
join functions f on f.id = r.function_id
join environments v on v.id = r.environment_id
left join lateral (
  select array_agg(x.step_key order by x.memo_order) as keys, array_agg(x.kind order by x.memo_order) as kinds,
    array_agg(x.state order by x.memo_order) as states, array_agg(x.is_member order by x.memo_order) as members,
    array_agg(x.is_race order by x.memo_order) as races, array_agg(case when :with_memos::bool then x.memo end order by x.memo_order) as memos,
    -- Arguments somebody edited for a step that is still to run (engine/replay.py).
    array_agg(case when :with_memos::bool and x.state in ('retrying', 'planned') then x.input end order by x.memo_order) as inputs
  from steps x where x.run_id = r.id
) s on true
left join lateral (
  select array_agg(y.key) as keys, array_agg(y.kind) as kinds, array_agg(y.step_key) as steps, array_agg(y.attempt) as attempts
  from items y where y.run_id = r.id and y.kind not in ('start_timeout', 'finish_timeout')
) i on true
left join lateral (
  select array_agg(z.defer_key) as keys, array_agg(z.state) as states, array_agg(octet_length(z.input)) as sizes
  from defers z where z.run_id = r.id
) d on true
where r.id = any(:run_ids::uuid[])

-- name: lock_runs
-- Holds the open and ended runs of the slow path without waiting; what is newer is read by the next statement (rule 6).
select r.id from runs r where r.id = any(:run_ids::uuid[]) for no key update skip locked

-- name: lock_run
-- Holds one run, waiting at most lock_timeout.
select r.id from runs r where r.id = :run_id::uuid for no key update

-- name: item_fences
-- The fences of items whose runs are held.
select i.id, i.fence, i.attempt from items i where i.id = any(:item_ids::uuid[]) for update

-- name: gateway_call
-- The sealed request of a gateway step.
select g.sealed from gateway_calls g where g.run_id = :run_id::uuid and g.step_key = :step_key::text
-- name: lock_signals
-- One claim of a signal's name at a time; names are locked in one order.
select pg_advisory_xact_lock(h) from (
  select distinct hashtextextended(s.environment_id::text || ' ' || s.name, 7031) as h
  from unnest(:environments::uuid[], :names::text[]) as s (environment_id, name) order by h
) x

-- name: signal_waits
-- Who waits for these signals.
select p.environment_id, p.signal, p.run_id, p.step_key from pauses p
join unnest(:environments::uuid[], :names::text[]) as s (environment_id, name)
  on p.environment_id = s.environment_id and p.signal = s.name

-- name: take_signals
-- Waits that lose their signal to a new one (protocol 23.2): they go on until their timeout. No state of their runs
-- changes by that, so their rows are not held; the names are.
update pauses p set signal = null
from unnest(:environments::uuid[], :names::text[]) as s (environment_id, name)
where p.environment_id = s.environment_id and p.signal = s.name

-- name: tell_late
-- An answer that came too late is journalled behind everything else of the version it found (I22). The run is held.
insert into history (run_id, version, position, account_id, environment_id, kind, step_key, item_key, attempt, started_at, detail)
select r.id, r.version, coalesce((select max(h.position) from history h where h.run_id = r.id and h.version = r.version), 0) + 1,
  r.account_id, r.environment_id, 'late', :step::text, :item::text, :attempt::int, :started::timestamptz, :detail::text
from runs r where r.id = :run_id::uuid
