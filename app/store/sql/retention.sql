-- name: set_keep
-- What the code says of a plan; written only when it is another than before.
insert into retentions as k (plan, keep)
select * from unnest(:plans::text[], :keeps::interval[]) as t (plan, keep)
on conflict (plan) do update set keep = excluded.keep where k.keep <> excluded.keep

-- name: bounds
-- The shortest and the longest time any organization here keeps things.
select min(x.keep) as shortest, max(x.keep) as longest, clock() as now,
  (clock() at time zone 'UTC')::date as today from (
  select coalesce(k.keep, s.keep) as keep from (select distinct plan from accounts) a
  left join retentions k on k.plan = a.plan left join retentions s on s.plan = 'self_hosted'
  union all select keep from retentions where plan = 'self_hosted' and not exists (select from accounts)) x

-- name: drop_answers
-- Due times of crons that nobody asks about any more; before the runs they name.
with kept as (
  select a.id, clock() - coalesce(k.keep, s.keep) as since from accounts a left join retentions k on k.plan = a.plan
  join retentions s on s.plan = 'self_hosted'
)
delete from schedule_answers where (schedule_id, due_at) in (
  select x.schedule_id, x.due_at from schedule_answers x join kept k on k.id = x.account_id
  where x.at < clock() - :shortest::interval and x.at < k.since limit :room::int)
returning schedule_id

-- name: drop_dispositions
-- Why events made no run; before the runs they name.
with kept as (
  select a.id, clock() - coalesce(k.keep, s.keep) as since from accounts a left join retentions k on k.plan = a.plan
  join retentions s on s.plan = 'self_hosted'
)
delete from dispositions where ctid = any(array(
  select x.ctid from dispositions x join kept k on k.id = x.account_id
  where x.at < clock() - :shortest::interval and x.at < k.since limit :room::int))
returning event_id

-- name: old_environments
-- Environments that have runs from before their organization's time, and how long that is.
select x.id, x.keep from (
  select e.id, coalesce(k.keep, s.keep) as keep from environments e join accounts a on a.id = e.account_id
  left join retentions k on k.plan = a.plan join retentions s on s.plan = 'self_hosted') x
where exists (select from runs r where r.environment_id = x.id and r.id < ulid_floor(clock() - x.keep))

-- name: drop_runs
-- One page of an environment's old runs, from `after` on by id: those that ended before its time go, with what hangs on
-- their row. Answers with the last id looked at, null when there was none, and how many went.
with looked as materialized (
  select r.id, r.ended_at from runs r
  where r.environment_id = :environment::uuid and r.id > :after::uuid and r.id < ulid_floor(clock() - :keep::interval)
  order by r.id limit :room::int
), old as materialized (
  select l.id from looked l where l.ended_at < clock() - :keep::interval
), gone as (
  delete from runs r using old o where r.id = o.id returning r.id
), events_of as (
  delete from run_events x using old o where x.run_id = o.id
), defers_of as (
  delete from defers d using old o where d.run_id = o.id
), requests_of as (
  delete from gateway_calls g using old o where g.run_id = o.id
)
select (select l.id from looked l order by l.id desc limit 1) as last, (select count(*) from gone) as gone

-- name: drop_minutes
-- Counters of minutes past their time, environment by environment.
delete from usage_minutes where ctid = any(array(
  select x.ctid from environments e join accounts a on a.id = e.account_id left join retentions k on k.plan = a.plan
  join retentions s on s.plan = 'self_hosted' cross join lateral (
    select u.ctid from usage_minutes u where u.environment_id = e.id and u.minute < clock() - coalesce(k.keep, s.keep)
    limit :room::int) x
  limit :room::int))
returning environment_id

-- name: drop_orders
-- Orders to cancel that are worked off and match no run that could still come.
delete from cancellations where id in (
  select c.id from cancellations c where (c.due_at is null or c.deleted_at is not null)
    and c.created_at < clock() - :longest::interval and c.started_before < clock() - :longest::interval limit :room::int)
returning id

-- name: drop_bulk_items
-- The items of bulk actions nobody asks about any more.
delete from bulk_items where (bulk_id, run_id) in (
  select i.bulk_id, i.run_id from bulk_actions b join bulk_items i on i.bulk_id = b.id
  where b.made_at < clock() - :longest::interval
    and not exists (select from bulk_items p where p.bulk_id = b.id and p.state = 'pending') limit :room::int)
returning run_id

-- name: drop_bulk
delete from bulk_actions b where b.made_at < clock() - :longest::interval
  and not exists (select from bulk_items i where i.bulk_id = b.id)
returning id

-- name: drop_seeds
delete from ingest_seeds where ctid = any(array(select s.ctid from ingest_seeds s where s.expires_at < clock() limit :room::int))
returning environment_id

-- name: drop_dedupe
delete from dedupe where ctid = any(array(select d.ctid from dedupe d where d.expires_at < clock() limit :room::int))
returning environment_id

-- name: drop_processes
-- What processes measured that ended long ago.
delete from process_metrics where at < clock() - interval '1 hour' returning id

-- name: days_to_drop
-- Day partitions past the longest time. One of steps or history waits until no run of the day is left; one of events until
-- nothing unfinished needs an event of it: a run, an open debounce or batch, the inbox.
select p.parent, p.day,
  case when p.parent <> 'events' then exists (
    select from runs r where r.id >= ulid_floor(p.day::timestamp at time zone 'UTC')
      and r.id < ulid_floor((p.day + 1)::timestamp at time zone 'UTC'))
  else exists (
    select from items i join runs r on r.id = i.run_id where i.run_id >= ulid_floor((p.day - 1)::timestamp at time zone 'UTC')
      and r.event_received_at >= p.day::timestamp at time zone 'UTC'
      and r.event_received_at < (p.day + 1)::timestamp at time zone 'UTC')
    or exists (
    select from items i join run_events x on x.run_id = i.run_id
    where x.received_at >= p.day::timestamp at time zone 'UTC' and x.received_at < (p.day + 1)::timestamp at time zone 'UTC')
    or exists (
    select from gates g where g.event_received_at >= p.day::timestamp at time zone 'UTC'
      and g.event_received_at < (p.day + 1)::timestamp at time zone 'UTC')
    or exists (
    select from inbox b where b.received_at >= p.day::timestamp at time zone 'UTC'
      and b.received_at < (p.day + 1)::timestamp at time zone 'UTC') end as is_needed
from day_partitions() p
where (p.day + 1)::timestamp at time zone 'UTC' <= clock() - :longest::interval order by p.day, p.parent

-- name: days_by_default
-- The days of rows that came while their day had no partition; a hundred at most.
select distinct x.parent, x.day from (
  (select 'events' as parent, (e.received_at at time zone 'UTC')::date as day from events_default e limit 20000)
  union all
  (select 'steps', (minute_of(s.run_id) at time zone 'UTC')::date from steps_default s limit 20000)
  union all
  (select 'history', (minute_of(h.run_id) at time zone 'UTC')::date from history_default h limit 20000)) x
order by 2 limit 100

-- name: drop_late_steps
-- Rows of a day past its time whose run is gone.
delete from steps_default where ctid = any(array(select s.ctid from steps_default s
  where s.run_id < ulid_floor(clock() - :longest::interval) and not exists (select from runs r where r.id = s.run_id)
  limit :room::int))
returning run_id

-- name: drop_late_history
delete from history_default where ctid = any(array(select h.ctid from history_default h
  where h.run_id < ulid_floor(clock() - :longest::interval) and not exists (select from runs r where r.id = h.run_id)
  limit :room::int))
returning run_id
