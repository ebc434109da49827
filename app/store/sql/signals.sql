-- name: claim
-- Takes names for waits of runs whose rows are held, in the order of the names so that two who claim several cannot
-- wait for each other. A name that somebody has is taken over only by those who replace.
insert into signal_names as s (environment_id, signal, account_id, run_id, step_key)
select w.environment_id, w.signal, w.account_id, w.run_id, w.step_key
from unnest(:environment::uuid[], :signal::text[], :account::uuid[], :run_id::uuid[], :step_key::text[])
  as w (environment_id, signal, account_id, run_id, step_key)
order by w.environment_id, w.signal
on conflict (environment_id, signal) do update set run_id = excluded.run_id, step_key = excluded.step_key
  where (s.environment_id, s.signal) in (select * from unnest(:replace_environment::uuid[], :replace_signal::text[]))
returning s.environment_id, s.signal, s.run_id

-- name: find
-- Who waits for a signal now.
select s.run_id, s.step_key from signal_names s where s.environment_id = :environment::uuid and s.signal = :signal::text

-- name: hold
-- Whether the wait still has its name; asked under the lock of its run.
select true from signal_names s where s.environment_id = :environment::uuid and s.signal = :signal::text
  and s.run_id = :run_id::uuid and s.step_key = :step_key::text for update
