-- The one statement that changes runs. app/store/commit.py joins the parts a batch needs into a single statement, so a
-- batch is one transaction and one round trip, and an idle part costs nothing. Every part joins `win`: an entry whose
-- guard failed drops out alone and takes all its rows with it.

-- name: guard
-- Locks items, then runs, without ever waiting; keeps the entries whose run is open and unchanged and whose items are ours.
with e as materialized (
  select * from unnest(
    :n::int[], :run_id::uuid[], :expect::int[], :status::text[], :request_version::int[],
    :is_planned::bool[], :pending::int[], :group_key::text[], :discoveries::int[], :bytes::bigint[], :starts::bool[],
    :ends::bool[], :error_code::text[], :error_name::text[], :error_message::text[]
  ) as t (n, run_id, expect, status, request_version, is_planned, pending, group_key, discoveries, bytes,
          starts, ends, error_code, error_name, error_message)
), want as materialized (
  select * from unnest(:want_n::int[], :want_item::uuid[], :want_fence::bigint[]) as t (n, item_id, fence)
), held as materialized (
  select w.n from want w join items i on i.id = w.item_id where i.fence = w.fence for update of i skip locked
), win as materialized (
  select e.n, e.ends, r.id, r.version, r.completed, r.kept, r.account_id, r.environment_id, r.function_id, r.lane_id
  from e join runs r on r.id = e.run_id
  where r.ended_at is null and (e.expect is null or r.version = e.expect)
    and (select count(*) from want x where x.n = e.n) = (select count(*) from held h where h.n = e.n)
  for no key update of r skip locked
)

-- name: steps
-- Steps opened, retried or settled. A settled step keeps its outcome: the update passes it by (I6).
, put_steps as (
  insert into steps as t (run_id, step_key, account_id, environment_id, kind, name, step_type, state, is_member, is_race,
                          memo_order, memo, input, opts, error, settled_at)
  select w.id, s.key, w.account_id, w.environment_id, s.kind, s.name, s.step_type, s.state, s.is_member, s.is_race,
         case when s.memo is not null then w.completed + s.place end, s.memo, s.input, s.opts, s.error,
         case when s.memo is not null then clock() end
  from unnest(:step_n::int[], :step_place::int[], :step_key::text[], :step_kind::text[], :step_name::text[],
              :step_type::text[], :step_state::text[], :step_member::bool[], :step_race::bool[], :step_memo::text[],
              :step_input::text[], :step_opts::text[], :step_error::text[])
         as s (n, place, key, kind, name, step_type, state, is_member, is_race, memo, input, opts, error)
  join win w on w.n = s.n
  on conflict (run_id, step_key) do update set
    state = excluded.state, name = coalesce(nullif(excluded.name, ''), t.name), is_member = excluded.is_member, is_race = excluded.is_race or t.is_race,
    memo_order = excluded.memo_order, memo = excluded.memo, settled_at = excluded.settled_at,
    input = coalesce(excluded.input, t.input), opts = coalesce(excluded.opts, t.opts),
    error = coalesce(excluded.error, t.error), step_type = coalesce(excluded.step_type, t.step_type)
  where t.memo_order is null
  returning t.run_id, t.memo_order
), settled as materialized (
  select run_id, count(*)::int as count from put_steps where memo_order is not null group by run_id
)

-- name: no_steps
, settled as materialized (select null::uuid as run_id, 0 as count where false)

-- name: run
, put_runs as (
  update runs r set version = r.version + 1, commit_id = :commit_id::uuid,
    completed = r.completed + coalesce((select s.count from settled s where s.run_id = r.id), 0),
    status = coalesce(e.status, r.status), request_version = coalesce(e.request_version, r.request_version),
    is_planned = coalesce(e.is_planned, r.is_planned), pending = coalesce(e.pending, r.pending),
    group_key = case when e.pending is null then r.group_key else e.group_key end,
    discoveries = coalesce(e.discoveries, r.discoveries), state_bytes = r.state_bytes + e.bytes,
    started_at = case when e.starts then coalesce(r.started_at, clock()) else r.started_at end,
    ended_at = case when e.ends then clock() end, error_code = e.error_code, error_name = e.error_name,
    error_message = e.error_message
  from win w join e on e.n = w.n where r.id = w.id
)

-- name: settle
-- Items that are done.
, gone_items as (
  delete from items i using unnest(:gone_n::int[], :gone_id::uuid[]) as g (n, id) join win w on w.n = g.n where i.id = g.id
)

-- name: hand_over
-- Leases with slots that were to go on and may not (rule 12): somebody waits for one of their limits, or a limit of the
-- lane is younger than the lease. Their slots are free, and their successors are written ready, for anyone.
, given_up as materialized (
  select h.n, h.lease_id from unnest(:hand_n::int[], :hand_lease::uuid[]) as h (n, lease_id)
  join win w on w.n = h.n join lanes l on l.id = w.lane_id
  where exists (select from slots s join flow_keys k on k.id = s.flow_key_id
                where s.lease_id = h.lease_id and k.waited_since is not null)
     or exists (select from unnest(l.flow_key_ids, l.limit_ids) as x (id, limit_id) join flow_limits f on f.id = x.limit_id
                where f.kind <> 'throttle'
                  and not exists (select from slots s where s.flow_key_id = x.id and s.lease_id in (h.lease_id, w.id)))
), given_slots as (
  delete from slots s using given_up g where s.lease_id = g.lease_id
)

-- name: no_hand_over
, given_up as materialized (select null::int as n, null::uuid as lease_id where false)

-- name: enqueue
-- Work made by the entry; committed as leased when a lease is handed over (D5).
, new_items as (
  insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, step_key, due_at, fence,
                     lease_id, worker_id, leased_at)
  select q.id, w.account_id, w.environment_id, w.function_id, w.id, w.lane_id, q.key, q.kind, q.step_key,
         coalesce(q.at, clock() + coalesce(q.after, interval '0')), case when k.lease_id is null then 0 else 1 end,
         k.lease_id, case when k.lease_id is not null then q.worker_id end, case when k.lease_id is not null then clock() end
  from unnest(:new_n::int[], :new_id::uuid[], :new_key::text[], :new_kind::text[], :new_step::text[], :new_at::timestamptz[],
              :new_after::interval[], :new_lease::uuid[], :new_worker::uuid[])
         as q (n, id, key, kind, step_key, at, after, lease_id, worker_id)
  join win w on w.n = q.n
  cross join lateral (
    select case when not exists (select from given_up g where g.lease_id = q.lease_id) then q.lease_id end as lease_id
  ) k
  on conflict (id) do nothing
)

-- name: retry
-- The same item again: a later attempt with the lease given back, or attempts counted from 0 under the same lease.
, again as (
  update items i set
    attempt = a.attempt, due_at = case when a.after is null then i.due_at else clock() + a.after end, held_due = null,
    lease_id = case when a.after is null then i.lease_id end, worker_id = case when a.after is null then i.worker_id end,
    leased_at = case when a.after is null then i.leased_at end,
    fence = case when a.after is null then i.fence else i.fence + 1 end
  from unnest(:again_n::int[], :again_id::uuid[], :again_attempt::int[], :again_after::interval[]) as a (n, id, attempt, after)
  join win w on w.n = a.n
  where i.id = a.id
)

-- name: wake
-- The clocks of lanes that have new work. One part for all of it, since a statement changes a row once, and in the order
-- of ids, since two batches may want the same lanes.
, wanted_lanes as materialized (
  select l.id, x.due from lanes l join (
    select w.lane_id as id, min(coalesce(q.at, clock() + coalesce(q.after, interval '0'))) as due
    from unnest(:wake_n::int[], :wake_at::timestamptz[], :wake_after::interval[], :wake_lease::uuid[])
      as q (n, at, after, lease_id)
    join win w on w.n = q.n
    where q.lease_id is null or exists (select from given_up g where g.lease_id = q.lease_id)
    group by w.lane_id
  ) x on x.id = l.id
  where l.next_due > x.due and (l.blocked_until is null or l.blocked_until <= clock()) order by l.id for no key update of l
), woken as (
  update lanes l set next_due = x.due from wanted_lanes x where l.id = x.id
)

-- name: open_pauses
-- Waits. They count from the moment the engine heard of them, which is before this commit (rule 15).
, new_pauses as (
  insert into pauses (run_id, step_key, account_id, environment_id, kind, event_name, expression, match_path, match_value,
                      signal, correlation, requested_at)
  select w.id, p.step_key, w.account_id, w.environment_id, p.kind, p.event_name, p.expression, p.match_path, p.match_value,
         p.signal, p.correlation, least(coalesce(p.requested_at, clock()), clock())
  from unnest(:pause_n::int[], :pause_step::text[], :pause_kind::text[], :pause_event::text[], :pause_expression::text[],
              :pause_path::text[], :pause_value::text[], :pause_signal::text[], :pause_correlation::text[],
              :pause_requested::timestamptz[])
         as p (n, step_key, kind, event_name, expression, match_path, match_value, signal, correlation, requested_at)
  join win w on w.n = p.n
  on conflict (run_id, step_key) do nothing
)

-- name: close_pauses
, old_pauses as (
  delete from pauses p using unnest(:closed_n::int[], :closed_step::text[]) as c (n, step_key) join win w on w.n = c.n
  where p.run_id = w.id and p.step_key = c.step_key
)

-- name: store_requests
-- What gateway steps ask for, sealed.
, new_requests as (
  insert into gateway_calls (run_id, step_key, account_id, environment_id, sealed)
  select w.id, q.step_key, w.account_id, w.environment_id, q.sealed
  from unnest(:asked_n::int[], :asked_step::text[], :asked_sealed::bytea[]) as q (n, step_key, sealed) join win w on w.n = q.n
  on conflict (run_id, step_key) do update set sealed = excluded.sealed
)

-- name: drop_requests
-- Requests whose steps are settled.
, old_requests as (
  delete from gateway_calls g using unnest(:unasked_n::int[], :unasked_step::text[]) as c (n, step_key) join win w on w.n = c.n
  where g.run_id = w.id and g.step_key = c.step_key
)

-- name: add_defers
-- Functions to be started when the run has ended.
, new_defers as (
  insert into defers (run_id, defer_key, account_id, environment_id, function_slug, input, opening, event_id, state)
  select w.id, d.key, w.account_id, w.environment_id, d.slug, d.input, d.opening, d.event_id, d.state
  from unnest(:defer_n::int[], :defer_key::text[], :defer_slug::text[], :defer_input::text[], :defer_opening::text[],
              :defer_event::uuid[], :defer_state::text[]) as d (n, key, slug, input, opening, event_id, state)
  join win w on w.n = d.n
  on conflict (run_id, defer_key) do nothing
)

-- name: abort_defers
, aborted_defers as (
  update defers d set state = 'aborted' from unnest(:aborted_n::int[], :aborted_key::text[]) as a (n, key) join win w on w.n = a.n
  where d.run_id = w.id and d.defer_key = a.key and d.state = 'pending'
)

-- name: start_defers
-- The run has ended: its pending defers become events. Those said in this very entry are emitted like other events.
, due_defers as (
  update defers d set state = 'scheduled' from unnest(:started_n::int[], :started_key::text[]) as a (n, key) join win w on w.n = a.n
  where d.run_id = w.id and d.defer_key = a.key and d.state = 'pending'
  returning d.environment_id, d.account_id, d.event_id, d.opening
), defer_events as (
  insert into events (environment_id, id, received_at, account_id, name, ts, payload, source)
  select d.environment_id, d.event_id, clock(), d.account_id, 'inngest/deferred.schedule', x.ts,
    d.opening || x.ts || ',"user":{}}', 'internal'
  from due_defers d cross join (select (extract(epoch from clock()) * 1000)::bigint as ts) x
), defer_boxed as (
  insert into inbox (environment_id, event_id, received_at, account_id, name)
  select d.environment_id, d.event_id, clock(), d.account_id, 'inngest/deferred.schedule' from due_defers d
  on conflict (environment_id, event_id) do nothing
)

-- name: free_slots
-- Slots of leases that end with this entry.
, freed as (
  delete from slots s using unnest(:freed_n::int[], :freed_lease::uuid[]) as f (n, lease_id) join win w on w.n = f.n
  where s.lease_id = f.lease_id
)

-- name: finish
-- An ended run keeps no work, no waits and no slots (I22). Open steps are closed as cancelled by the reader.
, end_items as (delete from items i using win w where w.ends and i.run_id = w.id)
, end_pauses as (delete from pauses p using win w where w.ends and p.run_id = w.id)
, end_slots as (delete from slots s using win w where w.ends and s.run_id = w.id)
-- Minute counters (D16), and the steps the run did itself, counted once, at its end (docs/adr/0014). The shard is
-- the connection's, so that commits never wait for each other here.
, counted as (
  insert into usage_minutes as u (environment_id, function_id, minute, shard, account_id, completed, failed, cancelled, steps)
  select w.environment_id, w.function_id, minute_of(w.id), pg_backend_pid(), w.account_id,
    count(*) filter (where e.status = 'completed'), count(*) filter (where e.status = 'failed'),
    count(*) filter (where e.status in ('cancelled', 'skipped')),
    sum(w.completed - w.kept + coalesce((select s.count from settled s where s.run_id = w.id), 0))
  from win w join e on e.n = w.n where w.ends group by 1, 2, 3, 5 order by 1, 3, 2
  on conflict (environment_id, minute, function_id, shard) do update set completed = u.completed + excluded.completed,
    failed = u.failed + excluded.failed, cancelled = u.cancelled + excluded.cancelled, steps = u.steps + excluded.steps
)

-- name: history
, told as (
  insert into history (run_id, version, position, account_id, environment_id, kind, step_key, item_key, attempt, started_at, detail)
  select w.id, w.version + 1, h.position, w.account_id, w.environment_id, h.kind, h.step_key, h.item_key, h.attempt,
         h.started_at, h.detail
  from unnest(:told_n::int[], :told_position::int[], :told_kind::text[], :told_step::text[], :told_item::text[],
              :told_attempt::int[], :told_started::timestamptz[], :told_detail::text[])
         as h (n, position, kind, step_key, item_key, attempt, started_at, detail)
  join win w on w.n = h.n
)

-- name: emit
-- Internal events: stored like any other, and put into the inbox so that they trigger functions and end waits.
, emitted as (
  insert into events (environment_id, id, received_at, account_id, name, client_id, ts, payload, source)
  select w.environment_id, v.id, clock(), w.account_id, v.name, v.client_id, v.ts, v.payload, 'internal'
  from unnest(:event_n::int[], :event_id::uuid[], :event_name::text[], :event_client_id::text[], :event_ts::bigint[],
              :event_payload::text[]) as v (n, id, name, client_id, ts, payload)
  join win w on w.n = v.n
), boxed as (
  insert into inbox (environment_id, event_id, received_at, account_id, name, correlation)
  select w.environment_id, v.id, clock(), w.account_id, v.name, v.correlation
  from unnest(:event_n::int[], :event_id::uuid[], :event_name::text[], :event_correlation::text[]) as v (n, id, name, correlation)
  join win w on w.n = v.n
  on conflict (environment_id, event_id) do nothing
)

-- name: answer
-- Which entries won, which of their leases were given up, and what time it is.
select w.n, w.version + 1 as version, clock() as now,
  (select array_agg(g.lease_id) from given_up g where g.n = w.n) as given_up
from win w
