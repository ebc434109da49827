-- What people keep of the runs list: their columns, and lists under a name.

-- name: columns
select columns, paths from run_columns where environment_id = :environment::uuid and user_id = :user::uuid

-- name: keep_columns
insert into run_columns (environment_id, user_id, account_id, columns, paths)
values (:environment::uuid, :user::uuid, :account::uuid, :columns::text[], :paths::text[])
on conflict (environment_id, user_id) do update set columns = excluded.columns, paths = excluded.paths

-- name: views
-- One's own and those others share, by name.
select v.id, v.name, v.filters, v.is_shared, v.user_id, coalesce(u.email, '') as by
from run_views v left join users u on u.id = v.user_id
where v.environment_id = :environment::uuid and (v.user_id = :user::uuid or v.is_shared)
order by lower(v.name), v.id limit 200

-- name: view
-- One view that this person may open.
select id, name, filters, columns, paths from run_views
where id = :id::uuid and environment_id = :environment::uuid and (user_id = :user::uuid or is_shared)

-- name: keep_view
-- At most 100 of one person in one environment; nothing when there are as many.
insert into run_views (id, account_id, environment_id, user_id, name, filters, columns, paths, is_shared)
select :id::uuid, :account::uuid, :environment::uuid, :user::uuid, :name::text, :filters::text, :columns::text[],
  :paths::text[], :is_shared::boolean
where (select count(*) from run_views where environment_id = :environment::uuid and user_id = :user::uuid) < 100
returning id

-- name: drop_view
-- Only one's own.
delete from run_views where id = :id::uuid and environment_id = :environment::uuid and user_id = :user::uuid
returning id
