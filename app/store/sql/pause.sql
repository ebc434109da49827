-- name: pause
-- Stops a function; answers nothing when it is paused already or not of this environment.
update functions f set paused_at = clock() where f.id = :function::uuid and f.environment_id = :environment::uuid and f.paused_at is null
returning f.id, f.account_id, f.app_id, f.slug, (select a.name from apps a where a.id = f.app_id) as app_name, clock() as now

-- name: resume
update functions f set paused_at = null where f.id = :function::uuid and f.environment_id = :environment::uuid and f.paused_at is not null
returning f.id

-- name: withdraw_orders
-- Runs of a function that goes on are not cancelled for its pause any more.
update cancellations set deleted_at = clock(), due_at = null
where function_id = :function::uuid and cause = 'paused' and deleted_at is null and due_at is not null

-- name: park
-- Gives a leased item of a paused or held function back until the function goes on. No attempt and no redelivery is counted.
-- The function's row is held, so that an item cannot be parked behind the back of who resumes it.
with paused as materialized (
  select f.id from functions f where f.id = :function::uuid and (f.paused_at is not null or f.held_until > clock()) for share
), mine as materialized (
  select i.id, i.lease_id from items i join paused p on p.id = i.function_id
  where i.id = :item::uuid and i.fence = :fence::bigint for update of i
), given as (
  update items i set lease_id = null, worker_id = null, leased_at = null, fence = i.fence + 1,
    held_due = coalesce(i.held_due, i.due_at),
    due_at = clock() + interval '365 days'
  from mine m where i.id = m.id
), freed as (
  delete from slots s using mine m where s.lease_id = m.lease_id
)
select id from mine

-- name: unpark
-- Items that waited for their function go on in their old order.
with back as (
  update items i set due_at = i.held_due, held_due = null
  where i.function_id = :function::uuid and i.held_due is not null and i.lease_id is null
    and not exists (select from functions f where f.id = i.function_id and (f.paused_at is not null or f.held_until > clock()))
  returning i.lane_id
)
update lanes l set next_due = clock() where l.id in (select lane_id from back) returning l.id

-- name: archive_app
update apps set archived_at = clock() where id = :app::uuid and environment_id = :environment::uuid and archived_at is null returning id

-- name: unarchive_app
update apps set archived_at = null where id = :app::uuid and environment_id = :environment::uuid and archived_at is not null returning id

-- name: archive_function
update functions set archived_at = clock() where id = :function::uuid and environment_id = :environment::uuid and archived_at is null
returning id
