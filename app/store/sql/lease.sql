-- name: lease_free
-- Due items of lanes without limits: leased in one round trip, round robin over environments, then functions (D10). One
-- row always comes back: whether gated lanes are due as well.
with recursive few as materialized (
  select l.id, l.environment_id, l.function_id, l.served_at from lanes l
  where (l.next_due <= clock() or l.id = any(:hints::uuid[])) and not l.is_gated limit 512
), env (id) as (
  -- Only where there are more: the environments one by one, so that one with a thousand functions cannot hide another.
  (select l.environment_id from lanes l where not l.is_gated and l.next_due < 'infinity' and (select count(*) = 512 from few)
   order by l.environment_id limit 1)
  union all
  select (select l.environment_id from lanes l where not l.is_gated and l.next_due < 'infinity' and l.environment_id > e.id
          order by l.environment_id limit 1)
  from env e where e.id is not null
), due as materialized (
  select * from few
  union
  select x.* from env e cross join lateral (
    select l.id, l.environment_id, l.function_id, l.served_at from lanes l
    where l.environment_id = e.id and not l.is_gated and l.next_due < 'infinity' and l.next_due <= clock()
    order by l.next_due limit 64) x
  where e.id is not null
), turn as (
  select d.id, d.served_at, row_number() over (partition by d.environment_id order by d.nth, d.served_at) as turn from (
    select x.*, row_number() over (partition by x.environment_id, x.function_id order by x.served_at) as nth from due x) d
), lane as materialized (
  select l.id from turn t join lanes l on l.id = t.id
  order by t.turn, t.served_at limit :lanes::int for no key update of l skip locked
), pick as materialized (
  -- The first of each lane, then the second of each: with little room nobody takes it all.
  select i.id, i.lane_id from (
    select x.id from lane l cross join lateral (
      select y.id, row_number() over (order by y.due_at) as nth from items y
      where y.lane_id = l.id and y.lease_id is null and y.due_at <= clock() order by y.due_at limit :per_lane::int
    ) x order by x.nth limit :room::int
  ) n join items i on i.id = n.id where i.lease_id is null for update of i skip locked
), taken as (
  update items i set lease_id = gen_random_uuid(), worker_id = :worker::uuid, leased_at = clock(), fence = i.fence + 1
  from pick p where i.id = p.id
  returning i.id, i.run_id, i.lane_id, i.key, i.kind, i.step_key, i.attempt, i.redeliveries, i.fence, i.lease_id,
    i.environment_id, i.account_id, i.function_id, i.due_at, i.held_due
), served as (
  -- A lane that only ran out of the caller's room was not served: it comes first next time.
  update lanes l set served_at = case when exists (select from pick p where p.lane_id = l.id) then clock() else l.served_at end,
    next_due = coalesce((
    select min(x.due_at) from (
      select y.due_at from items y where y.lane_id = l.id and y.lease_id is null and not exists (select from pick p where p.id = y.id)
      order by y.due_at limit 1) x), 'infinity')
  from lane where lane.id = l.id
)
select t.*, clock() as now, g.has_gated
from (select exists (select from lanes l where l.next_due <= clock() and l.is_gated)
          or exists (select from lanes l where l.id = any(:hints::uuid[]) and l.is_gated) as has_gated) g
left join taken t on true

-- name: limited_lanes
-- Due items of gated lanes, their lane and item rows locked; capacity is decided by the caller. Lanes are found environment
-- by environment, so that one tenant's ten thousand keys cannot hide another's. A hint is a lane that gave something back:
-- it is looked at, and so are the lanes that wait for its keys, whatever their clocks say. Turns go by when a lane was served,
-- or refused if that was later: refused lanes keep no place in front of lanes that nobody has looked at. Among those who wait
-- for a slot that came free, who was served longest ago is first.
with recursive env (id) as (
  (select l.environment_id from lanes l where l.is_gated and l.next_due < 'infinity' order by l.environment_id limit 1)
  union all
  select (select l.environment_id from lanes l where l.is_gated and l.next_due < 'infinity' and l.environment_id > e.id
          order by l.environment_id limit 1)
  from env e where e.id is not null
), due as materialized (
  select x.* from env e cross join lateral (
    select l.id, l.environment_id, l.function_id, l.served_at, greatest(l.served_at, l.blocked_until) as seen from lanes l
    where l.environment_id = e.id and l.is_gated and l.next_due < 'infinity' and l.next_due <= clock()
    order by l.next_due limit 64) x
  where e.id is not null
  union
  select l.id, l.environment_id, l.function_id, l.served_at, l.served_at from lanes l where l.id = any(:hints::uuid[]) and l.is_gated
  union
  select x.* from (select distinct unnest(h.flow_key_ids) as id from lanes h where h.id = any(:hints::uuid[])) k
  cross join lateral (
    select l.id, l.environment_id, l.function_id, l.served_at, l.served_at from lanes l
    where l.blocked_by = k.id order by l.served_at limit :lanes::int) x
), turn as (
  select d.id, d.served_at, d.seen, row_number() over (partition by d.environment_id order by d.nth, d.seen, d.served_at) as turn from (
    select x.*, row_number() over (partition by x.environment_id, x.function_id order by x.seen, x.served_at) as nth from (
      select y.id, y.environment_id, y.function_id, y.served_at, min(y.seen) as seen from due y group by 1, 2, 3, 4) x) d
), lane as materialized (
  select l.id, l.flow_key_ids, l.limit_ids, l.is_ranked, t.turn, t.seen, t.served_at as last from turn t join lanes l on l.id = t.id
  order by t.turn, t.seen, t.served_at limit :lanes::int for no key update of l skip locked
), pick as materialized (
  select x.id, lane.id as lane_id, lane.turn, lane.last, min(x.place) as place from lane cross join lateral (
    -- Timers and requests need no room, so calls that wait for it must not hide them.
    (select y.id, y.due_at as place from items y where y.lane_id = lane.id and y.lease_id is null
       and y.kind not in ('discover', 'step') and y.due_at <= clock() order by y.due_at limit :per_lane::int)
    union all
    (select y.id, y.due_at from items y where not lane.is_ranked and y.lane_id = lane.id and y.lease_id is null
       and y.kind in ('discover', 'step') and y.due_at <= clock() order by y.due_at limit :per_lane::int)
    union all
    (select y.id, y.rank from items y where lane.is_ranked and y.lane_id = lane.id and y.lease_id is null
       and y.rank is not null and y.due_at <= clock() order by y.rank limit :per_lane::int)
    union all
    -- Runs that have their place under a limit of runs: those who wait for it must not hide them.
    (select y.id, '-infinity' from unnest(lane.flow_key_ids, lane.limit_ids) as k (id, limit_id)
       join flow_limits f on f.id = k.limit_id and f.kind = 'runs'
       join slots s on s.flow_key_id = k.id and s.lease_id = s.run_id join items y on y.run_id = s.run_id
     where not lane.is_ranked and y.lane_id = lane.id and y.lease_id is null
       and y.kind in ('discover', 'step') and y.due_at <= clock() order by y.due_at limit :per_lane::int)
  ) x
  group by x.id, lane.id, lane.turn, lane.last
)
select lane.id as lane_id, lane.flow_key_ids, lane.limit_ids, i.id, i.kind, i.run_id, i.key, i.fence, clock() as now
from lane left join pick p on p.lane_id = lane.id
left join lateral (
  select x.id, x.kind, x.run_id, x.key, x.fence from items x where x.id = p.id and x.lease_id is null for update skip locked
) i on true
order by row_number() over (partition by lane.id order by p.place), lane.turn, lane.seen, lane.last limit :room::int

-- name: make_flow_keys
-- Keys that were tidied away while nobody used them.
insert into flow_keys (id, account_id, environment_id, function_id, scope)
select distinct on (k.id) k.id, l.account_id, l.environment_id, l.function_id, 'function'
from lanes l cross join lateral unnest(l.flow_key_ids) as k (id)
where l.id = any(:lanes::uuid[]) and k.id = any(:ids::uuid[])
order by k.id on conflict (id) do nothing

-- name: lock_flow_keys
-- The counters of limits, always in the order of their ids (rule 9). What is used of them is read by the next statement: one
-- that waited for a lock still sees other tables as they were when it began.
select k.id from flow_keys k where k.id = any(:ids::uuid[]) order by k.id for no key update

-- name: flow_states
-- What is used of held keys, and which of the runs hold a slot for their whole life.
select k.id, k.tat, case when k.cap_until is null or k.cap_until > clock() then k.cap end as cap, k.waited_since,
  (select count(*)::int from slots s where s.flow_key_id = k.id) as live,
  array(select s.run_id from slots s where s.flow_key_id = k.id and s.lease_id = any(:runs::uuid[])) as runs
from flow_keys k where k.id = any(:ids::uuid[])

-- name: limits
-- What limits allow now: a change by people holds until it is over.
select f.id, f.kind, case when f.own_until > clock() then f.own_cap else f.cap end as cap,
  case when f.own_until > clock() then f.own_every else f.every end as every
from flow_limits f where f.id = any(:ids::uuid[])

-- name: lease_limited
-- Leases the admitted items, takes their slots, marks the keys that refused somebody and sets the lanes' clocks. A first item
-- goes over to the lane of its run: whatever becomes of it, it has started. Who was refused looks again when a slot comes
-- free; where that hint is lost with its worker, after 0.8 s, so that the look itself is within the second (rule 17).
with pick as materialized (
  select * from unnest(:item_ids::uuid[], :lease_ids::uuid[]) as p (id, lease_id)
), taken as (
  update items i set lease_id = p.lease_id, worker_id = :worker::uuid, leased_at = clock(), fence = i.fence + 1,
    lane_id = case when i.kind not in ('discover', 'step') then i.lane_id else r.lane_id end, rank = null
  from pick p, runs r where i.id = p.id and r.id = i.run_id
  returning i.id, i.run_id, i.lane_id, i.key, i.kind, i.step_key, i.attempt, i.redeliveries, i.fence, i.lease_id,
    i.environment_id, i.account_id, i.function_id, i.due_at, i.held_due
), slotted as (
  insert into slots (flow_key_id, lease_id, account_id, environment_id, run_id, item_id)
  select s.flow_key_id, case when s.whole_run then t.run_id else t.lease_id end, t.account_id, t.environment_id, t.run_id, t.id
  from unnest(:slot_keys::uuid[], :slot_leases::uuid[], :slot_whole::bool[]) as s (flow_key_id, lease_id, whole_run)
  join taken t on t.lease_id = s.lease_id
  on conflict (flow_key_id, lease_id) do nothing
), waited as (
  update flow_keys k set tat = coalesce(x.tat, k.tat),
    waited_since = case when k.id = any(:refused::uuid[]) then coalesce(k.waited_since, clock()) end
  from unnest(:key_ids::uuid[], :key_tats::timestamptz[]) as x (id, tat)
  where k.id = x.id and ((k.id = any(:refused::uuid[])) <> (k.waited_since is not null) or x.tat is distinct from k.tat)
), served as (
  update lanes l set served_at = case when b.is_served then clock() else l.served_at end,
    blocked_by = b.flow_key_id, blocked_until = case when b.flow_key_id is not null then coalesce(b.until, clock() + interval '0.8 seconds') end,
    next_due = case when b.flow_key_id is not null then least(coalesce(b.until, clock() + interval '0.8 seconds'), (
      select y.due_at from items y where y.lane_id = l.id and y.lease_id is null and y.kind not in ('discover', 'step')
        and not exists (select from pick p where p.id = y.id) order by y.due_at limit 1)) else coalesce((
      select min(x.due_at) from (
        select y.due_at from items y where y.lane_id = l.id and y.lease_id is null and not exists (select from pick p where p.id = y.id)
        order by y.due_at limit 1) x), 'infinity') end
  from unnest(:lane_ids::uuid[], :lane_blocked_by::uuid[], :lane_until::timestamptz[], :lane_served::bool[])
    as b (id, flow_key_id, until, is_served) where l.id = b.id
)
select t.*, clock() as now from taken t

-- name: load
-- Runs with their steps, items and first event, as one consistent picture; memos only for who makes the next call.
select r.id, r.account_id, r.environment_id, r.app_id, r.function_id, r.function_version, r.lane_id, r.status, r.version,
  r.request_version, r.is_planned, r.is_quiet, r.completed, r.pending, r.group_key, r.discoveries, r.state_bytes,
  r.max_attempts, r.event_id, r.event_received_at, r.batch_size, r.parent_run_id, r.parent_step_key, r.queued_at,
  r.started_at, r.ended_at, r.finish_within, f.slug, f.url, coalesce(f.own_backoff, f.backoff) as backoff, v.name as environment_name,
  (select a.plan from accounts a where a.id = r.account_id) as plan,
  case when r.batch_size > 1 then (
    select array_agg(b.payload order by x.position) from run_events x
    join events b on b.environment_id = x.environment_id and b.id = x.event_id and b.received_at = x.received_at
    where x.run_id = r.id) end as more_events,
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

-- name: lock_items
-- Waits for leases of these runs' items that are under way: the next statement, which ends the runs, sees their slots.
select i.id from items i where i.run_id = any(:run_ids::uuid[]) order by i.id for update

-- name: item_fences
-- The fences of items whose runs are held.
select i.id, i.fence, i.attempt from items i where i.id = any(:item_ids::uuid[]) for update

-- name: handed_on
-- Those of an entry's successors that are held as the entry has them: it was written.
select i.id from items i join unnest(:item_ids::uuid[], :lease_ids::uuid[]) as x (id, lease_id)
  on x.id = i.id and x.lease_id = i.lease_id
where i.worker_id = :worker::uuid

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
