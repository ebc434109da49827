"""A log of slots, written by triggers that only tests install: no instant may have more live slots than a key's limit.

Slots are inserted under the lock of their key and logged there; a freed slot is logged when its statement runs, before
anybody can see that it is free. So the intervals of the log never overlap more than the real ones did.
"""

from typing import Any

_INSTALL = """
create table if not exists slot_log (flow_key_id uuid, lease_id uuid, change integer, at timestamptz default clock_timestamp(),
  place bigserial, cap integer);
create or replace function log_slot() returns trigger language plpgsql security definer as $$
begin
  if tg_op = 'INSERT' then
    insert into slot_log (flow_key_id, lease_id, change, cap)
    select new.flow_key_id, new.lease_id, 1, (select min(f.cap) from flow_limits f join lanes l on f.id = any(l.limit_ids)
      where new.flow_key_id = any(l.flow_key_ids) and f.kind in ('calls', 'runs'));
    return new;
  end if;
  insert into slot_log (flow_key_id, lease_id, change) values (old.flow_key_id, old.lease_id, -1);
  return old;
end $$;
create or replace trigger log_slots after insert or delete on slots for each row execute function log_slot();
truncate slot_log;
"""
_MOST = """
select flow_key_id, max(live) as most, max(cap) as cap from (
  select flow_key_id, cap, sum(change) over (partition by flow_key_id order by at, place) as live from slot_log) x
group by flow_key_id
"""


async def install(owner: Any) -> None:
    """Begin to log, from nothing."""
    await owner.execute(_INSTALL)


async def most_at_once(owner: Any) -> dict[Any, int]:
    """The most live slots each key ever had."""
    return {row["flow_key_id"]: row["most"] for row in await owner.fetch(_MOST)}


async def breaches(owner: Any) -> list[Any]:
    """Moments at which a slot was taken beyond the limit as it was then (I17)."""
    found: list[Any] = await owner.fetch(
        "select * from (select flow_key_id, cap, change, sum(change) over (partition by flow_key_id order by at, place) as live"
        " from slot_log) x where change = 1 and live > cap"
    )
    return found
