-- Flow control. Two kinds of counters (docs/adr/0011-where-flow-control-counts.md): `gates` stand before a run exists and
-- are changed in the transaction that reacts to an event; `flow_keys` stand before a lease and are changed in the
-- transaction that leases.

-- What a function's setting allows, one row per setting. Lanes name it beside the key it is applied to, so a new limit
-- holds for work that waits already, and one sync never touches a row per key value.
create table flow_limits (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  function_id uuid,
  kind text not null check (kind in ('calls', 'runs', 'throttle')),
  -- Slots of calls or runs; starts at once beyond the first of a throttle.
  cap integer not null check (cap >= 0),
  -- Time between two starts of a throttle.
  every interval
);
create index flow_limits_function on flow_limits (function_id);

-- `cap` becomes what people set on one key; null leaves it to the limit. `tat`: when a throttle is empty again.
alter table flow_keys alter column cap drop not null;
update flow_keys set cap = null;
alter table flow_keys add column cap_until timestamptz, add column tat timestamptz;

-- `limit_ids` stands beside `flow_key_ids`, one for one. A gated lane is leased by the road that asks for capacity; in a
-- ranked one items go by `rank`.
alter table lanes add column limit_ids uuid[] not null default '{}', add column is_gated boolean not null default false,
  add column is_ranked boolean not null default false, add column retired_at timestamptz;
update lanes set flow_key_ids = '{}';
create index lanes_blocked on lanes (blocked_by) where blocked_by is not null;
create index lanes_environment on lanes (environment_id, next_due) where is_gated and next_due < 'infinity';
create index lanes_gated on lanes (next_due) where is_gated;
-- Limits are written by syncs: the next one of every app is not to be found unchanged.
update apps set checksum = '';

-- Only first items of functions with priority have a rank.
alter table items add column rank timestamptz;
create index items_ranked on items (lane_id, rank) where lease_id is null and rank is not null;

-- One row per gate and key value: the counter of a rate limit, the holder of a singleton, an open debounce or batch
-- (with its timer `due_at`). The events of a batch beyond the first are in run_events, under the run it will be.
create table gates (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  function_id uuid not null,
  kind text not null check (kind in ('rate_limit', 'debounce', 'batch', 'singleton')),
  key text not null default '',
  tat timestamptz,
  run_id uuid,
  event_id uuid,
  event_received_at timestamptz,
  event_ts bigint,
  opened_at timestamptz,
  due_at timestamptz,
  size integer not null default 0,
  bytes bigint not null default 0,
  touched_at timestamptz not null default clock(),
  -- An open debounce or batch always has its timer (I20).
  check ((due_at is null) = (opened_at is null))
) with (fillfactor = 70);
create index gates_due on gates (due_at) where due_at is not null;
create index gates_idle on gates (touched_at) where due_at is null;
create index runs_parent on runs (parent_run_id) where parent_run_id is not null;
create index run_events_event on run_events (environment_id, event_id);

-- A cron of a function. `next_due` is the next nominal time that has no answer yet; the row is locked while it is given.
create table schedules (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  function_id uuid not null references functions (id) on delete cascade,
  cron text not null,
  jitter_ms integer not null default 0,
  next_due timestamptz not null default 'infinity',
  created_at timestamptz not null default clock()
);
create index schedules_due on schedules (next_due) where next_due < 'infinity';
create index schedules_function on schedules (function_id);

-- The answer every due time got (I21): ran, or why not.
create table schedule_answers (
  schedule_id uuid not null,
  due_at timestamptz not null,
  account_id uuid not null,
  environment_id uuid not null,
  function_id uuid not null,
  outcome text not null check (outcome in ('ran', 'missed', 'paused', 'gone')),
  run_id uuid,
  at timestamptz not null default clock(),
  primary key (schedule_id, due_at)
);
create index schedule_answers_at on schedule_answers (at);

select protect_tenants(t) from unnest(array['flow_limits', 'gates', 'schedules', 'schedule_answers']) t;
