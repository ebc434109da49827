-- Keeping house: how long things are kept, partitions that come and go, what was repaired, what processes measure.

-- How long an organization of a plan keeps what has ended. Written by the keeper from the plans in the code.
create table retentions (
  plan text primary key,
  keep interval not null check (keep > interval '0')
);
grant select on retentions to stepwell_app, stepwell_engine;
grant insert, update, delete on retentions to stepwell_engine;

-- Since when the account of this transaction sees its events; an unknown plan has what one's own machine has.
create function kept_since() returns timestamptz language sql stable parallel safe as
$$ select coalesce(clock() - coalesce(
     (select k.keep from accounts a join retentions k on k.plan = a.plan where a.id = current_account()),
     (select k.keep from retentions k where k.plan = 'self_hosted')), '-infinity') $$;

-- What is past its time may still lie in a partition that others need. Runs that go on see their events, however old.
create policy kept on events as restrictive for select to stepwell_app using (
  received_at >= (select kept_since())
  or exists (select from runs r where r.environment_id = events.environment_id and r.event_id = events.id and r.ended_at is null)
  or exists (select from run_events x join runs r on r.id = x.run_id where x.environment_id = events.environment_id
             and x.event_id = events.id and r.ended_at is null));

-- Its rows lie in the order they were written, so a few pages of index are enough to find the old ones.
create index dispositions_old on dispositions using brin (at) with (pages_per_range = 16);

-- ---------------------------------------------------------------- partitions

-- The bounds of one day's partition, as literals: events go by the time, the rest by ids that begin with it.
create function day_bounds(parent text, day date, out lo text, out hi text) language sql stable as
$$ select case when parent = 'events' then quote_literal((day::timestamp at time zone 'UTC')::text)
            else quote_literal(ulid_floor(day::timestamp at time zone 'UTC')) end,
          case when parent = 'events' then quote_literal(((day + 1)::timestamp at time zone 'UTC')::text)
            else quote_literal(ulid_floor((day + 1)::timestamp at time zone 'UTC')) end $$;

-- Makes the day partitions of [from_day, to_day]; existing ones stay. Rows of the day that came while it had no partition
-- move over from the default one. Returns how many it made. Runs as the owner, for the engine may not make tables.
create or replace function make_partitions(from_day date, to_day date) returns integer language plpgsql
  security definer set search_path = public, pg_temp set lock_timeout = '1s' as $$
declare
  d date; made integer := 0; parent text; part text; lo text; hi text; key text;
begin
  for d in select generate_series(from_day, to_day, interval '1 day')::date loop
    foreach parent in array array['events', 'steps', 'history'] loop
      part := format('%s_%s', parent, to_char(d, 'YYYYMMDD'));
      continue when to_regclass(part) is not null;
      key := case parent when 'events' then 'received_at' else 'run_id' end;
      select b.lo, b.hi into lo, hi from day_bounds(parent, d) b;
      execute format('create table %I (like %I including all)', part, parent);
      perform protect_tenants(part);
      -- Attaching needs this lock anyway; held from here, nobody adds rows of the day meanwhile.
      execute format('lock table %I in access exclusive mode', parent || '_default');
      execute format('with moved as (delete from %I where %I >= %s and %I < %s returning *) insert into %I select * from moved',
        parent || '_default', key, lo, key, hi, part);
      execute format('alter table %I attach partition %I for values from (%s) to (%s)', parent, part, lo, hi);
      made := made + 1;
    end loop;
  end loop;
  return made;
end $$;

-- Drops one day of one table; nothing happens when there is no such partition. The keeper decides what may go.
create function drop_partition(parent text, day date) returns boolean language plpgsql
  security definer set search_path = public, pg_temp set lock_timeout = '1s' as $$
declare
  part text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
begin
  if parent not in ('events', 'steps', 'history') or to_regclass(part) is null then
    return false;
  end if;
  execute format('drop table %I', part);
  return true;
end $$;
revoke execute on function make_partitions(date, date), drop_partition(text, date) from public;
grant execute on function make_partitions(date, date), drop_partition(text, date) to stepwell_engine;

-- The day partitions there are.
create function day_partitions() returns table (parent text, day date, bytes bigint) language sql stable as
$$ select p.relname::text, to_date(right(c.relname, 8), 'YYYYMMDD'), pg_total_relation_size(c.oid)
   from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
   where p.relnamespace = 'public'::regnamespace and p.relname in ('events', 'steps', 'history') and c.relkind = 'r'
     and c.relname ~ '_\d{8}$' $$;

-- ---------------------------------------------------------------- what operators see

-- What keepers put right, by kind: how many things in all, and when last.
create table repairs (
  kind text primary key,
  count bigint not null default 0,
  last_count integer not null default 0,
  last_at timestamptz not null default clock()
);

-- What each process measured of itself, written over every few seconds; old rows are of processes that ended.
create table process_metrics (
  id uuid primary key,
  kind text not null check (kind in ('web', 'worker')),
  name text not null,
  at timestamptz not null default clock(),
  body text not null check (octet_length(body) <= 262144)
) with (fillfactor = 50);
grant select, insert, update, delete on repairs, process_metrics to stepwell_engine;
