-- Branch environments put themselves away when nobody deploys to them any more.

-- False where a person took the branch back: then it stays until a person puts it away.
alter table environments add column archives_itself boolean not null default true;
-- When the branch was made or brought back by a deploy.
alter table environments add column used_at timestamptz not null default clock();
