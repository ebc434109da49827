-- name: find
-- Who waits for a signal now.
select p.run_id, p.step_key from pauses p where p.environment_id = :environment::uuid and p.signal = :signal::text

-- name: hold
-- Whether the wait still has its name; asked under the lock of its run.
select true from pauses p where p.environment_id = :environment::uuid and p.signal = :signal::text
  and p.run_id = :run_id::uuid and p.step_key = :step_key::text for update
