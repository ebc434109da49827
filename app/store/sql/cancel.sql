-- name: arm
-- The events that cancel fresh runs, as waits that every claimed event asks for anyway; they end with their run.
insert into pauses (run_id, step_key, account_id, environment_id, kind, event_name, expression, match_path, match_value,
  requested_at, expires_at)
select run_id, step_key, account_id, environment_id, 'cancel', event_name, expression, match_path, match_value, requested_at,
  expires_at
from unnest(:run_id::uuid[], :step_key::text[], :account::uuid[], :environment::uuid[], :event::text[], :expression::text[],
            :path::text[], :value::text[], :requested_at::timestamptz[], :expires_at::timestamptz[])
  as t (run_id, step_key, account_id, environment_id, event_name, expression, match_path, match_value, requested_at, expires_at)
where expires_at > clock()
on conflict (run_id, step_key) do nothing

-- name: set_deadlines
-- When fresh runs must have started, as items of a lane that no limit holds up; and how long they may take.
with d as materialized (
  select * from unnest(:run_id::uuid[], :account::uuid[], :environment::uuid[], :function::uuid[], :item_id::uuid[],
                       :lane_id::uuid[], :start_by::timestamptz[], :finish_within::interval[])
    as t (run_id, account_id, environment_id, function_id, item_id, lane_id, start_by, finish_within)
), l as (
  insert into lanes as l (id, account_id, environment_id, function_id, key, next_due)
  select d.lane_id, d.account_id, d.environment_id, d.function_id, :lane_key::text, min(d.start_by) from d
  where d.start_by is not null group by d.lane_id, d.account_id, d.environment_id, d.function_id
  on conflict (id) do update set next_due = least(l.next_due, excluded.next_due)
), i as (
  insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, due_at)
  select d.item_id, d.account_id, d.environment_id, d.function_id, d.run_id, d.lane_id, 'start_timeout', 'start_timeout', d.start_by
  from d where d.start_by is not null
  on conflict (id) do nothing
)
update runs r set finish_within = d.finish_within from d where r.id = d.run_id and d.finish_within is not null

-- name: is_leased
-- Whether an item is being done now.
select true from items i where i.id = :item::uuid and i.lease_id is not null

-- name: order
-- An order to cancel runs.
insert into cancellations (id, account_id, environment_id, app_id, function_id, function_slug, app_name, started_after,
  started_before, expression, cause, due_at)
values (:id::uuid, :account::uuid, :environment::uuid, :app::uuid, :function::uuid, :slug::text, :app_name::text,
  :after::timestamptz, :before::timestamptz, :expression::text, :cause::text, coalesce(:due_at::timestamptz, clock()))
returning *

-- name: list
-- The orders of an environment, newest first.
select * from cancellations c where c.environment_id = :environment::uuid and c.deleted_at is null and c.cause = 'api'
  and (:before::uuid is null or c.id < :before::uuid)
order by c.id desc limit :room::int

-- name: delete
update cancellations set deleted_at = clock(), due_at = null
where environment_id = :environment::uuid and id = :id::uuid and deleted_at is null returning id

-- name: claim
-- The order whose turn it is, held while a slice of it is done.
select c.*, clock() as now from cancellations c where c.due_at <= clock() and c.deleted_at is null
order by c.due_at limit 1 for update skip locked

-- name: next_runs
-- The next open runs of an order's function and time, by the time in their ids; not locked yet.
select r.id from runs r
where r.environment_id = :environment::uuid and r.function_id = :function::uuid and r.id > :position::uuid
  and r.id < :until::uuid and r.ended_at is null
order by r.environment_id, r.function_id, r.id limit :room::int

-- name: events_of
-- The events that the expression of an order is asked about.
select r.id, e.payload from runs r join events e on e.environment_id = r.environment_id and e.id = r.event_id
  and e.received_at = r.event_received_at
where r.id = any(:run_ids::uuid[])

-- name: moved
-- Where an order stands after a slice.
update cancellations set position = :position::uuid, has_missed = :has_missed::bool, due_at = :due_at::timestamptz,
  cancelled = cancelled + :cancelled::int
where id = :id::uuid

-- name: is_behind
-- Whether events of an order's time have not become runs yet.
select exists (select from inbox i where i.environment_id = :environment::uuid and i.received_at <= :before::timestamptz) as is_behind
