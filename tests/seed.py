"""Many runs in seconds: the size at which a page shows whether it reads roll-ups or rows.

The database makes the rows itself, in a few statements, in the shape the engine writes them: runs over the last 23 hours,
newest last, most of them completed, 4 in 100 failed, a few asleep, queued or cancelled; an event (of twenty names), two steps and
their history each. The event's total and the output's `ok` differ from run to run, so that expressions have something to tell apart.
Counters come from the trigger, as for any other insert. The connection must be the owner's.
"""

from datetime import datetime
from typing import Any

from app.domain.ids import derive_uuid
from tests.world import Function, Tenant, make_function

#: Of 1,000 runs: the rest has completed.
FAILED, WAITING, QUEUED, CANCELLED = 40, 5, 3, 4

_RUNS = """
  insert into runs (id, account_id, environment_id, app_id, function_id, function_version, lane_id, status, version,
    commit_id, completed, pending, max_attempts, event_id, event_received_at, event_name, queued_at, started_at, ended_at,
    error_code, error_name, error_message)
  select id, $1, $2, app, fn, 1, fn, status, 4, $1, case when status = 'queued' then 0 else 2 end, 0, 4, id, at,
    'order/placed', at, case when status <> 'queued' then at + interval '20 ms' end,
    case when status in ('completed', 'failed', 'cancelled') then at + interval '440 ms' end,
    case when status = 'failed' then 'function_failed' end, case when status = 'failed' then 'WarehouseTimeout' end,
    case when status = 'failed' then 'order ' || n || ': no answer within 500 ms' end
  from seeds
"""
_STEPS = """
  insert into steps (run_id, step_key, account_id, environment_id, kind, name, state, memo_order, memo, created_at,
    settled_at)
  select id, md5(k::text), $1, $2, 'run', 'step-' || k, 'completed', k, '{"data":{"n":' || n || ',"ok":true}}',
    at + k * interval '150 ms', at + k * interval '200 ms'
  from seeds cross join generate_series(1, 2) k where status <> 'queued'
"""
_HISTORY = """
  insert into history (run_id, version, position, account_id, environment_id, kind, step_key, item_key, attempt, started_at,
    at, detail)
  select id, v, p, $1, $2, kind, case when v in (2, 3) then md5((v - 1)::text) end, 'start', 0, at + v * interval '80 ms',
    at + v * interval '100 ms',
    case when kind = 'call' then '{"status":206,"ms":20,"outcome":"ok","queued_ms":1,"sdk":"stepwell-py:v0.1.0"}' end
  from seeds cross join (values (0, 1, 'run.created'), (1, 1, 'run.started'), (2, 1, 'call'), (2, 2, 'step.completed'),
    (3, 1, 'call'), (3, 2, 'step.completed')) h (v, p, kind)
"""
_ENDINGS = """
  insert into history (run_id, version, position, account_id, environment_id, kind, at, detail)
  select id, 4, 1, $1, $2, 'run.completed', at + interval '440 ms', '{"output":{"ok":' || (n % 7 > 0) || '}}'
  from seeds where status = 'completed'
"""
_EVENTS = """
  insert into events (environment_id, id, received_at, account_id, name, ts, payload)
  select $2, id, at, $1, 'order/' || n % 20, (extract(epoch from at) * 1000)::bigint,
    '{"name":"order/' || n % 20 || '","data":{"order_id":' || n || ',"total":' || n % 500 || ',"customer":"c-' || n % 97
      || '","lines":[{"sku":"a","count":2},{"sku":"b","count":1}]},"user":{},"ts":1}'
  from seeds
"""


async def seed(connection: Any, tenant: Tenant, *, runs: int = 100_000, functions: int = 20) -> list[Function]:
    """Write `runs` runs of `functions` functions in five apps; gives the functions."""
    made = [
        await make_function(
            connection, tenant, f"function-{n}", app=("shop", "growth", "billing", "search", "mail")[n % 5]
        )
        for n in range(functions)
    ]
    now: datetime = await connection.fetchval("select clock()")
    salt = derive_uuid("seed", str(tenant.environment_id)).hex[:12]
    async with connection.transaction():
        await connection.execute(
            f"""create temp table seeds on commit drop as
                select n, at, (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 8, '0')
                    || '{salt}')::uuid as id,
                  ($2::uuid[])[1 + n % cardinality($2::uuid[])] as fn, ($3::uuid[])[1 + n % cardinality($3::uuid[])] as app,
                  case when n % 1000 < {FAILED} then 'failed' when n % 1000 < {FAILED + WAITING} then 'running'
                    when n % 1000 < {FAILED + WAITING + QUEUED} then 'queued'
                    when n % 1000 < {FAILED + WAITING + QUEUED + CANCELLED} then 'cancelled' else 'completed' end as status
                from (select n, $1::timestamptz - interval '23 hours' * (1 - n / {runs}.0) as at
                      from generate_series(1, {runs}) n) x""",
            now,
            [f.id for f in made],
            [f.app_id for f in made],
        )
        scope = (tenant.account_id, tenant.environment_id)
        for statement in (_RUNS, _STEPS, _HISTORY, _ENDINGS, _EVENTS):
            await connection.execute(statement, *scope)
        await connection.execute(
            """insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, due_at)
               select gen_random_uuid(), $1, $2, fn, id, fn, 'start', case when status = 'queued' then 'discover' else 'sleep' end,
                 at + interval '30 days' from seeds where status in ('queued', 'running')""",
            *scope,
        )
    await connection.execute("analyze runs, steps, history, items, events, usage_minutes")
    return made
