-- name: environment
select v.name, v.slug, v.catalogue_version, a.plan, a.stops_for from environments v join accounts a on a.id = v.account_id
where v.id = :environment::uuid

-- name: of_environment
-- Everything the engine may call or match in an environment; those of archived apps are not matched but still have runs.
select f.id, f.app_id, a.name as app_name, a.sdk, f.slug, f.name, f.version, f.url, f.config, f.paused_at, f.held_until, f.own_backoff,
  a.archived_at, a.synced_at,
  array(select o.limit_id from overrides o where o.function_id = f.id and o.kind = 'limit' and o.ended_at is null) as changed_limits
from functions f join apps a on a.id = f.app_id
where f.environment_id = :environment::uuid and f.archived_at is null
order by f.slug

-- name: raise_version
-- Processes reload their view of the environment when this moved.
update environments set catalogue_version = catalogue_version + 1 where id = :environment::uuid
