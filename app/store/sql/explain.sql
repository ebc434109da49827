-- What app/reads/explain.py asks, under row-level security: why is this run not moving?

-- name: run
select r.id, r.status, r.ended_at, r.error_code, r.error_message, r.cron, r.function_id, f.slug,
  f.paused_at is not null as is_paused, case when f.held_until > clock() then f.held_until end as held_until, (f.archived_at is not null or a.archived_at is not null) as is_removed,
  exists (select from dispositions d where d.environment_id = r.environment_id and d.event_id = r.event_id
            and d.function_id = r.function_id and d.outcome = 'backlog') as backlog,
  (select count(*)::int from workers w where w.lease_until > clock()) as workers, clock() as now
from runs r join functions f on f.id = r.function_id join apps a on a.id = r.app_id
where r.environment_id = :environment::uuid and r.id = :run::uuid

-- name: items
-- The run's future, what is being done first; `total` counts what stands beyond the room, too.
select count(*) over ()::int as total, i.held_due is not null as is_parked, i.id, i.key, i.kind, i.step_key, i.attempt, i.fence,
  coalesce(i.held_due, i.due_at) as due_at, i.due_at as next_at, i.lane_id, i.leased_at, i.worker_id, l.is_gated,
  w.lease_until, w.name as worker_name,
  (select s.name from steps s where s.run_id = i.run_id and s.step_key = i.step_key) as step_name
from items i left join lanes l on l.id = i.lane_id left join workers w on w.id = i.worker_id
where i.run_id = :run::uuid and i.kind <> 'timeout' order by i.worker_id is null, i.due_at, i.key limit :room::int

-- name: place
-- How many due items stand before one in its lane.
select count(*)::int as ahead from items me join items i on i.lane_id = me.lane_id and i.lease_id is null
  and i.due_at <= clock() and i.kind in ('discover', 'step')
  and (coalesce(i.rank, i.due_at), i.id) < (coalesce(me.rank, me.due_at), me.id)
where me.id = :item::uuid and i.lane_id = :lane::uuid

-- name: keys
-- The keys of a lane with what they allow now and what is used of them; a full one first.
select k.id, k.key, k.scope, k.tat, f.kind, case when f.own_until > clock() then f.own_every else f.every end as every, x.live,
  o.cap is not null or f.own_until > clock() as is_own, coalesce(o.until, case when f.own_until > clock() then f.own_until end) as until,
  coalesce(o.cap = 0, false) as is_held,
  case when f.kind <> 'throttle' and o.cap is not null then o.cap when f.own_until > clock() then f.own_cap else f.cap end as cap,
  exists (select from slots s where s.flow_key_id = k.id and s.lease_id = :run::uuid) as is_ours
from lanes l cross join unnest(l.flow_key_ids, l.limit_ids) as u (key_id, limit_id)
join flow_keys k on k.id = u.key_id join flow_limits f on f.id = u.limit_id
cross join lateral (select count(*)::int as live from slots s where s.flow_key_id = k.id) x
cross join lateral (select case when k.cap_until is null or k.cap_until > clock() then k.cap end as cap, k.cap_until as until) o
where l.id = :lane::uuid order by f.kind, k.id

-- name: holders
select s.run_id, s.taken_at, f.slug, v.slug as environment,
  (select t.name from items i join steps t on t.run_id = i.run_id and t.step_key = i.step_key where i.id = s.item_id) as step_name
from slots s join runs r on r.id = s.run_id join functions f on f.id = r.function_id
join environments v on v.id = r.environment_id
where s.flow_key_id = :key::uuid order by s.taken_at, s.run_id limit :room::int

-- name: waits
select p.run_id, p.step_key, p.kind, p.event_name, p.expression, p.match_path, p.match_value, p.signal, p.correlation,
  p.requested_at, s.name as step_name, count(*) over ()::int as total,
  (select i.due_at from items i where i.run_id = p.run_id and i.step_key = p.step_key and i.kind = 'timeout' limit 1) as timeout
from pauses p left join steps s on s.run_id = p.run_id and s.step_key = p.step_key
where p.run_id = :run::uuid order by p.requested_at, p.step_key limit :room::int

-- name: events
-- The newest events of a name since a moment.
select e.id, e.payload, e.received_at from events e
where e.environment_id = :environment::uuid and e.name = :name::text and e.received_at >= :since::timestamptz
order by e.received_at desc, e.id desc limit :room::int

-- name: child
select r.id, r.status, f.slug from runs r join functions f on f.id = r.function_id
where r.parent_run_id = :parent::uuid and r.parent_step_key = :step::text
order by r.id limit 1

-- name: child_answer
-- What became of the event of an invoke that started no run.
select d.outcome, d.detail from events e join dispositions d on d.environment_id = e.environment_id and d.event_id = e.id
where e.environment_id = :environment::uuid and e.name = 'inngest/function.invoked'
  and e.received_at between :since::timestamptz - interval '1 minute' and :since::timestamptz + interval '1 minute'
  and strpos(e.payload, '"correlation_id":"' || :correlation::text || '"') > 0
limit 1
