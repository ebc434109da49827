-- name: register
-- A worker exists; older rows of the same supervised name are dead for certain and expire now.
with old as (
  update workers set lease_until = clock() where name = :name::text and name <> '' and lease_until > clock()
)
insert into workers (id, name, host, pid, lease_until)
values (:id::uuid, :name::text, :host::text, :pid::int, clock() + :lease::interval)

-- name: renew
-- One row for all leases of a worker; no row means the leases are lost (rule 10).
update workers set lease_until = clock() + :lease::interval where id = :id::uuid and lease_until > clock()
returning clock() as now

-- name: leave
delete from workers w where w.id = :id::uuid and not exists (select from items i where i.worker_id = w.id)

-- name: expired
-- A worker whose lease ran out, held so that it cannot renew meanwhile.
select w.id, w.name, w.host, w.pid from workers w where w.lease_until <= clock() - :grace::interval
order by w.lease_until limit 1 for update skip locked

-- name: rescue
-- Items nobody works on are ready again with a higher fence, their slots are free; counts redeliveries, not attempts.
-- Of a dead worker all of them; of a living one those it does not hold in memory, whose runs it is not writing either.
with lost as materialized (
  select i.id, i.lease_id, i.lane_id from items i
  where i.worker_id = :worker::uuid and i.leased_at <= clock() - :older::interval
    and i.id <> all(:held::uuid[]) and i.run_id <> all(:busy::uuid[])
  limit :room::int for update
), saved as (
  update items i set lease_id = null, worker_id = null, leased_at = null, fence = i.fence + 1,
    redeliveries = i.redeliveries + 1, due_at = least(i.due_at, clock())
  from lost l where i.id = l.id returning i.id, i.run_id, i.lane_id, i.redeliveries
), freed as (
  delete from slots s using lost l where s.lease_id = l.lease_id
), late_lanes as materialized (
  select l.id from lanes l where l.id in (select lane_id from lost) and l.next_due > clock() order by l.id for no key update
), woken as (
  update lanes l set next_due = clock() from late_lanes x where l.id = x.id
)
select id, run_id, lane_id, redeliveries from saved

-- name: orphans
-- Ids of workers that are on no list and hold items: their last commit came after they were given up.
select distinct i.worker_id as id from items i
where i.worker_id is not null and not exists (select from workers w where w.id = i.worker_id) limit :room::int

-- name: forget
delete from workers where id = :worker::uuid

-- name: release
-- A stopping worker hands items back that it has not called; no attempt and no redelivery is counted.
with mine as materialized (
  select i.id, i.lease_id, i.lane_id from items i
  join unnest(:item_ids::uuid[], :fences::bigint[]) as h (id, fence) on h.id = i.id and h.fence = i.fence for update of i
), given as (
  update items i set lease_id = null, worker_id = null, leased_at = null, fence = i.fence + 1 from mine m where i.id = m.id
), freed as (
  delete from slots s using mine m where s.lease_id = m.lease_id
), late_lanes as materialized (
  select l.id from lanes l where l.id in (select lane_id from mine) and l.next_due > clock() order by l.id for no key update
), woken as (
  update lanes l set next_due = clock() from late_lanes x where l.id = x.id
)
select id from mine

-- name: hold_back
-- A leased item whose app is not called just now is due again later; no attempt and no redelivery is counted. When it came due
-- at first is kept: what waits for its app is told from what is merely due later.
with mine as materialized (
  select i.id, i.lease_id, i.lane_id from items i where i.id = :item::uuid and i.fence = :fence::bigint for update of i
), put as (
  update items i set lease_id = null, worker_id = null, leased_at = null, fence = i.fence + 1,
    held_due = coalesce(i.held_due, i.due_at), due_at = clock() + :wait::interval
  from mine m where i.id = m.id
), freed as (
  delete from slots s using mine m where s.lease_id = m.lease_id
), late_lanes as materialized (
  select l.id from lanes l where l.id in (select lane_id from mine) and l.next_due > clock() + :wait::interval
  order by l.id for no key update
), woken as (
  update lanes l set next_due = clock() + :wait::interval from late_lanes x where l.id = x.id
)
select id from mine

-- name: release_all
-- What a stopped worker still has by the rows; its calls were given up on purpose, so nothing is counted (F5).
with mine as materialized (
  select i.id, i.lease_id, i.lane_id from items i where i.worker_id = :worker::uuid for update
), given as (
  update items i set lease_id = null, worker_id = null, leased_at = null, fence = i.fence + 1 from mine m where i.id = m.id
), freed as (
  delete from slots s using mine m where s.lease_id = m.lease_id
), late_lanes as materialized (
  select l.id from lanes l where l.id in (select lane_id from mine) and l.next_due > clock() order by l.id for no key update
), woken as (
  update lanes l set next_due = clock() from late_lanes x where l.id = x.id
)
select id from mine

-- name: fence
-- Whether the lease of an item is still ours, for a call that was not sent within a second (rule 16).
select i.fence from items i where i.id = :item::uuid

-- name: sweep
-- Lanes whose clock says later than their work: a lost wake-up costs a second (rule 17). Looked at are the lanes of items
-- that came due lately, and `lanes` more with waiting items behind `after`, each by one look into an index: so a second's
-- sweep costs the same whether ten items wait or a hundred thousand. One row always comes back: where to go on (null: from
-- the start).
with recursive walk (id, n) as (
  (select i.lane_id, 1 from items i where i.lease_id is null and i.lane_id > :after::uuid order by i.lane_id limit 1)
  union all
  select (select i.lane_id from items i where i.lease_id is null and i.lane_id > w.id order by i.lane_id limit 1), w.n + 1
  from walk w where w.id is not null and w.n < :lanes::int
), due as materialized (
  select i.lane_id, min(i.due_at) as due from items i
  where i.lease_id is null and i.due_at <= clock() and i.due_at > clock() - :lately::interval group by i.lane_id
  union all
  select w.id, x.due_at from walk w cross join lateral (
    select i.due_at from items i where i.lane_id = w.id and i.lease_id is null order by i.due_at limit 1) x
  where w.id is not null and x.due_at <= clock()
), late as materialized (
  select l.id, d.due from lanes l join (select lane_id, min(due) as due from due group by 1) d on d.lane_id = l.id
  where l.next_due > d.due and (l.blocked_until is null or l.blocked_until <= clock())
  order by l.id for no key update of l skip locked
), corrected as (
  update lanes l set next_due = x.due from late x where l.id = x.id returning l.id
)
select c.id, g.following from (select (select w.id from walk w where w.n = :lanes::int) as following) g
left join corrected c on true

-- name: free_orphans
-- Slots nobody has: their run ended in one statement while another leased an item of it, whose slot that one did not see.
delete from slots s
where not exists (select from items i where i.run_id = s.run_id and i.lease_id = s.lease_id)
  and not (s.lease_id = s.run_id and exists (select from runs r where r.id = s.run_id and r.ended_at is null))
returning s.flow_key_id

-- name: next_due
-- When the earliest future item comes due, so that a timer is not a second late.
select least((select min(l.next_due) from lanes l where l.next_due > clock()),
             (select min(g.due_at) from gates g where g.due_at is not null and g.due_at > clock()),
             (select min(s.next_due) from schedules s where s.next_due < 'infinity' and s.next_due > clock())) as next_due,
  exists (select from gates g where g.due_at <= clock())
    or exists (select from schedules s where s.next_due < 'infinity' and s.next_due <= clock()) as has_timers,
  clock() as now

-- name: stuck
-- Breaches of law 2: unfinished runs with no live item and no open wait. Always empty; counted in production.
select r.id from runs r
where r.status in ('queued', 'running') and r.queued_at < clock() - interval '60 seconds'
  and not exists (select from items i where i.run_id = r.id and i.kind not in ('start_timeout', 'finish_timeout'))
  and not exists (select from pauses p where p.run_id = r.id and p.kind <> 'cancel')
limit :room::int
