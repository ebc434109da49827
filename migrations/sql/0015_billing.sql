-- Usage by the day, and what is known of subscriptions. Stripe is the truth about who pays for what; these rows are what
-- was read back last, so that every page and every worker goes on while Stripe is away (docs/billing.md).

-- ---------------------------------------------------------------- usage

-- Counted by the statements that count runs already: how many of the made ones never ran, and the steps of ended runs.
alter table usage_minutes add column skipped integer not null default 0, add column steps integer not null default 0;

-- Steps a replay took over from the run it repeats: they were counted there.
alter table runs add column kept integer not null default 0;

create or replace function count_made_runs() returns trigger language plpgsql as $$
begin
  insert into usage_minutes as u (environment_id, function_id, minute, shard, account_id, made, completed, failed, cancelled, skipped)
  select r.environment_id, r.function_id, minute_of(r.id), pg_backend_pid(), r.account_id, count(*),
    count(*) filter (where r.status = 'completed'), count(*) filter (where r.status = 'failed'),
    count(*) filter (where r.status in ('cancelled', 'skipped')), count(*) filter (where r.status = 'skipped')
  from made r group by 1, 2, 3, 5 order by 1, 3, 2
  on conflict (environment_id, minute, function_id, shard) do update set made = u.made + excluded.made,
    completed = u.completed + excluded.completed, failed = u.failed + excluded.failed,
    cancelled = u.cancelled + excluded.cancelled, skipped = u.skipped + excluded.skipped;
  return null;
end $$;

-- What an environment did on a day (UTC): runs that started, steps of runs that ended, events of its own. Kept for good.
-- `reported` of the executions (runs and steps) are in reports to Stripe already, or nobody is to be charged for them.
create table usage_days (
  environment_id uuid not null,
  day date not null,
  account_id uuid not null,
  runs bigint not null default 0,
  steps bigint not null default 0,
  events bigint not null default 0,
  reported bigint not null default 0,
  primary key (environment_id, day)
) with (fillfactor = 70);
create index usage_days_account on usage_days (account_id, day);
create index usage_days_day on usage_days (day, account_id);
create index usage_days_unreported on usage_days (account_id) where runs + steps > reported;

-- Until when something is counted; moves on in the transaction that counts.
create table usage_marks (
  what text primary key,
  until timestamptz not null
);
insert into usage_marks (what, until) values ('events', date_trunc('day', clock() at time zone 'UTC') at time zone 'UTC');
grant select on usage_marks to stepwell_app;
grant select, insert, update, delete on usage_marks to stepwell_engine;

-- ---------------------------------------------------------------- accounts

-- Why an account starts no new runs at present; null when it does. What people on every page of it are told.
alter table accounts
  add column stops_for text check (stops_for in ('allowance', 'spend_cap')),
  add column notice text not null default '' check (octet_length(notice) <= 100);

-- The reason 'allowance' is new. Checked for new rows only, which costs no walk over the table.
alter table dispositions drop constraint dispositions_outcome_check;
alter table dispositions add constraint dispositions_outcome_check check (outcome in
  ('duplicate', 'filtered', 'expression_error', 'rate_limited', 'debounced', 'batched', 'paused', 'backlog', 'singleton',
   'allowance')) not valid;

-- ---------------------------------------------------------------- subscriptions

create table billing_accounts (
  account_id uuid primary key references accounts (id) on delete cascade,
  customer_id text unique,
  subscription_id text,
  -- As Stripe has it; 'none' without a subscription.
  status text not null default 'none',
  -- The plan of the subscription's price; what an operator gave goes before it.
  plan text,
  plan_by_hand text,
  period_start timestamptz,
  period_end timestamptz,
  cancels_at timestamptz,
  failed_since timestamptz,
  stage text not null default 'fine' check (stage in
    ('fine', 'payment_failed', 'past_due', 'final_notice', 'downgrade_pending', 'downgraded')),
  -- Minor units of the currency and period, beyond the price of the plan.
  spend_cap bigint check (spend_cap >= 0),
  -- Reading back: `asked` grows when somebody wants it, `ticket` when somebody begins, `applied` is the ticket written last.
  asked bigint not null default 0,
  ticket bigint not null default 0,
  applied bigint not null default 0,
  look_at timestamptz not null default 'infinity',
  failures integer not null default 0,
  read_at timestamptz
);
create index billing_accounts_due on billing_accounts (look_at) where look_at < 'infinity';

-- Invoices as they were read back last.
create table billing_invoices (
  id text primary key,
  account_id uuid not null,
  number text not null default '',
  status text not null,
  total bigint not null,
  currency text not null,
  made_at timestamptz not null,
  page_url text not null default '',
  pdf_url text not null default ''
);
create index billing_invoices_account on billing_invoices (account_id, made_at desc);

-- What was told by mail: once in a period.
create table billing_notices (
  account_id uuid not null,
  period date not null,
  kind text not null,
  told_at timestamptz not null default clock(),
  primary key (account_id, period, kind)
);

-- Executions on their way to Stripe. The id is the identifier there, so sending twice counts once. `tried_at` is set while
-- nobody knows whether Stripe has it.
create table meter_slices (
  id uuid primary key,
  account_id uuid not null,
  customer_id text not null,
  quantity bigint not null check (quantity > 0),
  state text not null default 'waiting' check (state in ('waiting', 'sent', 'unsure', 'refused')),
  made_at timestamptz not null default clock(),
  due_at timestamptz not null default clock(),
  tried_at timestamptz,
  ended_at timestamptz,
  error text not null default ''
);
create index meter_slices_waiting on meter_slices (due_at) where state = 'waiting';

select protect_tenants(t) from unnest(array['usage_days', 'billing_accounts', 'billing_invoices', 'billing_notices', 'meter_slices']) t;

-- The price of a plan as Stripe has it: minor units a month, minor units per execution beyond the included ones.
create table billing_prices (
  plan text primary key,
  currency text not null,
  amount bigint not null,
  each numeric not null default 0,
  included bigint,
  read_at timestamptz not null default clock()
);
grant select on billing_prices to stepwell_app;
-- Events of Stripe's that came: once each.
create table stripe_events (
  id text primary key,
  type text not null,
  received_at timestamptz not null default clock()
);
create index stripe_events_received on stripe_events (received_at);
grant select, insert, update, delete on billing_prices, stripe_events to stepwell_engine;
