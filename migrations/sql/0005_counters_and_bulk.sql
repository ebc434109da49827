-- Minute counters of runs, bulk actions, and what the pages ask about failures.

-- ---------------------------------------------------------------- counters

-- The minute of a run: that of its id, so that counters and lists, which page by id, mean the same range.
create function minute_of(run_id uuid) returns timestamptz language sql immutable strict parallel safe as
$$ select to_timestamp((('x' || replace(left(run_id::text, 13), '-', ''))::bit(48)::bigint / 60000) * 60) $$;

-- Runs by the minute they were made in: how many, and how many of those have ended, and how. What has not ended is the
-- difference. Rows of the same minute differ by shard: every connection adds to its own, so that no two ever wait for
-- each other; shard 0 is what a keeper has added up.
create table usage_minutes (
  environment_id uuid not null,
  function_id uuid not null,
  minute timestamptz not null,
  shard integer not null,
  account_id uuid not null,
  made integer not null default 0,
  completed integer not null default 0,
  failed integer not null default 0,
  cancelled integer not null default 0,
  primary key (environment_id, minute, function_id, shard)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);
create index usage_minutes_shards on usage_minutes (minute) where shard <> 0;

-- Whoever makes runs counts them, in the same statement's transaction; ends are counted by the statement that ends them
-- (app/store/sql/commit.sql, part finish).
create function count_made_runs() returns trigger language plpgsql as $$
begin
  insert into usage_minutes as u (environment_id, function_id, minute, shard, account_id, made, completed, failed, cancelled)
  select r.environment_id, r.function_id, minute_of(r.id), pg_backend_pid(), r.account_id, count(*),
    count(*) filter (where r.status = 'completed'), count(*) filter (where r.status = 'failed'),
    count(*) filter (where r.status in ('cancelled', 'skipped'))
  from made r group by 1, 2, 3, 5 order by 1, 3, 2
  on conflict (environment_id, minute, function_id, shard) do update set made = u.made + excluded.made,
    completed = u.completed + excluded.completed, failed = u.failed + excluded.failed,
    cancelled = u.cancelled + excluded.cancelled;
  return null;
end $$;
create trigger runs_counted after insert on runs referencing new table as made
  for each statement execute function count_made_runs();

insert into usage_minutes (environment_id, function_id, minute, shard, account_id, made, completed, failed, cancelled)
select environment_id, function_id, minute_of(id), 0, account_id, count(*), count(*) filter (where status = 'completed'),
  count(*) filter (where status = 'failed'), count(*) filter (where status in ('cancelled', 'skipped'))
from runs group by 1, 2, 3, 5;

-- ---------------------------------------------------------------- what pages ask

-- Failures alike: the same function and error name, newest first. Only failed runs are in it.
create index runs_failures on runs (environment_id, function_id, error_name, id desc) where status = 'failed';

-- ---------------------------------------------------------------- bulk actions

-- What somebody asked for a set of runs. The set is frozen when it is made: one item per run.
create table bulk_actions (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  action text not null check (action in ('cancel', 'replay')),
  from_step text check (from_step in ('start', 'failed')),
  -- Of the form that asked: the same form twice is one action.
  token text not null,
  reason text not null default '' check (octet_length(reason) <= 1000),
  filters text not null default '',
  total integer not null,
  left_out integer not null default 0,
  actor_id uuid,
  actor text not null,
  made_at timestamptz not null default clock(),
  stopped_at timestamptz,
  unique (environment_id, token)
);
create index bulk_actions_recent on bulk_actions (environment_id, made_at desc);

create table bulk_items (
  bulk_id uuid not null,
  run_id uuid not null,
  account_id uuid not null,
  environment_id uuid not null,
  state text not null default 'pending' check (state in ('pending', 'done', 'skipped', 'failed', 'dropped')),
  detail text not null default '',
  new_run_id uuid,
  -- Until when the worker that took the item may keep others from looking at it; nothing depends on it.
  taken_until timestamptz not null default '-infinity',
  ended_at timestamptz,
  primary key (bulk_id, run_id)
);
create index bulk_items_pending on bulk_items (taken_until) where state = 'pending';

select protect_tenants(t) from unnest(array['usage_minutes', 'bulk_actions', 'bulk_items']) t;
