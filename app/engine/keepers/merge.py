"""Adds up the minute counters that connections wrote side by side, once nobody is likely to add to the minute.

Every count passes through here exactly once, on its way from a connection's shard to shard 0; so this is where usage is
counted by the day, in the same statement (docs/adr/0014). What is older than an hour, such as the end of a run that slept
for weeks, counts for today: days that are over and reported never change.
"""

from app.store.db import Pool

#: Rows added up at once.
_SLICE = 5000


async def run_once(pool: Pool) -> int:
    """Bring the shards of past minutes together in shard 0; returns how many rows went.

    A commit that adds to a row meanwhile waits for this transaction and then starts the row anew, so no count is lost.
    """
    async with pool.acquire(timeout=10) as connection:
        gone: int = await connection.fetchval(
            """with old as (
                 select environment_id, minute, function_id, shard from usage_minutes
                 where shard <> 0 and minute < clock() - interval '10 minutes' order by minute limit $1
                 for update skip locked
               ), gone as (
                 delete from usage_minutes u using old o where u.environment_id = o.environment_id and u.minute = o.minute
                   and u.function_id = o.function_id and u.shard = o.shard returning u.*
               ), merged as (
                 insert into usage_minutes as u (environment_id, function_id, minute, shard, account_id, made, completed,
                   failed, cancelled, skipped, steps)
                 select environment_id, function_id, minute, 0, account_id, sum(made), sum(completed), sum(failed),
                   sum(cancelled), sum(skipped), sum(steps)
                 from gone group by 1, 2, 3, 5 order by 1, 3, 2
                 on conflict (environment_id, minute, function_id, shard) do update set made = u.made + excluded.made,
                   completed = u.completed + excluded.completed, failed = u.failed + excluded.failed,
                   cancelled = u.cancelled + excluded.cancelled, skipped = u.skipped + excluded.skipped,
                   steps = u.steps + excluded.steps
               ), days as (
                 insert into usage_days as d (environment_id, day, account_id, runs, steps)
                 select environment_id,
                   ((case when minute > clock() - interval '1 hour' then minute else clock() end) at time zone 'UTC')::date,
                   account_id, sum(made - skipped), sum(steps)
                 from gone group by 1, 2, 3 having sum(made - skipped) > 0 or sum(steps) > 0 order by 1, 2
                 on conflict (environment_id, day) do update set runs = d.runs + excluded.runs,
                   steps = d.steps + excluded.steps
               ) select count(*) from gone""",
            _SLICE,
        )
    return gone
