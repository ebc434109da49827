-- The shape of the truth. Read top to bottom: clock and roles, people and tenants, code, events, runs, queue, flow.
-- Hot tables (events and below) carry account and environment in every row and have no foreign keys between each
-- other: docs/invariants.sql checks what a foreign key would. Payloads are text, never jsonb (it rewrites numbers
-- and refuses \u0000).

-- Every statement asks this clock. Only tests move it: alter database … set stepwell.clock_offset = '3 days'.
create function clock() returns timestamptz language sql stable parallel safe as
$$ select now() + coalesce(nullif(current_setting('stepwell.clock_offset', true), ''), '0')::interval $$;

-- The tenant of this transaction; null when none is set, and null matches nothing.
create function current_account() returns uuid language sql stable parallel safe as
$$ select nullif(current_setting('app.account', true), '')::uuid $$;

do $$
begin
  begin create role stepwell_app nologin; exception when duplicate_object or unique_violation or insufficient_privilege then null; end;
  begin create role stepwell_engine nologin; exception when duplicate_object or unique_violation or insufficient_privilege then null; end;
  begin execute format('grant stepwell_app, stepwell_engine to %I', current_user); exception when others then null; end;
end $$;

-- ---------------------------------------------------------------- people and tenants

create table accounts (
  id uuid primary key,
  name text not null check (octet_length(name) between 1 and 200),
  slug text not null unique,
  plan text not null default 'self_hosted',
  created_at timestamptz not null default clock()
);

create table users (
  id uuid primary key,
  email text not null check (octet_length(email) between 3 and 320),
  name text not null default '',
  password_hash text,
  created_at timestamptz not null default clock(),
  verified_at timestamptz,
  password_changed_at timestamptz
);
create unique index users_email on users (lower(email));

create table memberships (
  account_id uuid not null references accounts (id) on delete cascade,
  user_id uuid not null references users (id) on delete cascade,
  role text not null check (role in ('owner', 'admin', 'member', 'viewer')),
  created_at timestamptz not null default clock(),
  primary key (account_id, user_id)
);
create index memberships_user on memberships (user_id);

create table sessions (
  id_hash bytea primary key,
  user_id uuid not null references users (id) on delete cascade,
  account_id uuid,
  csrf_hash bytea not null,
  created_at timestamptz not null default clock(),
  seen_at timestamptz not null default clock(),
  expires_at timestamptz not null,
  network text not null default '',
  agent text not null default '' check (octet_length(agent) <= 500)
);
create index sessions_user on sessions (user_id);

-- Failed logins by account address and by network; a Redis wipe must not reset them.
create table login_attempts (
  kind text not null check (kind in ('address', 'network')),
  key_hash bytea not null,
  window_start timestamptz not null,
  failures integer not null default 0,
  primary key (kind, key_hash)
);

create table environments (
  id uuid primary key,
  account_id uuid not null references accounts (id) on delete cascade,
  name text not null check (octet_length(name) between 1 and 100),
  slug text not null,
  kind text not null check (kind in ('production', 'custom', 'branch', 'dev')),
  -- Grows with every change of functions, apps or keys; processes compare it before they trust their copy.
  catalogue_version bigint not null default 1,
  created_at timestamptz not null default clock(),
  archived_at timestamptz,
  unique (account_id, slug),
  unique (account_id, id)
);

create table event_keys (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  name text not null,
  secret_hash bytea not null unique,
  secret_sealed bytea not null,
  prefix text not null,
  last_four text not null,
  created_by uuid,
  created_at timestamptz not null default clock(),
  revoked_at timestamptz,
  used_at timestamptz,
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);
create index event_keys_environment on event_keys (environment_id);

-- `bearer_hash` is the sha256 of the token that SDKs send (itself a hash of the key, protocol 4.5), because the token is as
-- good as the key; `plain_hash` is sha256 of the text without prefix, for people who paste the plain key.
create table signing_keys (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  state text not null check (state in ('current', 'next', 'revoked')),
  bearer_hash bytea not null unique,
  plain_hash bytea not null unique,
  secret_sealed bytea not null,
  prefix text not null,
  last_four text not null,
  created_by uuid,
  created_at timestamptz not null default clock(),
  revoked_at timestamptz,
  used_at timestamptz,
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);
create unique index signing_keys_current on signing_keys (environment_id) where state = 'current';

create table audit_log (
  id uuid primary key,
  account_id uuid,
  environment_id uuid,
  actor_id uuid,
  actor text not null,
  action text not null,
  object text not null default '',
  detail text not null default '{}',
  network text not null default '',
  at timestamptz not null default clock()
);
create index audit_log_account on audit_log (account_id, at desc);

-- ---------------------------------------------------------------- code: apps, syncs, functions

create table apps (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  name text not null check (octet_length(name) between 1 and 255),
  url text not null,
  sdk text not null default '',
  framework text not null default '',
  checksum text not null default '',
  error_code text,
  error text,
  created_at timestamptz not null default clock(),
  synced_at timestamptz,
  archived_at timestamptz,
  unique (environment_id, name),
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);

create table syncs (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  app_id uuid,
  url text not null,
  kind text not null check (kind in ('in_band', 'out_of_band')),
  status text not null check (status in ('pending', 'succeeded', 'unchanged', 'failed')),
  sdk text not null default '',
  framework text not null default '',
  added text[] not null default '{}',
  changed text[] not null default '{}',
  removed text[] not null default '{}',
  error_code text,
  error text,
  started_at timestamptz not null default clock(),
  ended_at timestamptz,
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);
create index syncs_app on syncs (app_id, started_at desc);
create index syncs_environment on syncs (environment_id, started_at desc);

create table functions (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  app_id uuid not null references apps (id) on delete cascade,
  slug text not null check (octet_length(slug) between 1 and 512),
  name text not null,
  version integer not null default 1,
  url text not null,
  config text not null,
  created_at timestamptz not null default clock(),
  updated_at timestamptz not null default clock(),
  archived_at timestamptz,
  paused_at timestamptz,
  unique (environment_id, slug),
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);
create index functions_app on functions (app_id);

create table function_versions (
  function_id uuid not null references functions (id) on delete cascade,
  version integer not null,
  account_id uuid not null,
  environment_id uuid not null,
  config text not null,
  url text not null,
  valid_from timestamptz not null default clock(),
  valid_to timestamptz,
  primary key (function_id, version)
);

-- ---------------------------------------------------------------- events

-- `id` may be chosen by the sender (seed header), so partitions and order go by our own received_at.
create table events (
  environment_id uuid not null,
  id uuid not null,
  received_at timestamptz not null,
  account_id uuid not null,
  name text not null check (octet_length(name) <= 512),
  client_id text check (octet_length(client_id) <= 256),
  ts bigint not null,
  payload text not null,
  original text,
  source text not null default 'api',
  primary key (environment_id, id, received_at)
) partition by range (received_at);
create index events_recent on events (environment_id, received_at desc);

-- Events nobody has reacted to yet. Done means deleted, in the transaction that wrote what the event set off.
create table inbox (
  environment_id uuid not null,
  event_id uuid not null,
  received_at timestamptz not null,
  account_id uuid not null,
  -- A child's end resumes its parent through here (architecture 5, rule 9).
  correlation text,
  primary key (environment_id, event_id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);
create index inbox_age on inbox (received_at);

-- Requests with a seed header, remembered for 24 h: the same request again stores nothing and gets the same ids.
create table ingest_seeds (
  environment_id uuid not null,
  account_id uuid not null,
  seed text not null,
  body_sha bytea not null,
  ids uuid[] not null,
  expires_at timestamptz not null,
  primary key (environment_id, seed)
);
create index ingest_seeds_expiry on ingest_seeds (expires_at);

-- One run per (function, client's event id or idempotency key) and 24 h.
create table dedupe (
  environment_id uuid not null,
  function_id uuid not null,
  key text not null,
  account_id uuid not null,
  run_id uuid not null,
  expires_at timestamptz not null,
  primary key (environment_id, function_id, key)
);
create index dedupe_expiry on dedupe (expires_at);

-- The answer an event got for a function that did not become a run.
create table dispositions (
  environment_id uuid not null,
  event_id uuid not null,
  function_id uuid not null,
  account_id uuid not null,
  outcome text not null check (outcome in
    ('duplicate', 'filtered', 'expression_error', 'rate_limited', 'debounced', 'batched', 'paused', 'backlog', 'singleton')),
  detail text not null default '',
  run_id uuid,
  at timestamptz not null default clock(),
  primary key (environment_id, event_id, function_id)
);

-- ---------------------------------------------------------------- runs

-- Small rows, changed in place; payloads live in the partitioned tables steps and history.
create table runs (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  app_id uuid not null,
  function_id uuid not null,
  function_version integer not null,
  lane_id uuid not null,
  status text not null check (status in ('queued', 'running', 'completed', 'failed', 'cancelled', 'skipped')),
  version integer not null default 0,
  commit_id uuid not null,
  request_version integer not null default -1,
  is_planned boolean not null default false,
  is_quiet boolean not null default false,
  completed integer not null default 0,
  pending integer not null default 0,
  group_key text,
  discoveries integer not null default 0,
  state_bytes bigint not null default 0,
  max_attempts integer not null,
  event_id uuid not null,
  event_received_at timestamptz not null,
  event_name text not null,
  batch_size integer not null default 1,
  parent_run_id uuid,
  parent_step_key text,
  original_run_id uuid,
  cron text,
  queued_at timestamptz not null,
  started_at timestamptz,
  ended_at timestamptz,
  error_code text,
  error_name text,
  error_message text,
  check ((status in ('completed', 'failed', 'cancelled', 'skipped')) = (ended_at is not null))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
create index runs_environment on runs (environment_id, id desc);
create index runs_function on runs (environment_id, function_id, id desc);
create index runs_status on runs (environment_id, status, id desc);
create index runs_event on runs (environment_id, event_id);

-- The events of a run beyond the first (batches).
create table run_events (
  run_id uuid not null,
  position integer not null,
  account_id uuid not null,
  environment_id uuid not null,
  event_id uuid not null,
  received_at timestamptz not null,
  primary key (run_id, position)
);

create table steps (
  run_id uuid not null,
  step_key text not null,
  account_id uuid not null,
  environment_id uuid not null,
  kind text not null,
  name text not null,
  step_type text,
  state text not null check (state in
    ('planned', 'retrying', 'sleeping', 'waiting', 'invoking', 'completed', 'failed', 'cancelled')),
  is_member boolean not null default false,
  is_race boolean not null default false,
  -- Place in the memo order, 1 upwards; null while the step is not settled.
  memo_order integer,
  memo text,
  input text,
  opts text,
  error text,
  created_at timestamptz not null default clock(),
  settled_at timestamptz,
  primary key (run_id, step_key),
  check ((memo_order is null) = (memo is null))
) partition by range (run_id);

-- What happened to a run, in order: (version, position) of the commit that wrote it.
create table history (
  run_id uuid not null,
  version integer not null,
  position integer not null,
  account_id uuid not null,
  environment_id uuid not null,
  kind text not null,
  step_key text,
  item_key text,
  attempt integer,
  started_at timestamptz,
  at timestamptz not null default clock(),
  detail text,
  primary key (run_id, version, position)
) partition by range (run_id);

-- A stored outcome never changes (I6), whoever asks.
create function steps_are_written_once() returns trigger language plpgsql as $$
begin
  if old.memo_order is not null and (new.memo is distinct from old.memo or new.memo_order is distinct from old.memo_order) then
    raise exception 'step % of run % already has an outcome', old.step_key, old.run_id using errcode = 'check_violation';
  end if;
  return new;
end $$;
create trigger steps_written_once before update on steps
  for each row when (old.memo_order is not null) execute function steps_are_written_once();

-- ---------------------------------------------------------------- queue

create table lanes (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  function_id uuid not null,
  key text not null default '',
  -- The limits every item of the lane must pass, frozen with the lane.
  flow_key_ids uuid[] not null default '{}',
  next_due timestamptz not null default 'infinity',
  served_at timestamptz not null default '-infinity',
  blocked_by uuid,
  blocked_until timestamptz,
  unique (environment_id, function_id, key)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
create index lanes_due on lanes (next_due);

-- All future work of a run, and the work being done. Settled means deleted.
create table items (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  function_id uuid not null,
  run_id uuid not null,
  lane_id uuid not null,
  key text not null,
  kind text not null check (kind in ('discover', 'step', 'sleep', 'timeout')),
  step_key text,
  attempt integer not null default 0,
  redeliveries integer not null default 0,
  due_at timestamptz not null,
  -- Raised by every lease and every rescue; travels to the app as generation_id.
  fence bigint not null default 0,
  lease_id uuid,
  worker_id uuid,
  leased_at timestamptz,
  created_at timestamptz not null default clock(),
  check ((lease_id is null) = (worker_id is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);
create index items_ready on items (lane_id, due_at) where lease_id is null;
create index items_timers on items (lane_id, due_at) where lease_id is null and kind in ('sleep', 'timeout');
create index items_due on items (due_at) where lease_id is null;
create index items_run on items (run_id);
create index items_worker on items (worker_id) where worker_id is not null;

create table pauses (
  run_id uuid not null,
  step_key text not null,
  account_id uuid not null,
  environment_id uuid not null,
  kind text not null check (kind in ('wait_for_event', 'wait_for_signal', 'invoke')),
  event_name text,
  expression text,
  -- The equality by which the wait is found: async.<match_path> = match_value; null path means every event of the name.
  match_path text,
  match_value text,
  signal text,
  correlation text,
  requested_at timestamptz not null,
  rechecked_at timestamptz,
  primary key (run_id, step_key)
);
create index pauses_event on pauses (environment_id, event_name, match_path, match_value) where event_name is not null;
create unique index pauses_signal on pauses (environment_id, signal) where signal is not null;
create index pauses_correlation on pauses (environment_id, correlation) where correlation is not null;
create index pauses_unchecked on pauses (requested_at) where rechecked_at is null;

-- Who may lease. One row renewed for all leases of a worker (architecture 5, rule 10).
create table workers (
  id uuid primary key,
  name text not null,
  host text not null,
  pid integer not null,
  started_at timestamptz not null default clock(),
  lease_until timestamptz not null,
  stopping_at timestamptz
);
create index workers_name on workers (name);

-- ---------------------------------------------------------------- flow control

create table flow_keys (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid,
  function_id uuid,
  scope text not null check (scope in ('function', 'environment', 'account')),
  key text not null default '',
  cap integer not null,
  -- Set by a refused lease, cleared when nobody waits any more; tells holders to give way.
  waited_since timestamptz
);

create table slots (
  flow_key_id uuid not null,
  lease_id uuid not null,
  account_id uuid not null,
  environment_id uuid not null,
  run_id uuid not null,
  item_id uuid not null,
  taken_at timestamptz not null default clock(),
  primary key (flow_key_id, lease_id)
);
create index slots_lease on slots (lease_id);
create index slots_run on slots (run_id);

-- ---------------------------------------------------------------- partitions

-- The smallest ULID of a day, as uuid.
create function ulid_floor(at timestamptz) returns uuid language sql immutable as
$$ select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;

-- Makes the day partitions of [from_day, to_day]; existing ones stay. Returns how many it made.
create function make_partitions(from_day date, to_day date) returns integer language plpgsql as $$
declare
  d date; made integer := 0; parent text; part text; lo text; hi text;
begin
  for d in select generate_series(from_day, to_day, interval '1 day')::date loop
    foreach parent in array array['events', 'steps', 'history'] loop
      part := format('%s_%s', parent, to_char(d, 'YYYYMMDD'));
      continue when to_regclass(part) is not null;
      if parent = 'events' then
        lo := quote_literal((d::timestamp at time zone 'UTC')::text); hi := quote_literal(((d + 1)::timestamp at time zone 'UTC')::text);
      else
        lo := quote_literal(ulid_floor(d::timestamp at time zone 'UTC')); hi := quote_literal(ulid_floor((d + 1)::timestamp at time zone 'UTC'));
      end if;
      execute format('create table %I partition of %I for values from (%s) to (%s)', part, parent, lo, hi);
      perform protect_tenants(part);
      made := made + 1;
    end loop;
  end loop;
  return made;
end $$;

-- Row-level security with the two policies every tenant table has: pages see one account, the engine sees all.
create function protect_tenants(target text) returns void language plpgsql as $$
begin
  execute format('alter table %I enable row level security', target);
  execute format('alter table %I force row level security', target);
  execute format('create policy tenant on %I for all to stepwell_app using (account_id = current_account()) with check (account_id = current_account())', target);
  execute format('create policy engine on %I for all to stepwell_engine using (true) with check (true)', target);
  execute format('grant select, insert, update, delete on %I to stepwell_app, stepwell_engine', target);
end $$;

create table events_default partition of events default;
create table steps_default partition of steps default;
create table history_default partition of history default;

select protect_tenants(t) from unnest(array[
  'memberships', 'environments', 'event_keys', 'signing_keys', 'audit_log', 'apps', 'syncs', 'functions', 'function_versions',
  'events', 'events_default', 'inbox', 'ingest_seeds', 'dedupe', 'dispositions', 'runs', 'run_events', 'steps', 'steps_default',
  'history', 'history_default', 'lanes', 'items', 'pauses', 'flow_keys', 'slots']) t;

-- People read their own memberships before an account is chosen.
create policy own_memberships on memberships for select to stepwell_app
  using (user_id = nullif(current_setting('app.user', true), '')::uuid);
alter table accounts enable row level security;
alter table accounts force row level security;
create policy tenant on accounts for all to stepwell_app using (id = current_account()) with check (id = current_account());
create policy own_accounts on accounts for select to stepwell_app using (id in (select account_id from memberships
  where user_id = nullif(current_setting('app.user', true), '')::uuid));
create policy engine on accounts for all to stepwell_engine using (true) with check (true);
grant select, insert, update, delete on accounts, users, sessions, login_attempts, workers to stepwell_app, stepwell_engine;
-- The audit log is append-only for pages.
revoke update, delete on audit_log from stepwell_app;

select make_partitions((clock() at time zone 'UTC')::date - 1, (clock() at time zone 'UTC')::date + 7);
