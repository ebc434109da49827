-- What people need around their accounts: mail that leaves from an outbox, links that work once, invitations, keys for
-- programs, and how somebody likes to see the pages.

alter table users add column time_zone text not null default 'utc' check (time_zone in ('utc', 'local'));
alter table users add column theme text not null default '' check (theme in ('', 'light', 'dark'));
alter table users add column has_shortcuts boolean not null default true;

-- The truth about every mail. `sealed` holds subject and text until it is sent: there are links in them that open
-- accounts. `dropped` is written where nobody is there to write to, so that asking costs the same.
create table mails (
  id uuid primary key,
  recipient text not null check (octet_length(recipient) <= 320),
  kind text not null,
  sealed bytea,
  state text not null default 'waiting' check (state in ('waiting', 'sent', 'failed', 'dropped')),
  attempts integer not null default 0,
  due_at timestamptz not null default clock(),
  created_at timestamptz not null default clock(),
  ended_at timestamptz,
  error text not null default '' check (octet_length(error) <= 500),
  check (state = 'waiting' or sealed is null)
);
create index mails_due on mails (due_at) where state = 'waiting';
create index mails_ended on mails (ended_at) where state <> 'waiting';

-- Links of a mail, stored as SHA-256. `detail` is sealed: what a new account is made of once its address is proven.
create table link_tokens (
  token_hash bytea primary key,
  purpose text not null check (purpose in ('reset', 'sign_up')),
  email text not null check (octet_length(email) <= 320),
  user_id uuid references users (id) on delete cascade,
  detail bytea,
  created_at timestamptz not null default clock(),
  expires_at timestamptz not null
);
create index link_tokens_expiry on link_tokens (expires_at);
create index link_tokens_user on link_tokens (user_id);

create table invitations (
  id uuid primary key,
  account_id uuid not null references accounts (id) on delete cascade,
  email text not null check (octet_length(email) <= 320),
  role text not null check (role in ('owner', 'admin', 'member', 'viewer')),
  token_hash bytea not null unique,
  invited_by uuid,
  created_at timestamptz not null default clock(),
  expires_at timestamptz not null
);
create unique index invitations_once on invitations (account_id, lower(email));

-- Keys of programs that ask the API. Never shown again, so only the hash is kept.
create table api_keys (
  id uuid primary key,
  account_id uuid not null,
  environment_id uuid not null,
  name text not null,
  secret_hash bytea not null unique,
  prefix text not null,
  last_four text not null,
  created_by uuid,
  created_at timestamptz not null default clock(),
  expires_at timestamptz,
  revoked_at timestamptz,
  used_at timestamptz,
  foreign key (account_id, environment_id) references environments (account_id, id) on delete cascade
);
create index api_keys_account on api_keys (account_id, created_at);

select protect_tenants(t) from unnest(array['invitations', 'api_keys']) t;
-- Pages put mail out and never read it back; links are followed before anybody is signed in.
grant insert on mails to stepwell_app;
grant select, insert, update, delete on mails, link_tokens to stepwell_engine;
