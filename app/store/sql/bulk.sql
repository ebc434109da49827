-- Bulk actions: what somebody asked for a set of runs, and how far it is.

-- name: take
-- Up to a slice of items nobody looks at, oldest action first; others leave them alone for a while.
update bulk_items i set taken_until = clock() + interval '30 seconds'
from (select x.bulk_id, x.run_id from bulk_items x
      where x.state = 'pending' and x.taken_until < clock()
      order by x.taken_until, x.bulk_id, x.run_id limit :room::int for update skip locked) t
where i.bulk_id = t.bulk_id and i.run_id = t.run_id
returning i.bulk_id, i.run_id, i.environment_id, i.account_id

-- name: hold
-- One item with what to do, locked; nothing when somebody else has it or it is done.
select b.action, b.from_step, b.made_at
from bulk_items i join bulk_actions b on b.id = i.bulk_id
where i.bulk_id = :bulk_id::uuid and i.run_id = :run_id::uuid and i.state = 'pending'
for update of i skip locked

-- name: settle
update bulk_items set state = :state::text, detail = :detail::text, new_run_id = :new_run_id::uuid, ended_at = clock()
where bulk_id = :bulk_id::uuid and run_id = :run_id::uuid and state = 'pending'

-- name: make
-- The action with its frozen set. Nothing when the same form was sent before.
with made as (
  insert into bulk_actions (id, account_id, environment_id, action, from_step, token, reason, filters, total, left_out,
    actor_id, actor)
  values (:id::uuid, :account::uuid, :environment::uuid, :action::text, :from_step::text, :token::text, :reason::text,
    :filters::text, cardinality(:run_ids::uuid[]), :left_out::int, :actor_id::uuid, :actor::text)
  on conflict (environment_id, token) do nothing
  returning id, account_id, environment_id
), items as (
  insert into bulk_items (bulk_id, run_id, account_id, environment_id)
  select m.id, r, m.account_id, m.environment_id from made m cross join unnest(:run_ids::uuid[]) r
)
select id from made

-- name: by_token
select id from bulk_actions where environment_id = :environment::uuid and token = :token::text

-- name: stop
-- What has not started is dropped.
with stopped as (
  update bulk_actions set stopped_at = clock()
  where id = :id::uuid and environment_id = :environment::uuid and stopped_at is null returning id
)
update bulk_items i set state = 'dropped', ended_at = clock() from stopped s where i.bulk_id = s.id and i.state = 'pending'
returning i.run_id

-- name: progress
-- One action with its counts; none when the environment has no such action.
select b.id, b.action, b.from_step, b.reason, b.filters, b.total, b.left_out, b.actor, b.made_at, b.stopped_at, clock() as now,
  c.pending, c.done, c.skipped, c.failed, c.dropped, c.last_at
from bulk_actions b cross join lateral (
  select count(*) filter (where i.state = 'pending') as pending, count(*) filter (where i.state = 'done') as done,
    count(*) filter (where i.state = 'skipped') as skipped, count(*) filter (where i.state = 'failed') as failed,
    count(*) filter (where i.state = 'dropped') as dropped, max(i.ended_at) as last_at
  from bulk_items i where i.bulk_id = b.id) c
where b.id = :id::uuid and b.environment_id = :environment::uuid

-- name: recent
-- The newest actions with their counts.
select b.id, b.action, b.from_step, b.reason, b.filters, b.total, b.left_out, b.actor, b.made_at, b.stopped_at, clock() as now,
  c.pending, c.done, c.skipped, c.failed, c.dropped, c.last_at
from (select * from bulk_actions where environment_id = :environment::uuid order by made_at desc limit 50) b
cross join lateral (
  select count(*) filter (where i.state = 'pending') as pending, count(*) filter (where i.state = 'done') as done,
    count(*) filter (where i.state = 'skipped') as skipped, count(*) filter (where i.state = 'failed') as failed,
    count(*) filter (where i.state = 'dropped') as dropped, max(i.ended_at) as last_at
  from bulk_items i where i.bulk_id = b.id) c
order by b.made_at desc

-- name: results
-- Items of one action: those of one outcome, or all, what went wrong first.
select i.run_id, i.state, i.detail, i.new_run_id, r.status, n.status as new_status, coalesce(f.name, '') as function_name
from bulk_items i
left join runs r on r.id = i.run_id and r.environment_id = i.environment_id
left join functions f on f.id = r.function_id and f.environment_id = i.environment_id
left join runs n on n.id = i.new_run_id and n.environment_id = i.environment_id
where i.bulk_id = :id::uuid and i.environment_id = :environment::uuid and (:state::text is null or i.state = :state::text)
order by (i.state = 'failed') desc, (i.state = 'skipped') desc, i.run_id desc limit :room::int
