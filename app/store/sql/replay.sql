-- name: original
-- A run that is to be made again, with what its function is now.
select r.id, r.function_id, r.status, r.completed, r.ended_at, r.batch_size, f.paused_at,
  (f.archived_at is not null or a.archived_at is not null) as is_gone, o.stops_for, e.payload as event, clock() as now
from runs r join functions f on f.id = r.function_id join apps a on a.id = f.app_id join accounts o on o.id = r.account_id
left join events e on e.environment_id = r.environment_id and e.id = r.event_id and e.received_at = r.event_received_at
where r.account_id = :account::uuid and r.environment_id = :environment::uuid and r.id = :run_id::uuid

-- name: function
-- The function as it is now, with the plan its limits are read by; the columns of `of_environment` (functions.sql).
select f.id, f.app_id, a.name as app_name, a.sdk, f.slug, f.name, f.version, f.url, f.config, f.paused_at, f.held_until, f.own_backoff,
  a.archived_at, a.synced_at,
  array(select o.limit_id from overrides o where o.function_id = f.id and o.kind = 'limit' and o.ended_at is null) as changed_limits, n.plan
from functions f join apps a on a.id = f.app_id join accounts n on n.id = f.account_id
where f.account_id = :account::uuid and f.environment_id = :environment::uuid and f.id = :function::uuid

-- name: steps
-- The steps of that run, settled ones in memo order.
select s.step_key, s.name, s.kind, s.step_type, s.state, s.memo_order from steps s
where s.account_id = :account::uuid and s.environment_id = :environment::uuid and s.run_id = :run_id::uuid
order by s.memo_order nulls last, s.step_key

-- name: event
-- The event of a run, to be edited.
select e.payload from runs r join events e on e.environment_id = r.environment_id and e.id = r.event_id
  and e.received_at = r.event_received_at
where r.account_id = :account::uuid and r.environment_id = :environment::uuid and r.id = :run_id::uuid

-- name: create
-- The new run with the steps it keeps, its first item ready, and its first line of history. Nothing if it is there.
with kept as materialized (
  select s.*, row_number() over (order by s.memo_order)::int as place from steps s
  where s.account_id = :account::uuid and s.environment_id = :environment::uuid and s.run_id = :original::uuid
    and s.step_key = any(:keep::text[])
), own_event as (
  -- An edited event is stored like any other but put before nobody: it is this run's alone.
  insert into events (environment_id, id, received_at, account_id, name, ts, payload, source)
  select r.environment_id, :event::uuid, clock(), r.account_id, r.event_name, e.ts, :payload::text, 'replay'
  from runs r join events e on e.environment_id = r.environment_id and e.id = r.event_id and e.received_at = r.event_received_at
  where r.account_id = :account::uuid and r.environment_id = :environment::uuid and r.id = :original::uuid
    and :event::uuid is not null
  returning id, received_at
), event_bytes as materialized (
  select coalesce(sum(octet_length(e.payload)), 0)::bigint as bytes from runs r
  join lateral (
    select r.event_id as id, r.event_received_at as received_at
    union all select v.event_id, v.received_at from run_events v where v.run_id = r.id
  ) x on true
  join events e on e.environment_id = r.environment_id and e.id = x.id and e.received_at = x.received_at
  where r.account_id = :account::uuid and r.environment_id = :environment::uuid and r.id = :original::uuid
), made as (
  insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status, commit_id, is_quiet,
    max_attempts, event_id, event_received_at, event_name, batch_size, original_run_id, cron, queued_at, discoveries, completed,
    kept, state_bytes)
  select :run_id::uuid, r.account_id, r.environment_id, f.app_id, r.function_id, f.version, :lane::uuid, 'queued',
    :commit_id::uuid, r.is_quiet, :max_attempts::int,
    coalesce((select o.id from own_event o), r.event_id), coalesce((select o.received_at from own_event o), r.event_received_at),
    r.event_name, r.batch_size, r.id, r.cron, clock(), 1, (select count(*) from kept), (select count(*) from kept),
    coalesce(octet_length(:payload::text), (select b.bytes from event_bytes b))
    + (select coalesce(sum(octet_length(k.memo) + coalesce(octet_length(k.input), 0)
      + coalesce(octet_length(k.opts), 0)), 0) from kept k)
  from runs r join functions f on f.id = r.function_id
  where r.account_id = :account::uuid and r.environment_id = :environment::uuid and r.id = :original::uuid
  on conflict (id) do nothing
  returning id, account_id, environment_id, function_id
), copied as (
  insert into steps (run_id, step_key, account_id, environment_id, kind, name, step_type, state, is_race, memo_order, memo,
    input, opts, error, created_at, settled_at)
  select m.id, k.step_key, k.account_id, k.environment_id, k.kind, k.name, k.step_type, k.state, k.is_race, k.place, k.memo,
    k.input, k.opts, k.error, k.created_at, k.settled_at
  from kept k cross join made m
), edited as (
  -- Known as failed inline: whatever the app reports for it is news, and calls carry its input (protocol 10.3).
  insert into steps (run_id, step_key, account_id, environment_id, kind, name, step_type, state, input)
  select m.id, s.step_key, m.account_id, m.environment_id, s.kind, s.name, s.step_type, 'retrying', :input::text
  from steps s cross join made m
  where s.account_id = :account::uuid and s.environment_id = :environment::uuid and s.run_id = :original::uuid
    and s.step_key = :edited::text
), more_events as (
  insert into run_events (run_id, position, account_id, environment_id, event_id, received_at)
  select m.id, v.position, v.account_id, v.environment_id, v.event_id, v.received_at
  from run_events v cross join made m where v.run_id = :original::uuid and v.environment_id = :environment::uuid
), queued as (
  insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, rank, due_at)
  select :item_id::uuid, m.account_id, m.environment_id, m.function_id, m.id, :item_lane::uuid, 'start', 'discover',
    clock() - :head_start::interval, clock() from made m
), told as (
  insert into history (run_id, version, position, account_id, environment_id, kind, detail)
  select m.id, 0, 1, m.account_id, m.environment_id, 'run.created', :detail::text from made m
), told_kept as (
  -- A kept step has its line too (I6), dated by when it was settled in truth.
  insert into history (run_id, version, position, account_id, environment_id, kind, step_key, at, detail)
  select m.id, 0, k.place + 1, m.account_id, m.environment_id, 'step.' || k.state, k.step_key, k.settled_at, '{"kept": 1}'
  from kept k cross join made m
), woken as (
  update lanes l set next_due = clock() from made m where l.id = :item_lane::uuid and l.next_due > clock()
    and (l.blocked_until is null or l.blocked_until <= clock())
)
select id from made

-- name: replays_of
-- The runs made from a run, the oldest first.
select r.id, r.status from runs r
where r.account_id = :account::uuid and r.environment_id = :environment::uuid and r.original_run_id = :run_id::uuid
order by r.id limit 100
