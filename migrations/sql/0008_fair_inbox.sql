-- The inbox is served in turns: over environments, and in one of them over names of events (D10).
alter table inbox add column name text not null default '';
drop index inbox_age;
create index inbox_turns on inbox (environment_id, name, received_at);
-- The event first: a plan made while the table was empty must not take the key for a way to an environment's oldest
-- event, which would read all of its events, those gone since the last vacuum included.
alter table inbox drop constraint inbox_pkey;
alter table inbox add primary key (event_id, environment_id);
