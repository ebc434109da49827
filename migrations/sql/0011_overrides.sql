-- Limits that people change while work waits, a retry policy of one's own, and indexes for large backlogs.

-- What people set on a limit, until when; beside what the code says, so a sync does not undo it and its end needs no sync.
alter table flow_limits add column own_cap integer check (own_cap >= 0), add column own_every interval,
  add column own_until timestamptz;

-- A held function makes runs and calls nothing. `backoff` is the retry policy of the code, `own_backoff` that of people:
-- "initial ms:factor:cap ms" (app/domain/backoff.py).
alter table functions add column held_until timestamptz, add column backoff text, add column own_backoff text;
create index functions_held on functions (held_until) where held_until is not null;

-- Every change by people, for as long as it holds and afterwards. What it changes lies in the columns that the queue reads.
create table overrides (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  function_id uuid not null references functions (id) on delete cascade,
  kind text not null check (kind in ('limit', 'key', 'hold', 'retry')),
  -- Of a limit: which, and what it allows. Of a key: which, and how many slots it has (0: it is held).
  limit_id uuid,
  flow_key_id uuid,
  -- What it changes, in words: `concurrency`, `key "anna" of concurrency`, …
  subject text not null,
  setting text not null,
  reason text not null default '',
  actor text not null,
  created_at timestamptz not null default clock(),
  until timestamptz,
  ended_at timestamptz,
  ended_by text,
  changed_at timestamptz not null default clock(),
  check ((ended_at is null) = (ended_by is null)),
  check (kind = 'retry' or until is not null)
);
create index overrides_function on overrides (function_id, created_at desc);
create index overrides_until on overrides (until) where ended_at is null and until is not null;
create index overrides_changed on overrides (changed_at);
select protect_tenants('overrides');

-- Timers and requests in a gated lane are found without passing the calls that wait there.
create index items_beside_calls on items (lane_id, due_at) where lease_id is null and kind not in ('discover', 'step');
drop index items_timers;
-- Crons whose function or app was archived, to be taken up again when it is back.
create index schedules_parked on schedules (function_id) where next_due = 'infinity';
-- Lanes without limits, environment by environment, as those with limits have it already.
create index lanes_environment_free on lanes (environment_id, next_due) where not is_gated and next_due < 'infinity';
-- Items set aside while their function is stopped are found without reading the others.
create index items_parked on items (function_id) where held_due is not null;
