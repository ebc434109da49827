-- The end of an organization.

-- Asked for by an owner: everything in it stands still, and is erased from `erases_at` on; until then it can be kept.
alter table accounts add column erases_at timestamptz;
-- Since when the keeper is at it, how many rows went, and since when it finds nothing more.
alter table accounts add column erasing_since timestamptz;
alter table accounts add column erased_rows bigint not null default 0;
alter table accounts add column empty_since timestamptz;
create index accounts_ending on accounts (erases_at) where erases_at is not null;
-- Archived with their organization, and to be brought back with it.
alter table environments add column archived_with_account boolean not null default false;
