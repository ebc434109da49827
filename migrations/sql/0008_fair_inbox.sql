-- The inbox is served in turns: over environments, and in one of them over names of events (D10).
alter table inbox add column name text not null default '';
drop index inbox_age;
create index inbox_turns on inbox (environment_id, name, received_at);
