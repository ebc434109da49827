-- What steps need beyond the first shape: requests that the worker makes, deferred runs, the rules
-- and orders that cancel runs, and items of a paused function.

-- The request of a gateway step, sealed: it may hold credentials. Gone when the step has its outcome.
create table gateway_calls (
  run_id uuid not null,
  step_key text not null,
  account_id uuid not null,
  environment_id uuid not null,
  sealed bytea not null,
  created_at timestamptz not null default clock(),
  primary key (run_id, step_key)
);

-- Functions to be started when their parent has ended. `opening` is the event up to its time, whose data holds the input.
create table defers (
  run_id uuid not null,
  defer_key text not null,
  account_id uuid not null,
  environment_id uuid not null,
  function_slug text not null,
  input text not null,
  opening text not null,
  event_id uuid not null,
  state text not null check (state in ('pending', 'aborted', 'scheduled', 'rejected')),
  created_at timestamptz not null default clock(),
  primary key (run_id, defer_key)
);

-- Rules that cancel a run by an event are waits of kind 'cancel'; they end at `expires_at`, without a timer.
alter table pauses add column expires_at timestamptz;
alter table pauses drop constraint pauses_kind_check;
alter table pauses add constraint pauses_kind_check check (kind in ('wait_for_event', 'wait_for_signal', 'invoke', 'cancel'));

alter table items drop constraint items_kind_check;
alter table items add constraint items_kind_check
  check (kind in ('discover', 'step', 'sleep', 'timeout', 'gateway', 'start_timeout', 'finish_timeout'));
-- When it was due before its function was paused.
alter table items add column held_due timestamptz;

-- How long after its start the run is cancelled, frozen with the run.
alter table runs add column finish_within interval;

-- Orders to cancel many runs; worked off in slices, and a filter on runs of their time that appear later.
create table cancellations (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  app_id uuid not null,
  function_id uuid not null,
  function_slug text not null,
  app_name text not null,
  started_after timestamptz,
  started_before timestamptz not null,
  expression text,
  cause text not null default 'api',
  created_at timestamptz not null default clock(),
  deleted_at timestamptz,
  -- Progress: where the pass stands, whether it left somebody out, when to go on; null when nothing is left to do.
  position uuid,
  has_missed boolean not null default false,
  due_at timestamptz default clock(),
  cancelled integer not null default 0,
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);
create index cancellations_environment on cancellations (environment_id, id desc);
create index cancellations_due on cancellations (due_at) where due_at is not null and deleted_at is null;

select protect_tenants(t) from unnest(array['gateway_calls', 'defers', 'cancellations']) t;
