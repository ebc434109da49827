-- Bulk actions: what somebody asked for a set of runs, and how far it is.

-- name: take
-- Up to a slice of items that are due and nobody looks at, oldest action first; others leave them alone for a while.
update bulk_items i set taken_until = clock() + interval '30 seconds'
from (select x.bulk_id, x.run_id from bulk_items x
      where x.state = 'pending' and x.taken_until < clock()
      order by x.taken_until, x.bulk_id, x.run_id limit :room::int for update skip locked) t
where i.bulk_id = t.bulk_id and i.run_id = t.run_id
returning i.bulk_id, i.run_id, i.environment_id, i.account_id

-- name: hold
-- One item with what to do, locked; nothing when somebody else has it, it is done, or its action rests.
select b.action, b.from_step, b.made_at, b.is_deep
from bulk_items i join bulk_actions b on b.id = i.bulk_id
where i.bulk_id = :bulk_id::uuid and i.run_id = :run_id::uuid and i.state = 'pending'
  and b.paused_at is null and b.starts_at <= clock()
for update of i skip locked

-- name: take_children
-- The runs a run invoked join the action, due at once.
with joined as (
  insert into bulk_items (bulk_id, run_id, account_id, environment_id)
  select i.bulk_id, r.id, i.account_id, i.environment_id
  from bulk_items i join runs r on r.parent_run_id = i.run_id and r.environment_id = i.environment_id
  where i.bulk_id = :bulk_id::uuid and i.run_id = :run_id::uuid and r.ended_at is null
  on conflict do nothing returning 1
)
update bulk_actions b set total = b.total + j.number from (select count(*)::int as number from joined) j
where b.id = :bulk_id::uuid and j.number > 0

-- name: settle
update bulk_items set state = :state::text, detail = :detail::text, new_run_id = :new_run_id::uuid, ended_at = clock()
where bulk_id = :bulk_id::uuid and run_id = :run_id::uuid and state = 'pending'

-- name: make
-- The action with its frozen set. Nothing when the same form was sent before.
with made as (
  insert into bulk_actions (id, account_id, environment_id, action, from_step, token, reason, filters, total, left_out,
    actor_id, actor, name, starts_at, speed, is_deep)
  values (:id::uuid, :account::uuid, :environment::uuid, :action::text, :from_step::text, :token::text, :reason::text,
    :filters::text, cardinality(:run_ids::uuid[]), :left_out::int, :actor_id::uuid, :actor::text, :name::text,
    clock() + :wait::interval, :speed::int, :is_deep::boolean)
  on conflict (environment_id, token) do nothing
  returning id, account_id, environment_id, starts_at, speed
), items as (
  insert into bulk_items (bulk_id, run_id, account_id, environment_id, taken_until)
  select m.id, r.id, m.account_id, m.environment_id,
    m.starts_at + coalesce((r.n - 1) / m.speed::float * interval '1 second', interval '0')
  from made m cross join unnest(:run_ids::uuid[]) with ordinality as r (id, n)
)
select id from made

-- name: by_token
select id from bulk_actions where environment_id = :environment::uuid and token = :token::text

-- name: stop
-- What has not started is dropped.
with stopped as (
  update bulk_actions set stopped_at = clock(), paused_at = null
  where id = :id::uuid and environment_id = :environment::uuid and stopped_at is null and undone_at is null returning id
)
update bulk_items i set state = 'dropped', ended_at = clock() from stopped s where i.bulk_id = s.id and i.state = 'pending'
returning i.run_id

-- name: undo
-- Before it has started, and only then: nothing at all happens.
with undone as (
  update bulk_actions set undone_at = clock(), stopped_at = clock(), paused_at = null
  where id = :id::uuid and environment_id = :environment::uuid and undone_at is null and stopped_at is null
    and starts_at > clock()
  returning id
), dropped as (
  update bulk_items i set state = 'dropped', ended_at = clock() from undone u where i.bulk_id = u.id and i.state = 'pending'
)
select id from undone

-- name: pause
-- Items are due never until it is resumed; a run that is being changed right now is changed.
with paused as (
  update bulk_actions set paused_at = clock()
  where id = :id::uuid and environment_id = :environment::uuid and paused_at is null and stopped_at is null returning id
), held as (
  update bulk_items i set taken_until = 'infinity' from paused p where i.bulk_id = p.id and i.state = 'pending'
)
select id from paused

-- name: resume
-- What is left becomes due from now on, or from the start where that is still to come, at the action's speed.
with resumed as (
  update bulk_actions set paused_at = null
  where id = :id::uuid and environment_id = :environment::uuid and paused_at is not null and stopped_at is null
  returning id, greatest(starts_at, clock()) as begins, speed
), due as (
  select i.bulk_id, i.run_id,
    r.begins + coalesce((row_number() over (order by i.run_id desc) - 1) / r.speed::float * interval '1 second',
      interval '0') as at
  from bulk_items i join resumed r on r.id = i.bulk_id where i.state = 'pending'
), moved as (
  update bulk_items i set taken_until = d.at from due d where (i.bulk_id, i.run_id) = (d.bulk_id, d.run_id)
)
select id from resumed

-- name: progress
-- One action with its counts; none when the environment has no such action.
select b.*, clock() as now, c.pending, c.done, c.skipped, c.failed, c.dropped, c.last_at
from bulk_actions b cross join lateral (
  select count(*) filter (where i.state = 'pending') as pending, count(*) filter (where i.state = 'done') as done,
    count(*) filter (where i.state = 'skipped') as skipped, count(*) filter (where i.state = 'failed') as failed,
    count(*) filter (where i.state = 'dropped') as dropped, max(i.ended_at) as last_at
  from bulk_items i where i.bulk_id = b.id) c
where b.id = :id::uuid and b.environment_id = :environment::uuid

-- name: recent
-- The newest actions with their counts.
select b.*, clock() as now, c.pending, c.done, c.skipped, c.failed, c.dropped, c.last_at
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
