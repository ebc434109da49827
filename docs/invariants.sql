-- What must always hold, as queries that return no rows (reliability-security, section 2). Run them by
-- tests/invariants.py after every test of the engine and after every fault, or by hand on a live database: each block
-- reads only, and each answers with the rows that are wrong.
--
-- Logical names → tables: event = events, run = runs, step = steps, work = items, wait = pauses, journal = history,
-- attempt = history of kind 'call', slot = slots, limit = flow_limits at a key of flow_keys, org = account_id, env = environment_id.
-- Not here, because no table alone can tell: I1, I2 and I5 (the client's ledger knows what was sent), I3 (needs the
-- triggers of the moment), I11 (row hashes before and after), I14 (tests plant the event), I17 over time (a log of slots that
-- tests write by trigger), started runs per window of I19 and missing due times of I21 (independent models), I25 to I31.
-- A block may look at rows that a transaction in flight is about to change: every statement sees one snapshot, and the
-- engine's transactions leave no block breached between them. Blocks that need quiet say so.

-- I4-events: An event is stored once.
select environment_id, id from events group by environment_id, id having count(*) > 1

-- I4-runs: One event starts each function at most once.
select environment_id, function_id, event_id from runs where original_run_id is null and cron is null
group by environment_id, function_id, event_id having count(*) > 1

-- I4-dedupe: The run a deduplication key names is of its function and environment.
select d.function_id, d.key from dedupe d join runs r on r.id = d.run_id
where (r.account_id, r.environment_id, r.function_id) is distinct from (d.account_id, d.environment_id, d.function_id)

-- I6: A settled step has one place in the memo order, and one line in the journal says so.
select s.run_id, s.step_key from steps s
where s.memo_order is not null and (select count(*) from history h
  where h.run_id = s.run_id and h.step_key = s.step_key and h.kind in ('step.completed', 'step.failed')) <> 1

-- I6-order: The memo order of a run is 1, 2, 3 … without holes, as many as the run says are completed.
select r.id from runs r left join lateral (
  select count(*)::int as settled, coalesce(max(s.memo_order), 0) as last, count(distinct s.memo_order)::int as places
  from steps s where s.run_id = r.id and s.memo_order is not null
) s on true
where r.completed <> s.settled or s.last <> s.settled or s.places <> s.settled

-- I6-state: A step has an outcome exactly when its state says so.
select run_id, step_key from steps where (state in ('completed', 'failed')) <> (memo_order is not null)

-- I7: No call that targets a step began after the step had its outcome.
select h.run_id, h.step_key from history h
join steps s on s.run_id = h.run_id and s.step_key = h.step_key
where h.kind = 'call' and h.item_key like 'step:%' and h.started_at > s.settled_at

-- I8: Counted attempts stay below the limit of the run.
select i.id from items i join runs r on r.id = i.run_id where i.attempt >= r.max_attempts
union all
select h.run_id from history h join runs r on r.id = h.run_id where h.kind = 'call' and h.attempt >= r.max_attempts

-- I9: A run ends once, and its row and its journal agree on how.
select r.id from runs r
where (select count(*) from history h where h.run_id = r.id
         and h.kind in ('run.completed', 'run.failed', 'run.cancelled'))
      <> (case when r.status in ('completed', 'failed', 'cancelled') then 1 else 0 end)
   or (r.status in ('completed', 'failed', 'cancelled')
       and not exists (select from history h where h.run_id = r.id and h.kind = 'run.' || r.status))

-- I9-final: After the end nothing but late answers is written.
select h.run_id, h.kind from history h
join history t on t.run_id = h.run_id and t.kind in ('run.completed', 'run.failed', 'run.cancelled')
where (h.version, h.position) > (t.version, t.position) and h.kind <> 'late'

-- I9-events: One finish event at most for each run. Its id is the last key of the data; operators for JSON would refuse
-- payloads that hold an escaped NUL.
select environment_id, substring(payload from '.*"run_id":"([0-9A-Z]{26})"') as run from events
where source = 'internal' and name = 'inngest/function.finished'
group by environment_id, substring(payload from '.*"run_id":"([0-9A-Z]{26})"') having count(*) > 1

-- I10: Every unfinished run has work, or a wait whose timeout is work.
select r.id from runs r where r.status in ('queued', 'running')
  and not exists (select from items i where i.run_id = r.id and i.kind not in ('start_timeout', 'finish_timeout'))

-- I10-leases: Whoever holds an item is on the list of workers. Needs: nobody was given up within the last seconds, for what a
-- round of his that was under way leased then is seen here until the keepers rescue it.
select i.id from items i where i.worker_id is not null and not exists (select from workers w where w.id = i.worker_id)

-- I10-steps: An open step has something that moves it.
select s.run_id, s.step_key from steps s join runs r on r.id = s.run_id
where r.ended_at is null and s.state in ('planned', 'sleeping', 'waiting', 'invoking') and not s.is_race
  and not exists (select from items i where i.run_id = s.run_id and i.step_key = s.step_key)

-- I12: A child's end reaches its parent: the invoke of an ended child is settled, or the end is still in the inbox.
select c.id from runs c join steps s on s.run_id = c.parent_run_id and s.step_key = c.parent_step_key
where c.ended_at is not null and s.state = 'invoking' and not exists (
  select from inbox b where b.environment_id = c.environment_id and b.correlation is not null)

-- I13: An open wait has exactly one live timeout.
select p.run_id, p.step_key from pauses p where p.kind <> 'cancel' and (select count(*) from items i
  where i.run_id = p.run_id and i.kind = 'timeout' and i.step_key = p.step_key) <> 1

-- I13-steps: Waits are open exactly while their steps are.
select s.run_id, s.step_key from steps s join runs r on r.id = s.run_id
where r.ended_at is null and s.state in ('waiting', 'invoking')
  and not exists (select from pauses p where p.run_id = s.run_id and p.step_key = s.step_key)
union all
select p.run_id, p.step_key from pauses p where p.kind <> 'cancel' and not exists (
  select from steps s where s.run_id = p.run_id and s.step_key = p.step_key and s.state in ('waiting', 'invoking'))

-- I15: A wait has one outcome.
select run_id, step_key from history where kind in ('wait.resumed', 'wait.timed_out', 'wait.cancelled')
group by run_id, step_key having count(*) > 1

-- I16: No timer fired early: a step that slept or timed out was settled when it was due or later.
select i.id from items i where i.kind in ('sleep', 'timeout', 'start_timeout', 'finish_timeout') and i.leased_at < i.due_at

-- I17: No limit has more slots taken than it may have. A lowered limit applies to new claims: then this shows for a while.
select k.id from flow_keys k
where (select count(*) from slots s where s.flow_key_id = k.id) > coalesce(k.cap, (
  select max(f.cap) from lanes l cross join unnest(l.flow_key_ids, l.limit_ids) as u (key_id, limit_id)
  join flow_limits f on f.id = u.limit_id and f.kind <> 'throttle' where u.key_id = k.id))

-- I17-slots: A leased call holds a slot of every limit of its lane. Needs: no limit was added while the run was running.
select i.id from items i join lanes l on l.id = i.lane_id
where i.lease_id is not null and i.kind in ('discover', 'step') and exists (
  select from unnest(l.flow_key_ids, l.limit_ids) as k (id, limit_id) join flow_limits f on f.id = k.limit_id
  where f.kind <> 'throttle'
    and not exists (select from slots s where s.flow_key_id = k.id and s.lease_id in (i.lease_id, i.run_id)))

-- I18: A slot belongs to a leased item, or to a run that is not over.
select s.flow_key_id, s.lease_id from slots s
where not exists (select from items i where i.lease_id = s.lease_id)
  and not (s.lease_id = s.run_id and exists (select from runs r where r.id = s.run_id and r.ended_at is null))

-- I19: What a rate limit, a duplicate id or an idempotency key refused made no run of that event.
select d.event_id, d.function_id from dispositions d join runs r on r.environment_id = d.environment_id
  and r.event_id = d.event_id and r.function_id = d.function_id
where d.outcome in ('rate_limited', 'duplicate')

-- I20: An event of a batch is in exactly one batch of its function, and a batch knows its size.
select x.event_id from run_events x join runs r on r.id = x.run_id group by r.function_id, x.event_id having count(*) > 1
union all
select r.id from runs r where r.batch_size <> 1 + (select count(*) from run_events x where x.run_id = r.id)
union all
select x.event_id from run_events x join runs r on r.environment_id = x.environment_id and r.event_id = x.event_id
  join runs b on b.id = x.run_id and b.function_id = r.function_id

-- I20-timers: An open debounce or batch has a timer and an event, and what it gathered is its own.
select g.id from gates g where g.kind in ('debounce', 'batch') and g.opened_at is not null
  and (g.due_at is null or g.event_id is null or (g.kind = 'batch' and (
       g.run_id is null or g.size <> 1 + (select count(*) from run_events x where x.run_id = g.run_id)
       or exists (select from runs r where r.id = g.run_id))))

-- I20-answers: An event that went into a batch is in a run, or in one that is still open.
select d.event_id from dispositions d where d.outcome = 'batched' and d.run_id is not null
  and not exists (select from runs r where r.id = d.run_id) and not exists (select from gates g where g.run_id = d.run_id)

-- I21: Every due time of a schedule has one answer, and what ran has a run.
select a.schedule_id from schedule_answers a where a.outcome = 'ran' and not exists (select from runs r where r.id = a.run_id)
union all
select s.id from schedules s join schedule_answers a on a.schedule_id = s.id and a.due_at >= s.next_due

-- I21-once: One run per function and due time.
select r.function_id from runs r join schedule_answers a on a.run_id = r.id
group by r.function_id, a.due_at having count(distinct r.id) > 1

-- I22: An ended run has no work, no waits and no slots.
select r.id from runs r where r.ended_at is not null and (
  exists (select from items i where i.run_id = r.id) or exists (select from pauses p where p.run_id = r.id)
  or exists (select from slots s where s.run_id = r.id))

-- I22-steps: An ended run has no open step.
select s.run_id, s.step_key from steps s join runs r on r.id = s.run_id
where r.ended_at is not null and s.state not in ('completed', 'failed', 'cancelled')

-- I23-runs: A run is of the tenant of its function, its app, its lane and its event. The lane of an ended run may be gone,
-- and its event when it is past the longest time anything is kept (a run made again from an old event).
select r.id from runs r left join functions f on f.id = r.function_id left join apps a on a.id = r.app_id
  left join lanes l on l.id = r.lane_id
where (f.account_id, f.environment_id) is distinct from (r.account_id, r.environment_id)
   or (a.account_id, a.environment_id) is distinct from (r.account_id, r.environment_id)
   or ((l.account_id, l.environment_id, l.function_id) is distinct from (r.account_id, r.environment_id, r.function_id)
       and (l.id is not null or r.ended_at is null))
   or not exists (select from events e where e.environment_id = r.environment_id and e.id = r.event_id
                    and e.received_at = r.event_received_at and e.account_id = r.account_id)
       and (r.ended_at is null or r.event_received_at > clock() - (select coalesce(max(k.keep), '40 years') from retentions k))

-- I23-parts: Rows of a run are of the run's tenant. Steps and history outlive a run of a short plan: they go by whole days.
select 'steps' as part, x.run_id from steps x left join runs r on r.id = x.run_id
where (r.account_id, r.environment_id) is distinct from (x.account_id, x.environment_id)
  and (r.id is not null or x.run_id > ulid_floor(clock() - (select coalesce(min(k.keep), '40 years') from retentions k)))
union all
select 'history', x.run_id from history x left join runs r on r.id = x.run_id
where (r.account_id, r.environment_id) is distinct from (x.account_id, x.environment_id)
  and (r.id is not null or x.run_id > ulid_floor(clock() - (select coalesce(min(k.keep), '40 years') from retentions k)))
union all
select 'items', x.run_id from items x left join runs r on r.id = x.run_id
  left join lanes l on l.id = x.lane_id
where (r.account_id, r.environment_id, r.function_id) is distinct from (x.account_id, x.environment_id, x.function_id)
   or (l.account_id, l.environment_id, l.function_id) is distinct from (x.account_id, x.environment_id, x.function_id)
union all
select 'pauses', x.run_id from pauses x left join runs r on r.id = x.run_id
where (r.account_id, r.environment_id) is distinct from (x.account_id, x.environment_id)
union all
select 'slots', x.run_id from slots x left join runs r on r.id = x.run_id left join flow_keys k on k.id = x.flow_key_id
where (r.account_id, r.environment_id) is distinct from (x.account_id, x.environment_id)
   or k.account_id is distinct from x.account_id

-- I23-parents: A child is of its parent's tenant.
select c.id from runs c join runs p on p.id = c.parent_run_id
where (c.account_id, c.environment_id) is distinct from (p.account_id, p.environment_id)

-- I23-inbox: An event nobody has reacted to is stored, and is of the tenant its inbox row names.
select b.event_id from inbox b where not exists (
  select from events e where e.environment_id = b.environment_id and e.id = b.event_id and e.received_at = b.received_at
    and e.account_id = b.account_id)

-- I23-lanes: A lane and its limits are of one tenant.
select l.id from lanes l left join functions f on f.id = l.function_id
where (f.account_id, f.environment_id) is distinct from (l.account_id, l.environment_id)
union all
select l.id from lanes l cross join unnest(l.flow_key_ids) as u (id) left join flow_keys k on k.id = u.id
where k.account_id is distinct from l.account_id

-- I24: Every table with a tenant's rows has row-level security that binds its owner too.
select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid
where a.attname = 'account_id' and c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
  and c.relname <> 'sessions' and not (c.relrowsecurity and c.relforcerowsecurity)

-- I28: No stored value is above its limit: 4 MiB an output, 32 MiB the state of a run.
select run_id, step_key from steps where octet_length(memo) > 4 * 1024 * 1024 + 16
union all
select id, 'state' from runs where state_bytes > 32 * 1024 * 1024

-- COUNTERS-pending: `pending` counts the open members of the group, and a group is open while it has any.
select r.id from runs r where r.ended_at is null and (
  r.pending <> (select count(*) from steps s where s.run_id = r.id and s.is_member
                  and s.state not in ('completed', 'failed', 'cancelled'))
  or (r.pending > 0) <> (r.group_key is not null))

-- COUNTERS-bytes: `state_bytes` counts the events, and the memos, inputs and options of steps. A replay may hold an edited
-- input that its step then reports, and events may be gone before their run.
select r.id from runs r join events e on e.environment_id = r.environment_id and e.id = r.event_id
  and e.received_at = r.event_received_at
where r.original_run_id is null and r.state_bytes <> octet_length(e.payload)
  + (select coalesce(sum(octet_length(x.payload)), 0) from run_events v join events x on x.environment_id = v.environment_id
       and x.id = v.event_id and x.received_at = v.received_at where v.run_id = r.id)
  + (select coalesce(sum(coalesce(octet_length(s.memo), 0) + coalesce(octet_length(s.input), 0)
       + coalesce(octet_length(s.opts), 0)), 0) from steps s where s.run_id = r.id)
union all
select r.id from runs r where r.original_run_id is not null and r.state_bytes <
  (select coalesce(sum(octet_length(s.memo)), 0) from steps s where s.run_id = r.id and s.memo_order is not null)

-- COUNTERS-versions: The journal knows no version the run has not reached.
select h.run_id from history h join runs r on r.id = h.run_id where h.version > r.version

-- USAGE-reported: Nobody is charged for more than was used: of a day, no more is in reports than was counted.
select environment_id, day from usage_days where reported > runs + steps or least(runs, steps, events) < 0

-- USAGE-kept: The steps a replay kept are among those it has.
select id from runs where kept > completed or (kept > 0 and original_run_id is null)
