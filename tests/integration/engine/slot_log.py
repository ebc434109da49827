"""A log of slots, written by triggers that only tests install: no instant may have more live slots than a key's limit.

Slots are inserted under the lock of their key and logged there; a freed slot is logged when its statement runs, before
anybody can see that it is free. So the intervals of the log never overlap more than the real ones did.

How long a slot stays free says more about the machine than about the engine where many share a machine. What counts is what
workers could have done meanwhile: the beats of their event loops in which they did nothing, and the rounds in which they looked
and did not take it. Both stand in their diaries (worker_process.py); a worker that gets no share of the machine has neither.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.engine.worker_process import BEAT_S

_INSTALL = """
create table if not exists slot_log (flow_key_id uuid, lease_id uuid, change integer, at timestamptz default clock_timestamp(),
  place bigserial, cap integer, run_id uuid);
create or replace function log_slot() returns trigger language plpgsql security definer as $$
begin
  if tg_op = 'INSERT' then
    insert into slot_log (flow_key_id, lease_id, run_id, change, cap)
    -- Of a shared key each function compares the count with a limit of its own.
    select new.flow_key_id, new.lease_id, new.run_id, 1, (select min(f.cap) from runs r join lanes l on l.function_id = r.function_id
      cross join unnest(l.flow_key_ids, l.limit_ids) as k (key_id, limit_id) join flow_limits f on f.id = k.limit_id
      where r.id = new.run_id and k.key_id = new.flow_key_id and f.kind in ('calls', 'runs'));
    return new;
  end if;
  insert into slot_log (flow_key_id, lease_id, run_id, change) values (old.flow_key_id, old.lease_id, old.run_id, -1);
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


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a key had a free slot while work for it waited, or a taken one; seconds since the epoch."""

    key: Any
    since: float
    until: float

    @property
    def seconds(self) -> float:
        """How long."""
        return self.until - self.since


async def gaps(owner: Any, flow_key_id: Any, caps: list[tuple[float, int]]) -> list[Gap]:
    """When a key had a free slot while work for it waited.

    A run waits when it exists, takes a slot later and holds none now; what a dead worker holds does not wait. `caps` are
    (since, limit).
    """
    rows = await owner.fetch(
        "select l.change, extract(epoch from l.at)::float as at, l.run_id, extract(epoch from r.queued_at)::float as made"
        " from slot_log l join runs r on r.id = l.run_id where l.flow_key_id = $1 order by l.at, l.place",
        flow_key_id,
    )
    if not rows:
        return []
    given_back: dict[Any, float] = {}
    # When; one more or less, or the limit from then on; since when the run that takes the slot had waited.
    moments: list[tuple[float, int, int | None, float]] = [(at, 0, cap, 0.0) for at, cap in caps]
    for row in rows:
        moments.append((row["at"], row["change"], None, given_back.get(row["run_id"], row["made"])))
        if row["change"] == -1:
            given_back[row["run_id"]] = row["at"]
    moments.sort(key=lambda moment: moment[0])
    waiting, earliest = [], float("inf")
    for _, change, _, since in reversed(moments):
        earliest = min(earliest, since) if change == 1 else earliest
        waiting.append(earliest)
    found: list[Gap] = []
    live, cap, free_since = 0, caps[0][1], None
    for (at, change, new_cap, _), waited_since in zip(moments, reversed(waiting), strict=True):
        if free_since is not None and change == 1:
            # A slot is taken: whatever is still free has been so since then at the latest.
            found.append(Gap(flow_key_id, max(free_since, waited_since), at))
            free_since = None
        live += change
        cap = cap if new_cap is None else new_cap
        is_free = live < cap and at >= rows[0]["at"]
        free_since = (at if free_since is None else free_since) if is_free else None
    return found


@dataclass(frozen=True, slots=True)
class Diary:
    """What a worker did and when, in seconds since the epoch: beats of its event loop, rounds of its work loop."""

    name: str
    beats: list[float]
    rounds: list[tuple[float, float]]

    @classmethod
    def read(cls, path: Path) -> "Diary":
        """The diary of a worker; empty if it died before it began one, and its last line may be cut."""
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        beats = [float(line[1]) for line in lines if line[:1] == ["beat"] and len(line) == 2]
        return cls(path.stem, beats, [(float(x[1]), float(x[2])) for x in lines if x[:1] == ["round"] and len(x) == 3])

    def alive(self, gap: Gap) -> float:
        """Seconds, counted in beats, in which it could do something."""
        return BEAT_S * sum(gap.since <= at <= gap.until for at in self.beats)

    def idle(self, gap: Gap) -> float:
        """Seconds, counted in beats, in which it waited for something to do."""
        between = [at for at in self.beats if gap.since <= at <= gap.until]
        return BEAT_S * sum(not any(began <= at <= ended for began, ended in self.rounds) for at in between)

    def looks(self, gap: Gap, after_s: float) -> int:
        """Rounds it began that long after the slot was free, and ended before it was taken."""
        return sum(began >= gap.since + after_s and ended <= gap.until for began, ended in self.rounds)


async def held(owner: Any) -> list[Gap]:
    """From when to when slots of calls were taken, those of dead holders included; the longest come first."""
    rows = await owner.fetch(
        "select t.flow_key_id, extract(epoch from t.at)::float as since, extract(epoch from f.at)::float as until"
        " from slot_log t join slot_log f on (f.flow_key_id, f.lease_id) = (t.flow_key_id, t.lease_id) and f.change = -1"
        " where t.change = 1 and t.lease_id not in (select id from runs) order by t.at - f.at limit 100"
    )
    return [Gap(row["flow_key_id"], row["since"], row["until"]) for row in rows]
