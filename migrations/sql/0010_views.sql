-- What people keep of the runs list, and bulk actions that wait, pause, keep to a speed and reach children.

-- ---------------------------------------------------------------- the runs list

-- Columns somebody added to the list, and up to three payload fields by path.
create table run_columns (
  environment_id uuid not null,
  user_id uuid not null,
  account_id uuid not null,
  columns text[] not null default '{}',
  paths text[] not null default '{}' check (cardinality(paths) <= 3),
  primary key (environment_id, user_id),
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);

-- A list under a name: its filters as they stand in the address, and its columns. Shared ones are everybody's to see.
create table run_views (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  user_id uuid not null,
  name text not null check (octet_length(name) <= 400),
  filters text not null check (octet_length(filters) <= 8000),
  columns text[] not null default '{}',
  paths text[] not null default '{}' check (cardinality(paths) <= 3),
  is_shared boolean not null default false,
  made_at timestamptz not null default clock(),
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);
create index run_views_environment on run_views (environment_id, user_id);

select protect_tenants(t) from unnest(array['run_columns', 'run_views']) t;

-- ---------------------------------------------------------------- bulk actions

-- Nothing starts before `starts_at`: until then the action can be undone. When an item is due stands in its
-- `taken_until`: that is how the wait, a speed (runs a second; null is as fast as possible) and a pause are kept.
alter table bulk_actions
  add column name text not null default '' check (octet_length(name) <= 400),
  add column starts_at timestamptz not null default clock(),
  add column paused_at timestamptz,
  add column undone_at timestamptz,
  add column speed integer check (speed between 1 and 1000),
  -- A cancelled run takes the runs it invoked with it: they become items too.
  add column is_deep boolean not null default false;
