-- Branch environments, runs made from other runs, and what to do about a sync that failed.

-- A branch environment without a parent is the place where branches are made: keys of it open every branch below it.
alter table environments add column parent_id uuid;
alter table environments add constraint environments_parent foreign key (account_id, parent_id)
  references environments (account_id, id) on delete cascade;
alter table environments add constraint environments_branches check (parent_id is null or kind = 'branch');
create unique index environments_branch on environments (parent_id, name) where parent_id is not null;

-- The runs made from a run; the other direction is the column.
create index runs_original on runs (original_run_id) where original_run_id is not null;

-- What the developer can do about the failure, beside `error`, which says what it was.
alter table syncs add column fix text;
