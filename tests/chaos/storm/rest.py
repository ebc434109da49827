"""Waiting until a storm has come to rest, and saying what does not: the part of I31 that is not a query.

    Rest(yard, client).wait()  ─►  True: nothing is open, in one snapshot · False: `why` says what stayed

A machine that many share gives a process less time than has passed, so time is counted in engine seconds: a second minus
what Stepwell's own processes waited for a core in it (`/proc/<pid>/schedstat`). What must not take longer than that is not
the end but the next step towards it, of which there is a finite number once nobody sends any more.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.storm.client import Client
from tests.chaos.storm.yard import Yard

STALLED_S = 60.0
"""Engine seconds without any progress: the minute of I31, and longer than any wait or retry of a program."""
TOTAL_S = 180.0
"""Engine seconds for everything: the backlog of the slowest limit, worked off in turn."""
CEILING_S = 900.0
"""Seconds by the clock after which a machine is too busy for a storm: the storm does not count then."""
_LOOK_S = 0.5

OPEN = """
  select 'run' as what, id::text as id, status || ', event ' || event_name || ', queued ' || queued_at::text as detail
    from runs where ended_at is null
  union all select 'inbox row', event_id::text, name || ', received ' || received_at::text from inbox
  union all select 'item', i.id::text, i.kind || ' ' || i.key || ' of run ' || i.run_id || ', attempt ' || i.attempt
      || ', redeliveries ' || i.redeliveries || ', due ' || i.due_at::text || coalesce(', held until due ' || i.held_due::text, '')
      || coalesce(', leased ' || i.leased_at::text || ' by ' || coalesce(w.name || ' until ' || w.lease_until::text, 'a lost worker'), '')
      || coalesce(', lane ' || l.id || ' next due ' || l.next_due::text || ' served ' || l.served_at::text
           || coalesce(' blocked by ' || l.blocked_by || ' until ' || l.blocked_until::text, ''), ', no lane')
    from items i left join lanes l on l.id = i.lane_id left join workers w on w.id = i.worker_id
  union all select 'wait', p.run_id::text, p.kind || ' ' || p.step_key || coalesce(', match ' || p.match_value, '')
      || coalesce(', signal ' || p.signal, '') || coalesce(', until ' || p.expires_at::text, '') from pauses p
  union all select 'slot', s.flow_key_id::text, 'lease ' || s.lease_id || ' of run ' || s.run_id || ', taken ' || s.taken_at::text
    from slots s
  union all select 'gate', id::text, kind || ' ' || key || ', due ' || due_at::text from gates where opened_at is not null
"""
"""All that is not over, each with what it waits for. Rest is when this has no row: one snapshot, so a tick of the schedule
between two questions does not look like something left over."""
_PROGRESS = """
  select (select count(*) from runs where ended_at is not null and cron is null) as ended,
    (select count(*) from steps s join runs r on r.id = s.run_id where s.memo_order is not null and r.cron is null) as settled,
    (select count(*) from inbox) as inbox
"""


@dataclass(slots=True)
class Rest:
    """Waits for rest. `stalled_s` and `total_s` are engine seconds."""

    yard: Yard
    client: Client
    stalled_s: float = STALLED_S
    total_s: float = TOTAL_S
    #: What did not come to rest, one line each; the first says which bound was broken.
    why: list[str] = field(default_factory=list)
    engine_s: float = 0.0

    async def wait(self) -> bool:
        """True when the client is done and nothing is open."""
        finish = asyncio.create_task(self.client.finish())
        began = time.monotonic()
        clock = EngineClock()
        gone: tuple[int, ...] | None = None
        moved_at = 0.0
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                self.engine_s += clock.passed(self._pids())
                rows = await self.yard.ask(OPEN)
                if finish.done() and rows is not None and not rows:
                    finish.result()
                    return True
                far = await self._how_far()
                if far is not None:
                    best = far if gone is None else tuple(map(max, far, gone))
                    if best != gone:
                        gone, moved_at = best, self.engine_s
                bound = self._broken(self.engine_s - moved_at, time.monotonic() - began)
                if bound:
                    await self._explain(bound)
                    return False
        finally:
            finish.cancel()
            await asyncio.gather(finish, return_exceptions=True)

    def _broken(self, stalled: float, passed: float) -> str:
        if stalled > self.stalled_s:
            return f"nothing moved for {stalled:.0f} s in which the engine had the machine"
        if self.engine_s > self.total_s:
            return f"things moved, and were not over after {self.engine_s:.0f} s in which the engine had the machine"
        if passed > CEILING_S:
            return f"not over after {passed:.0f} s, of which the engine had the machine for {self.engine_s:.0f} s"
        return ""

    def _pids(self) -> list[int]:
        """Stepwell's processes and the database's sessions."""
        pids: list[int] = []
        for child in self.yard.children.values():
            if child.pid is not None:
                pids.append(child.pid)
                with contextlib.suppress(psutil.Error):
                    pids += [each.pid for each in psutil.Process(child.pid).children(recursive=True)]
        return pids

    async def _how_far(self) -> tuple[int, ...] | None:
        """Numbers that only grow while work is done, and cannot grow for ever: the schedule's runs are not among them."""
        rows = await self.yard.ask(_PROGRESS)
        if rows is None:
            return None
        return rows[0]["ended"], rows[0]["settled"], -rows[0]["inbox"], -len(self.client.undone())

    async def _explain(self, bound: str) -> None:
        rows = await self.yard.ask(OPEN) or []
        now = await self.yard.ask("select clock() as now")
        kinds = ", ".join(f"{sum(row['what'] == kind for row in rows)} {kind}s" for kind in _kinds(rows)) or "nothing"
        undone = self.client.undone()
        self.why.append(f"{bound}; open: {kinds}; the client has {len(undone)} things to do")
        self.why += [f"the client is not done: {line}" for line in undone[:10]]
        if now:
            self.why.append(f"it is {now[0]['now']} by the database")
        for kind in _kinds(rows):
            self.why += [f"{kind} {row['id']}: {row['detail']}" for row in rows if row["what"] == kind][:10]


class EngineClock:
    """Tells how much of the time that passed some processes had: all of it, less what they waited for a core."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._waited: dict[int, float] = {}

    def passed(self, pids: Iterable[int]) -> float:
        """Engine seconds since the last call, 0 or more. Unknown processes count from their second look on."""
        now, waited = time.monotonic(), {pid: waited_s(pid) for pid in pids}
        lost = sum(max(0.0, seconds - self._waited[pid]) for pid, seconds in waited.items() if pid in self._waited)
        took, self._at, self._waited = now - self._at, now, waited
        return max(0.0, took - lost)


def waited_s(pid: int) -> float:
    """Seconds a process's first thread was ready to run and had no core, since it began; 0 when the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _kinds(rows: list[Any]) -> list[str]:
    return list(dict.fromkeys(row["what"] for row in rows))
