-- Login through a provider: who somebody is there, and journeys to it that have not come back.

-- An identity is what a provider calls a person, never their address. Found before anybody is signed in, so pages of a
-- tenant do not see this table.
create table identities (
  issuer text not null check (octet_length(issuer) between 1 and 600),
  subject text not null check (octet_length(subject) between 1 and 600),
  user_id uuid not null references users (id) on delete cascade,
  email text not null default '' check (octet_length(email) <= 320),
  created_at timestamptz not null default clock(),
  used_at timestamptz,
  primary key (issuer, subject)
);
-- One identity of a provider for each person: a list of two could not be told apart.
create unique index identities_person on identities (user_id, issuer);

-- Journeys: found by the hash of their state, good for one return of the browser that left. `sealed` holds what must
-- come back or be sent along: nonce, verifier, where to go next, the profile of a sign-up that wants a name.
create table journeys (
  state_hash bytea primary key,
  browser_hash bytea not null,
  provider text not null,
  purpose text not null check (purpose in ('sign_in', 'link', 'prove', 'sign_up')),
  user_id uuid references users (id) on delete cascade,
  sealed bytea not null,
  expires_at timestamptz not null
);
create index journeys_expiry on journeys (expires_at);
create index journeys_user on journeys (user_id);

-- When the person of this session last proved who they are by a fresh login at a provider.
alter table sessions add column proven_at timestamptz;

grant select, insert, update, delete on identities, journeys to stepwell_engine;
