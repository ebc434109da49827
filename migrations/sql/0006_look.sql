-- Errors that somebody does not want to be told of: one row per fingerprint (app/reads/error_groups.py).

create table error_mutes (
  environment_id uuid not null,
  fingerprint text not null check (octet_length(fingerprint) <= 64),
  account_id uuid not null,
  muted_by text not null,
  muted_at timestamptz not null default clock(),
  reason text not null default '' check (octet_length(reason) <= 2000),
  primary key (environment_id, fingerprint),
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);

select protect_tenants('error_mutes');
