-- name: note_repair
-- A keeper put something right.
insert into repairs as r (kind, count, last_count) values (:kind::text, :count::int, :count::int)
on conflict (kind) do update set count = r.count + excluded.count, last_count = excluded.last_count, last_at = clock()

-- name: publish
-- What a process measured of itself.
insert into process_metrics as p (id, kind, name, body) values (:id::uuid, :kind::text, :name::text, :body::text)
on conflict (id) do update set at = clock(), body = excluded.body, name = excluded.name

-- name: withdraw
delete from process_metrics where id = :id::uuid

-- name: processes
-- The processes that published lately, by name.
select p.id, p.kind, p.name, p.at, p.body from process_metrics p where p.at > clock() - :within::interval
order by p.kind, p.name, p.id limit 200

-- name: queue
-- Queue items by what they wait for. Counts stop at `most`: who has more has a problem, not a number.
with i as materialized (
  (select x.lane_id, x.due_at, x.lease_id, x.held_due, x.kind from items x where x.lease_id is null and x.due_at <= clock()
   order by x.due_at limit :most::int)
), gated as (
  select case when l.blocked_by is null then 'ready'
    else coalesce((select f.kind from unnest(l.flow_key_ids, l.limit_ids) as u (key_id, limit_id)
                   join flow_limits f on f.id = u.limit_id where u.key_id = l.blocked_by limit 1), 'limit') end as gate, i.due_at
  from i left join lanes l on l.id = i.lane_id
)
select gate, count(*)::int as items, min(due_at) as oldest from gated group by gate
union all
select 'leased', count(*)::int, null from (select from items x where x.worker_id is not null limit :most::int) x
union all
select 'later', count(*)::int, null from (
  select from items x where x.lease_id is null and x.due_at > clock() and x.held_due is null limit :most::int) x
union all
select 'paused', count(*)::int, null from (select from items x where x.lease_id is null and x.held_due is not null limit :most::int) x

-- name: lag
-- How far behind the house is: the inbox, and work that is due and free to go.
select clock() as now,
  (select count(*)::int from (select from inbox limit :most::int) x) as inbox,
  (select min(b.received_at) from (select x.received_at from inbox x limit :most::int) b) as oldest_event,
  (select count(*)::int from events_default) as events_default,
  (select count(*)::int from steps_default) as steps_default,
  (select count(*)::int from history_default) as history_default

-- name: workers
-- The list of workers with what they hold.
select w.id, w.name, w.host, w.pid, w.started_at, w.lease_until, w.stopping_at,
  (select count(*)::int from (select from items i where i.worker_id = w.id limit 10000) x) as held
from workers w order by w.name, w.started_at limit 500

-- name: repairs
select r.kind, r.count, r.last_count, r.last_at from repairs r order by r.kind

-- name: partitions
-- Size and days of each partitioned table.
select p.parent, count(*)::int as days, min(p.day) as first, max(p.day) as last, sum(p.bytes)::bigint as bytes,
  (max(p.day) - (clock() at time zone 'UTC')::date)::int as ahead
from day_partitions() p group by p.parent order by p.parent
