-- Gates before a run, lanes per key, and what "explain" asks. engine/schedule.py tells the story.

-- name: make_gates
-- Rows of gates nobody has used yet, made in the order of their ids so that two workers cannot wait for each other.
insert into gates (id, account_id, environment_id, function_id, kind, key)
select * from unnest(:id::uuid[], :account::uuid[], :environment::uuid[], :function::uuid[], :kind::text[], :key::text[])
  as t (id, account_id, environment_id, function_id, kind, key)
where not exists (select from gates g where g.id = t.id)
order by t.id on conflict (id) do nothing

-- name: hold_gates
select g.* from gates g where g.id = any(:ids::uuid[]) order by g.id for update

-- name: put_gates
update gates g set tat = p.tat, run_id = p.run_id, event_id = p.event_id, event_received_at = p.event_received_at,
  event_ts = p.event_ts, opened_at = p.opened_at, due_at = p.due_at, size = p.size, bytes = p.bytes, touched_at = clock()
from unnest(:id::uuid[], :tat::timestamptz[], :run::uuid[], :event::uuid[], :event_received_at::timestamptz[],
            :event_ts::bigint[], :opened_at::timestamptz[], :due_at::timestamptz[], :size::int[], :bytes::bigint[])
  as p (id, tat, run_id, event_id, event_received_at, event_ts, opened_at, due_at, size, bytes)
where g.id = p.id

-- name: due_gates
-- Debounces and batches whose timer came due, held until what they start is committed.
select g.*, clock() as now, v.catalogue_version from gates g join environments v on v.id = g.environment_id
where g.due_at <= clock() order by g.due_at limit :room::int for update of g skip locked

-- name: claim_ids
-- The first event with an id of the client's, per function and 24 h; the others are duplicates.
with asked as materialized (
  select * from unnest(:n::int[], :environment::uuid[], :account::uuid[], :function::uuid[], :key::text[], :run::uuid[])
    as t (n, environment_id, account_id, function_id, key, run_id)
), first as (
  select distinct on (environment_id, function_id, key) * from asked order by environment_id, function_id, key, n
), claimed as (
  insert into dedupe as d (environment_id, function_id, key, account_id, run_id, expires_at)
  select environment_id, function_id, key, account_id, run_id, clock() + interval '24 hours' from first
  on conflict (environment_id, function_id, key) do update set run_id = excluded.run_id, expires_at = excluded.expires_at
    where d.expires_at < clock()
  returning d.environment_id, d.function_id, d.key
)
select f.n from first f join claimed c on (c.environment_id, c.function_id, c.key) = (f.environment_id, f.function_id, f.key)

-- name: live_runs
select r.id from runs r where r.id = any(:ids::uuid[]) and r.ended_at is null

-- name: join_batches
-- The further events of batches, under the run each batch is going to be.
insert into run_events (run_id, position, account_id, environment_id, event_id, received_at)
select * from unnest(:run::uuid[], :position::int[], :account::uuid[], :environment::uuid[], :event::uuid[],
                     :received_at::timestamptz[])
on conflict (run_id, position) do nothing

-- name: event
select e.id as event_id, e.received_at, e.name, e.ts, e.client_id, e.payload from events e
where e.environment_id = :environment::uuid and e.id = :event::uuid and e.received_at = :received_at::timestamptz

-- name: backlog
-- Waiting items of an environment, counted no further than the bound.
select count(*)::int as count from (
  select 1 from lanes l join items i on i.lane_id = l.id and i.lease_id is null and i.due_at <= clock()
  where l.environment_id = :environment::uuid limit :most::int
) x

-- name: make_lanes
-- Lanes and keys that are not there yet; existing ones are neither locked nor changed unless they differ or are retired.
with k as (
  insert into flow_keys (id, account_id, environment_id, function_id, scope, key)
  select * from unnest(:key_id::uuid[], :key_account::uuid[], :key_environment::uuid[], :key_function::uuid[],
                       :key_scope::text[], :key_text::text[]) as t (id, account_id, environment_id, function_id, scope, key)
  where not exists (select from flow_keys f where f.id = t.id)
  order by t.id on conflict (id) do nothing
), wanted as materialized (
  select id, account_id, environment_id, function_id, key,
    coalesce(string_to_array(nullif(keys, ''), ','), '{}')::uuid[] as flow_key_ids,
    coalesce(string_to_array(nullif(limits, ''), ','), '{}')::uuid[] as limit_ids, ranked
  from unnest(:lane_id::uuid[], :account::uuid[], :environment::uuid[], :function::uuid[], :lane_key::text[],
              :lane_flow_keys::text[], :lane_limits::text[], :is_ranked::bool[])
    as t (id, account_id, environment_id, function_id, key, keys, limits, ranked)
)
insert into lanes as l (id, account_id, environment_id, function_id, key, flow_key_ids, limit_ids, is_gated, is_ranked, served_at)
select id, account_id, environment_id, function_id, key, flow_key_ids, limit_ids, flow_key_ids <> '{}' or ranked, ranked, clock()
from wanted w
where not exists (select from lanes x where x.id = w.id and x.flow_key_ids = w.flow_key_ids and x.limit_ids = w.limit_ids
                    and x.retired_at is null)
order by id
on conflict (id) do update set flow_key_ids = excluded.flow_key_ids, limit_ids = excluded.limit_ids,
  is_gated = excluded.is_gated, is_ranked = excluded.is_ranked, retired_at = null

-- name: put_limits
-- The limits of functions as they are now; work that waits is compared with them from the next lease on.
with gone as (
  delete from flow_limits where function_id = any(:functions::uuid[]) and id <> all(:id::uuid[])
)
insert into flow_limits as f (id, account_id, environment_id, function_id, kind, cap, every)
select * from unnest(:id::uuid[], :account::uuid[], :environment::uuid[], :function::uuid[], :kind::text[], :cap::int[],
                     :every::interval[])
on conflict (id) do update set cap = excluded.cap, every = excluded.every
  where (f.cap, f.every) is distinct from (excluded.cap, excluded.every)

-- name: unblock
-- Lanes of functions whose limits changed look again at once.
update lanes set blocked_by = null, blocked_until = null, next_due = least(next_due, blocked_until, clock())
where function_id = any(:functions::uuid[]) and blocked_by is not null

-- name: retire_lanes
-- Lanes of key values that nobody used for an hour; they are dropped later, if they stay empty (see drop_lanes).
update lanes l set retired_at = clock() where l.id in (
  select x.id from lanes x
  where x.retired_at is null and x.key <> '' and x.next_due = 'infinity'
    and x.served_at < clock() - interval '1 hour'
  limit :room::int for update skip locked)
returning l.id

-- name: drop_lanes
-- A transaction that saw a lane before it was retired is over by now, so its items are seen here.
with held as materialized (
  select x.id from lanes x where x.retired_at < clock() - interval '15 minutes' limit :room::int for update skip locked
), busy as materialized (
  select h.id from held h where exists (select from items i where i.lane_id = h.id and i.lease_id is null)
    or h.id in (select i.lane_id from items i where i.worker_id is not null)
), back as (
  update lanes l set retired_at = null from busy b where l.id = b.id
)
delete from lanes l using held h where l.id = h.id and not exists (select from busy b where b.id = h.id) returning l.id

-- name: drop_gates
-- Gates whose state says nothing any more: no rate limit looks back further than a day.
delete from gates where id in (
  select g.id from gates g where g.due_at is null and g.touched_at < clock() - interval '25 hours'
    and not exists (select from runs r where r.id = g.run_id and r.ended_at is null)
  limit :room::int for update skip locked)
returning id

-- name: drop_keys
-- Keys without lanes, slots and changes by people; a lease makes a missing key again.
delete from flow_keys where id in (
  select k.id from flow_keys k
  where k.cap is null and coalesce(k.tat, '-infinity') < clock() and not exists (select from slots s where s.flow_key_id = k.id)
    and not exists (select from lanes l where l.function_id = k.function_id and k.id = any(l.flow_key_ids))
    and k.scope = 'function'
  limit :room::int for update skip locked)
returning id

-- name: put_schedules
-- Schedules of functions as they are now. One that is known keeps the due time it still owes an answer for.
with gone as (
  delete from schedules where function_id = any(:functions::uuid[]) and id <> all(:id::uuid[])
)
insert into schedules as s (id, account_id, environment_id, function_id, cron, jitter_ms, next_due)
select id, :account::uuid, :environment::uuid, function_id, cron, jitter_ms, next_due
from unnest(:id::uuid[], :function::uuid[], :cron::text[], :jitter::int[], :due::timestamptz[])
  as t (id, function_id, cron, jitter_ms, next_due)
on conflict (id) do update set jitter_ms = excluded.jitter_ms,
  next_due = case when s.next_due = 'infinity' then excluded.next_due else s.next_due end

-- name: drop_schedules
-- Functions that an app no longer has are not started any more.
delete from schedules where function_id = any(:functions::uuid[])

-- name: due_schedules
select s.id, s.account_id, s.environment_id, s.function_id, s.cron, s.jitter_ms, s.next_due, v.catalogue_version,
  v.archived_at is not null as is_archived, clock() as now
from schedules s join environments v on v.id = s.environment_id
where s.next_due < 'infinity' and s.next_due <= clock()
order by s.next_due limit :room::int for update of s skip locked

-- name: parked_schedules
-- Crons that sleep although all they belong to is in use again.
select s.id, s.cron, clock() as now from schedules s join functions f on f.id = s.function_id join apps a on a.id = f.app_id
join environments v on v.id = s.environment_id
where s.next_due = 'infinity' and f.archived_at is null and a.archived_at is null and v.archived_at is null
limit :room::int for update of s skip locked

-- name: take_up_schedules
update schedules s set next_due = coalesce(t.due, clock() + interval '1 year')
from unnest(:id::uuid[], :due::timestamptz[]) as t (id, due) where s.id = t.id

-- name: answer_schedules
with moved as (
  update schedules s set next_due = coalesce(m.due, 'infinity')
  from unnest(:moved::uuid[], :next::timestamptz[]) as m (id, due) where s.id = m.id
)
insert into schedule_answers (schedule_id, due_at, account_id, environment_id, function_id, outcome, run_id)
select * from unnest(:schedule::uuid[], :due::timestamptz[], :account::uuid[], :environment::uuid[], :function::uuid[],
                     :outcome::text[], :run::uuid[])
on conflict (schedule_id, due_at) do nothing

-- name: store_events
-- Events of our own, put into the inbox like any other.
with v as materialized (
  select * from unnest(:environment::uuid[], :account::uuid[], :id::uuid[], :name::text[], :client_id::text[], :ts::bigint[],
                       :payload::text[]) as t (environment_id, account_id, id, name, client_id, ts, payload)
), stored as (
  insert into events (environment_id, id, received_at, account_id, name, client_id, ts, payload, source)
  select environment_id, id, clock(), account_id, name, client_id, ts, payload, 'internal' from v
  on conflict (environment_id, id, received_at) do nothing
)
insert into inbox (environment_id, event_id, received_at, account_id, name)
select environment_id, id, clock(), account_id, name from v
on conflict (environment_id, event_id) do nothing

-- name: timers
-- Whether a gate's or a schedule's time has come.
select exists (select from gates g where g.due_at <= clock()) as has_gates,
  exists (select from schedules s where s.next_due < 'infinity' and s.next_due <= clock()) as has_schedules
