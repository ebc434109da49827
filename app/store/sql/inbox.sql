-- name: ingest
-- Stores the events of many requests and puts them into the inbox. A request whose seed was seen in the last 24 h stores
-- nothing; the caller reads back what it got then.
with q as materialized (
  select * from unnest(:n::int[], :environment::uuid[], :account::uuid[], :seed::text[], :sha::bytea[], :source::text[])
    as t (n, environment_id, account_id, seed, sha, source)
), ev as materialized (
  select * from unnest(:event_n::int[], :event_id::uuid[], :event_name::text[], :event_client_id::text[], :event_ts::bigint[],
                       :event_payload::text[], :event_original::text[]) with ordinality
    as t (n, id, name, client_id, ts, payload, original, place)
), seeds as (
  insert into ingest_seeds as s (environment_id, account_id, seed, body_sha, ids, expires_at)
  select q.environment_id, q.account_id, q.seed, q.sha,
         (select array_agg(ev.id order by ev.place) from ev where ev.n = q.n), clock() + interval '24 hours'
  from q where q.seed is not null
  on conflict (environment_id, seed) do update set body_sha = excluded.body_sha, ids = excluded.ids,
    expires_at = excluded.expires_at where s.expires_at < clock()
  returning s.environment_id, s.seed
), fresh as materialized (
  select q.n, q.environment_id, q.account_id, q.source from q
  where q.seed is null or exists (select from seeds s where s.environment_id = q.environment_id and s.seed = q.seed)
), stored as (
  insert into events (environment_id, id, received_at, account_id, name, client_id, ts, payload, original, source)
  select f.environment_id, ev.id, clock(), f.account_id, ev.name, ev.client_id, ev.ts, ev.payload, ev.original, f.source
  from ev join fresh f on f.n = ev.n
), boxed as (
  insert into inbox (environment_id, event_id, received_at, account_id, name)
  select f.environment_id, ev.id, clock(), f.account_id, ev.name from ev join fresh f on f.n = ev.n
)
select f.n from fresh f

-- name: seed
-- What an earlier request with this seed stored.
select s.body_sha, s.ids from ingest_seeds s where s.environment_id = :environment::uuid and s.seed = :seed::text

-- name: claim
-- Events nobody has reacted to, locked until their consequences are committed. In turns (D10): of each environment and name
-- the oldest, the room shared equally, so nobody waits behind another's flood. The index gives the next pair in one
-- probe; when there are more pairs than turns, the next round goes on behind the last one (`turn_*` of the rows).
-- `has_waits` says whether any wait is open for the pair: one that opens later looks back at the event itself (rule 15).
with recursive here as (
  (select x.environment_id, x.name, 1 as n from inbox x
   where (x.environment_id, x.name) > (:after_environment::uuid, :after_name::text)
   order by x.environment_id, x.name limit 1)
  union all
  select x.environment_id, x.name, h.n + 1 from here h cross join lateral (
    select i.environment_id, i.name from inbox i where (i.environment_id, i.name) > (h.environment_id, h.name)
    order by i.environment_id, i.name limit 1) x
  where h.n < :turns::int
), again as (
  (select x.environment_id, x.name, (select count(*) from here) + 1 as n from inbox x
   where (select count(*) from here) < :turns::int
     and (x.environment_id, x.name) <= (:after_environment::uuid, :after_name::text)
   order by x.environment_id, x.name limit 1)
  union all
  select x.environment_id, x.name, a.n + 1 from again a cross join lateral (
    select i.environment_id, i.name from inbox i where (i.environment_id, i.name) > (a.environment_id, a.name)
      and (i.environment_id, i.name) <= (:after_environment::uuid, :after_name::text)
    order by i.environment_id, i.name limit 1) x
  where a.n < :turns::int
), turns as materialized (
  select t.environment_id, t.name, t.n,
    exists (select from pauses p where p.environment_id = t.environment_id and p.event_name = t.name) as has_waits
  from (select * from here union all select * from again) t
), i as materialized (
  select x.environment_id, x.event_id, x.received_at, x.account_id, x.correlation, t.n as turn, t.has_waits
  from turns t cross join lateral (
    select i.environment_id, i.event_id, i.received_at, i.account_id, i.correlation from inbox i
    where i.environment_id = t.environment_id and i.name = t.name and i.event_id <> all(:set_aside::uuid[])
    order by i.received_at limit greatest(:room::int / (select count(*)::int from turns), 1) for update skip locked
  ) x
  order by t.n limit :room::int
)
select i.*, e.name, e.client_id, e.ts, e.payload, v.catalogue_version, clock() as now
from i join environments v on v.id = i.environment_id
-- The limit keeps this one lookup per event, by the whole key and in one partition: as a join, a plan made while the tables
-- were young walks all events of the environment for each.
cross join lateral (
  select e.name, e.client_id, e.ts, e.payload from events e
  where e.environment_id = i.environment_id and e.id = i.event_id and e.received_at = i.received_at limit 1
) e
order by i.received_at, i.event_id

-- name: create_runs
-- The runs of claimed events with their first items, and the answers of functions that made none. Items are due a
-- microsecond apart, so that what waits behind a limit goes on in the order of its events. A crowded worker gets no lease
-- where older work waits in the lane.
with new as materialized (
  select * from unnest(:n::int[], :run_id::uuid[], :account::uuid[], :environment::uuid[], :app::uuid[], :function::uuid[],
    :function_version::int[], :lane::uuid[], :max_attempts::int[], :is_quiet::bool[], :event_id::uuid[],
    :event_received_at::timestamptz[], :event_name::text[], :parent_run::uuid[], :parent_step::text[], :dedupe_key::text[],
    :item_id::uuid[], :due_at::timestamptz[], :lease_id::uuid[], :item_lane::uuid[], :skip::text[],
    :note::text[], :batch_size::int[], :cron::text[], :head_start::interval[],
    :state_bytes::bigint[])
    as t (n, run_id, account_id, environment_id, app_id, function_id, function_version, lane_id, max_attempts, is_quiet,
          event_id, event_received_at, event_name, parent_run_id, parent_step_key, dedupe_key, item_id, due_at, lease_id,
          item_lane, skip, note, batch_size, cron, head_start, state_bytes)
), claimed as (
  insert into dedupe as d (environment_id, function_id, key, account_id, run_id, expires_at)
  select distinct on (environment_id, function_id, dedupe_key)
    environment_id, function_id, dedupe_key, account_id, run_id, clock() + interval '24 hours'
  from new where dedupe_key is not null order by environment_id, function_id, dedupe_key, n
  on conflict (environment_id, function_id, key) do update set run_id = excluded.run_id, expires_at = excluded.expires_at
    where d.expires_at < clock()
  returning d.run_id
), good as materialized (
  select *, case when not :is_crowded::bool or not exists (select from lanes l where l.id = new.item_lane and l.next_due <= clock())
    then lease_id end as granted
  from new where dedupe_key is null or run_id in (select run_id from claimed)
), made as (
  insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status, commit_id, is_quiet,
    max_attempts, event_id, event_received_at, event_name, parent_run_id, parent_step_key, queued_at, discoveries,
    batch_size, cron, ended_at, error_code, error_message, state_bytes)
  select run_id, account_id, environment_id, app_id, function_id, function_version, lane_id,
    case when skip is null then 'queued' else 'skipped' end, :commit_id::uuid,
    is_quiet, max_attempts, event_id, event_received_at, event_name, parent_run_id, parent_step_key, clock(), 1,
    batch_size, cron, case when skip is not null then clock() end, skip, note, state_bytes
  from good on conflict (id) do nothing
  returning id
), queued as (
  insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, rank, due_at, fence, lease_id, worker_id,
    leased_at)
  select g.item_id, g.account_id, g.environment_id, g.function_id, g.run_id, g.item_lane, 'start', 'discover',
    coalesce(g.due_at, clock() + g.n * interval '1 microsecond') - g.head_start,
    coalesce(g.due_at, clock() + g.n * interval '1 microsecond'), case when g.granted is null then 0 else 1 end, g.granted,
    case when g.granted is not null then :worker::uuid end, case when g.granted is not null then clock() end
  from good g join made m on m.id = g.run_id where g.skip is null
  on conflict (id) do nothing
), told as (
  insert into history (run_id, version, position, account_id, environment_id, kind, detail)
  select g.run_id, 0, 1, g.account_id, g.environment_id, case when g.skip is null then 'run.created' else 'run.skipped' end,
    case when g.skip is not null then json_build_object('code', g.skip, 'note', g.note)::text end
  from good g join made m on m.id = g.run_id
), answered as (
  insert into dispositions (environment_id, event_id, function_id, account_id, outcome, detail, run_id)
  select distinct on (environment_id, event_id, function_id) * from (
    select environment_id, event_id, function_id, account_id, 'duplicate', '', null::uuid from new
    where dedupe_key is not null and run_id not in (select run_id from claimed)
    union all
    select * from unnest(:answer_environment::uuid[], :answer_event::uuid[], :answer_function::uuid[], :answer_account::uuid[],
                         :answer_outcome::text[], :answer_detail::text[], :answer_run::uuid[])
  ) a (environment_id, event_id, function_id, account_id, outcome, detail, run_id)
  on conflict (environment_id, event_id, function_id) do update set outcome = excluded.outcome, detail = excluded.detail,
    run_id = excluded.run_id
), done as (
  delete from inbox i using unnest(:done_environment::uuid[], :done_event::uuid[]) as d (environment_id, event_id)
  where i.environment_id = d.environment_id and i.event_id = d.event_id
), late_lanes as materialized (
  select l.id, x.due
  from lanes l join (select item_lane, min(coalesce(due_at, clock())) as due from good where granted is null and skip is null
                     group by item_lane) x on l.id = x.item_lane
  where l.next_due > x.due and (l.blocked_until is null or l.blocked_until <= clock()) order by l.id for no key update of l
), woken as (
  update lanes l set next_due = x.due from late_lanes x where l.id = x.id
)
select m.id, g.granted is not null as is_leased from made m join good g on g.run_id = m.id

-- name: matching_pauses
-- Open waits that events may end, slice by slice in the order of the events: by the value they compare with, or without
-- such a value. The offsets keep each lookup on the index, whatever a plan made while the table was young would prefer.
select * from (
  select e.n, p.* from unnest(:n::int[], :environment::uuid[], :name::text[]) as e (n, environment_id, name)
  cross join lateral (
    select p.run_id, p.step_key, p.kind, p.expression, p.match_path, p.match_value, p.requested_at, p.expires_at from pauses p
    where p.environment_id = e.environment_id and p.event_name = e.name and p.match_path is null offset 0
  ) p
  union all
  select v.n, p.* from unnest(:value_n::int[], :value_environment::uuid[], :value_name::text[], :path::text[], :value::text[])
    as v (n, environment_id, name, path, value)
  cross join lateral (
    select p.run_id, p.step_key, p.kind, p.expression, p.match_path, p.match_value, p.requested_at, p.expires_at from pauses p
    where p.environment_id = v.environment_id and p.event_name = v.name and p.match_path = v.path and p.match_value = v.value
    offset 0
  ) p
) w
where (w.n, w.run_id, w.step_key) > (:after_n::int, :after_run::uuid, :after_step::text)
order by w.n, w.run_id, w.step_key limit :room::int

-- name: pause_paths
-- The paths that open waits of names compare by, so that events' values can be computed once. One probe of the index per path.
with recursive p as (
  select t.environment_id, t.name,
    (select min(w.match_path) from pauses w where w.environment_id = t.environment_id and w.event_name = t.name) as path
  from unnest(:environment::uuid[], :name::text[]) as t (environment_id, name)
  union all
  select p.environment_id, p.name, (select min(w.match_path) from pauses w
    where w.environment_id = p.environment_id and w.event_name = p.name and w.match_path > p.path)
  from p where p.path is not null
)
select p.environment_id, p.name, p.path from p where p.path is not null

-- name: pauses_of_children
-- The waits of parents for children that ended.
select c.n, p.run_id, p.step_key from unnest(:n::int[], :environment::uuid[], :correlation::text[])
  as c (n, environment_id, correlation)
join pauses p on p.environment_id = c.environment_id and p.correlation = c.correlation

-- name: unchecked_pauses
-- Waits whose second look (rule 15) is still owed.
select p.run_id, p.step_key, p.kind, p.expires_at, p.environment_id, p.account_id, p.event_name, p.expression, p.match_path, p.match_value, p.requested_at
from pauses p where p.rechecked_at is null and p.requested_at < clock() - :older::interval
order by p.requested_at limit :room::int

-- name: events_since
-- Events of a name received since a wait was asked for, slice by slice.
select e.id, e.payload, e.received_at from events e
where e.environment_id = :environment::uuid and e.name = :name::text and e.received_at >= :since::timestamptz
  and (e.received_at, e.id) > (:since::timestamptz, :after::uuid)
order by e.received_at, e.id limit :room::int

-- name: mark_rechecked
update pauses set rechecked_at = clock() where run_id = :run_id::uuid and step_key = :step_key::text
