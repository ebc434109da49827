-- name: hold_environment
-- One sync of an environment at a time; answers nothing for an archived one.
select v.id from environments v where v.id = :environment::uuid and v.archived_at is null for no key update

-- name: find_app
select a.id, a.checksum, a.error_code, a.url, a.archived_at from apps a where a.environment_id = :environment::uuid and a.name = :name::text

-- name: put_app
insert into apps as a (id, account_id, environment_id, name, url, sdk, framework, checksum, synced_at)
values (:id::uuid, :account::uuid, :environment::uuid, :name::text, :url::text, :sdk::text, :framework::text, :checksum::text, clock())
on conflict (environment_id, name) do update set url = excluded.url, sdk = excluded.sdk, framework = excluded.framework,
  checksum = excluded.checksum, synced_at = clock(), error_code = null, error = null, archived_at = null

-- name: touch_app
-- The app was heard of, and nothing is different: processes that hold its calls back look at this.
update apps set synced_at = clock() where environment_id = :environment::uuid and id = :app::uuid

-- name: functions
-- What is known under the slugs of a sync, and what the app had.
select f.id, f.slug, f.app_id, f.config, f.url, f.version, f.archived_at from functions f
where f.environment_id = :environment::uuid and (f.app_id = :app::uuid or f.slug = any(:slugs::text[]))

-- name: put_functions
with p as materialized (
  select * from unnest(:id::uuid[], :slug::text[], :name::text[], :config::text[], :url::text[], :backoff::text[])
    as t (id, slug, name, config, url, backoff)
), closed as (
  update function_versions v set valid_to = clock() from p where v.function_id = p.id and v.valid_to is null
), put as (
  insert into functions as f (id, account_id, environment_id, app_id, slug, name, config, url, backoff)
  select p.id, :account::uuid, :environment::uuid, :app::uuid, p.slug, p.name, p.config, p.url, p.backoff from p
  on conflict (environment_id, slug) do update set app_id = excluded.app_id, name = excluded.name, config = excluded.config,
    url = excluded.url, backoff = excluded.backoff, version = f.version + 1, updated_at = clock(), archived_at = null
  returning f.id, f.version, f.config, f.url
)
insert into function_versions (function_id, version, account_id, environment_id, config, url)
select id, version, :account::uuid, :environment::uuid, config, url from put

-- name: count_schedules
-- Crons of an account, of what is not archived.
select count(*)::int as count from schedules s join functions f on f.id = s.function_id join apps a on a.id = f.app_id
where s.account_id = :account::uuid and f.archived_at is null and a.archived_at is null

-- name: archive_functions
update functions set archived_at = clock() where environment_id = :environment::uuid and id = any(:ids::uuid[])

-- name: forget_unchanged
-- Repeated syncs without a change are one line of the list, the newest; dev servers ask every few seconds.
delete from syncs where environment_id = :environment::uuid and app_id = :app::uuid and status = 'unchanged'

-- name: tell
insert into syncs (id, account_id, environment_id, app_id, url, kind, status, sdk, framework, added, changed, removed,
  error_code, error, ended_at)
values (:id::uuid, :account::uuid, :environment::uuid, :app::uuid, :url::text, :kind::text, :status::text, :sdk::text,
  :framework::text, :added::text[], :changed::text[], :removed::text[], :error_code::text, :error::text, clock())
on conflict (id) do update set status = excluded.status, app_id = excluded.app_id, url = excluded.url, added = excluded.added,
  changed = excluded.changed, removed = excluded.removed, error_code = excluded.error_code, error = excluded.error,
  ended_at = excluded.ended_at where syncs.environment_id = excluded.environment_id

-- name: latest
-- The syncs of an environment since a moment, the newest first: how an out-of-band sync is known to have arrived.
select s.id, s.app_id, s.url, s.status, s.error_code, s.error, s.fix from syncs s
where s.environment_id = :environment::uuid and s.started_at >= :since::timestamptz and s.kind = 'out_of_band'
order by s.started_at desc limit 200

-- name: tell_failed
-- A sync that failed, with its app if that is known by name or address. The same failure again is one line, the newest.
with a as (
  select x.id from apps x where x.environment_id = :environment::uuid and (x.name = :app_name::text or x.url = :url::text)
  order by x.name = :app_name::text desc, x.synced_at desc nulls last limit 1
), marked as (
  update apps x set error_code = :error_code::text, error = :error::text from a where x.id = a.id and x.archived_at is null
), gone as (
  delete from syncs s where s.environment_id = :environment::uuid and s.status = 'failed' and s.url = :url::text
    and s.error_code = :error_code::text and s.id <> :id::uuid
)
insert into syncs (id, account_id, environment_id, app_id, url, kind, status, error_code, error, fix, ended_at)
values (:id::uuid, :account::uuid, :environment::uuid, (select id from a), :url::text, :kind::text, 'failed', :error_code::text,
  :error::text, :fix::text, clock())
on conflict (id) do update set status = excluded.status, error_code = excluded.error_code, error = excluded.error,
  fix = excluded.fix, ended_at = excluded.ended_at where syncs.environment_id = excluded.environment_id

-- name: apps_of_environment
select a.id, a.name, a.url from apps a where a.environment_id = :environment::uuid and a.archived_at is null limit 10000

-- name: archive_apps
-- Archived apps start nothing; runs that exist go on, and the next sync brings the app back.
update apps set archived_at = clock() where environment_id = :environment::uuid and id = any(:ids::uuid[])

-- name: drop_schedules_of
-- The schedules of apps that are archived.
delete from schedules s using functions f
where f.id = s.function_id and f.environment_id = :environment::uuid and f.app_id = any(:apps::uuid[])

-- name: archive_branches
-- Branches whose last deploy is long ago. The audit log says that nobody did it but time.
with old as materialized (
  select v.id from environments v
  where v.kind = 'branch' and v.parent_id is not null and v.archived_at is null and v.archives_itself
    and v.used_at < clock() - :after::interval
    and not exists (select from syncs s where s.environment_id = v.id and s.started_at > clock() - :after::interval
                      and s.status in ('succeeded', 'unchanged'))
  order by v.id limit :room::int for no key update skip locked
), gone as (
  update environments v set archived_at = clock(), catalogue_version = v.catalogue_version + 1 from old where v.id = old.id
  returning v.id, v.account_id, v.name
), told as (
  insert into audit_log (id, account_id, environment_id, actor, action, object)
  select gen_random_uuid(), g.account_id, g.id, 'branch', 'environment.archived', g.name from gone g
)
select id from gone
