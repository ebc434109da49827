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
    -- Of a shared key each function compares the count with a limit of its own.
    select new.flow_key_id, new.lease_id, 1, (select min(f.cap) from runs r join lanes l on l.function_id = r.function_id
      cross join unnest(l.flow_key_ids, l.limit_ids) as k (key_id, limit_id) join flow_limits f on f.id = k.limit_id
      where r.id = new.run_id and k.key_id = new.flow_key_id and f.kind in ('calls', 'runs'));
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


async def breaches(owner: Any, changes: list[tuple[Any, int]] | None = None) -> list[Any]:
    """Moments at which a slot was taken beyond the limit as it was then (I17).

    `changes` are (when, limit before): a lease that had read the limit just before may still be written.
    """
    found: list[Any] = await owner.fetch(
        "select * from (select flow_key_id, cap, change, at, sum(change) over (partition by flow_key_id order by at, place)"
        " as live from slot_log) x where change = 1 and live > cap"
    )
    return [
        row
        for row in found
        if not any(abs((row["at"] - at).total_seconds()) < 1 and row["live"] <= before for at, before in changes or ())
    ]


async def idle_times(owner: Any, flow_key_ids: list[Any], caps: list[tuple[Any, int]]) -> dict[Any, float]:
    """The longest time, in seconds, that each key had a free slot while work for it waited.

    Work waits from the first to the last slot taken under a key whose work all exists before; `caps` are (since, limit).
    """
    longest: dict[Any, float] = {}
    rows = await owner.fetch(
        "select flow_key_id, change, at from slot_log where flow_key_id = any($1::uuid[]) order by at, place",
        flow_key_ids,
    )
    for key in flow_key_ids:
        events = [(row["at"], row["change"]) for row in rows if row["flow_key_id"] == key]
        last = max((at for at, change in events if change == 1), default=None)
        if last is None:
            continue
        moments = sorted(
            [(at, change, None) for at, change in events] + [(at, 0, cap) for at, cap in caps], key=lambda m: m[0]
        )
        live, cap, free_since, most = 0, caps[0][1], None, 0.0
        for at, change, new_cap in moments:
            if at > last:
                break
            if free_since is not None and change == 1:
                # A slot was taken: whatever is still free has been so since then at the latest.
                most = max(most, (at - free_since).total_seconds())
                free_since = None
            live += change
            cap = cap if new_cap is None else new_cap
            is_free = live < cap and at >= events[0][0]
            free_since = (free_since or at) if is_free else None
        longest[key] = most
    return longest


async def longest_held(owner: Any) -> float:
    """The longest time any slot was taken, in seconds, that of dead holders included."""
    found: float = await owner.fetchval(
        "select coalesce(max(extract(epoch from f.at - t.at)), 0)::float from slot_log t join slot_log f"
        " on (f.flow_key_id, f.lease_id) = (t.flow_key_id, t.lease_id) and f.change = -1 where t.change = 1"
    )
    return found
