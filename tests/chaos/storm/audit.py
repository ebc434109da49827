"""When it is quiet: what must hold, asked of the rows and of the ledgers. Every finding is one line that names its invariant.

The ledgers are the client's (what was acknowledged) and the app's (what was executed); the judge of results is
`programs.disagreement`, which knows nothing of the engine.
"""

import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID

from app.domain.ids import parse_ulid, to_ulid
from tests.chaos.storm.app import SIMPLE
from tests.chaos.storm.client import Client
from tests.chaos.storm.programs import disagreement
from tests.chaos.storm.yard import LEASE_S
from tests.invariants import violations

STARTERS = ("steady", "saving", "narrow", "throttled", "victim", "late", "fragile", "batch", "debounce", "rated")
#: Seconds after a strike in which what it interrupted may be done again: a lease runs out, a call times out, pools heal.
_WAKE_S = LEASE_S + 10.0
_SENT_LATE_S = 2.0
"""A call whose lease is younger than a second is sent without asking again (rule 16), if the hint of the end got lost."""
_BOUNDED = 45
"""Connections the processes may have: web 4 + 6, workers 4 + 3 each, and those that the server has not missed yet."""

_RUNS = """
  select r.id, r.event_id, f.slug, r.status, r.error_code, r.error_message, r.queued_at, r.started_at, r.ended_at,
    r.original_run_id, r.parent_run_id, e.payload, e.client_id, r.max_attempts,
    (select h.detail from history h where h.run_id = r.id and h.kind = 'run.completed') as detail,
    (select count(*) from history h where h.run_id = r.id and h.kind = 'call') as calls
  from runs r join functions f on f.id = r.function_id
  join events e on (e.environment_id, e.id, e.received_at) = (r.environment_id, r.event_id, r.event_received_at)
"""
#: I3: an event without an answer for a function that it triggers, and that nobody is to react to any more.
_UNANSWERED = """
  select e.id, e.name, f.slug from events e join functions f on f.slug = 'storm-' || substr(e.name, 7) and e.name like 'storm/%'
    or f.slug = 'storm-odd' and e.name = 'storm/small'
  where not exists (select from runs r where r.event_id = e.id and r.function_id = f.id)
    and not exists (select from run_events x join runs r on r.id = x.run_id where x.event_id = e.id and r.function_id = f.id)
    and not exists (select from dispositions d where d.event_id = e.id and d.function_id = f.id)
    and not exists (select from inbox b where b.event_id = e.id)
"""
#: I4: an id that the sender gave starts each function once, also when the event was sent twice.
_DOUBLES = """
  select f.slug, e.client_id, count(*) as n from runs r join functions f on f.id = r.function_id
  join events e on (e.environment_id, e.id, e.received_at) = (r.environment_id, r.event_id, r.event_received_at)
  where r.original_run_id is null and r.parent_run_id is null and e.client_id <> '' group by 1, 2 having count(*) > 1
"""
#: I26: minute counters against rows.
_MISCOUNTED = """
  select x.* from (
    select function_id, sum(made) as made, sum(completed) as completed, sum(failed) as failed, sum(cancelled) as cancelled
    from usage_minutes group by 1) u
  full join (
    select function_id, count(*) as made, count(*) filter (where status = 'completed') as completed,
      count(*) filter (where status = 'failed') as failed, count(*) filter (where status = 'cancelled') as cancelled
    from runs group by 1) x using (function_id)
  where (u.made, u.completed, u.failed, u.cancelled) is distinct from (x.made, x.completed, x.failed, x.cancelled)
"""
#: I21: a minute between the first and the last answer of a schedule that has none.
_MISSED_TICKS = """
  select s.id, t from schedules s cross join lateral (
    select min(due_at) as first, max(due_at) as last from schedule_answers a where a.schedule_id = s.id) x
  cross join lateral generate_series(x.first, x.last, interval '1 minute') t
  where not exists (select from schedule_answers a where a.schedule_id = s.id and a.due_at = t)
"""
#: I17 over time: how many calls of a limited function were leased at the same moment, by the journal of slots.
_SLOTS_OVER_TIME = """
  with p as (select key, at, 1 as d from storm_slots where taken union all select key, at, -1 from storm_slots where not taken),
  s as (select key, sum(d) over (partition by key order by at, d rows unbounded preceding) as n from p)
  select s.key, max(s.n) as n, max(f.cap) as cap from s
  join (select u.key_id, l.cap from lanes a cross join unnest(a.flow_key_ids, a.limit_ids) u (key_id, limit_id)
        join flow_limits l on l.id = u.limit_id and l.kind <> 'throttle') f on f.key_id = s.key
  group by s.key having max(s.n) > max(f.cap)
"""
#: Slots are logged by a trigger of the storm's own, at the time of the row lock that orders them.
SLOT_LOG = """
  create table storm_slots (key uuid, lease uuid, taken boolean, at bigint generated always as identity);
  grant insert on storm_slots to public;
  create function storm_slot() returns trigger language plpgsql security definer as $$ begin
    if tg_op = 'INSERT' then insert into storm_slots (key, lease, taken) values (new.flow_key_id, new.lease_id, true);
    else insert into storm_slots (key, lease, taken) values (old.flow_key_id, old.lease_id, false); end if;
    return null;
  end $$;
  create trigger storm_slot after insert or delete on slots for each row execute function storm_slot();
"""


@dataclass(slots=True)
class Findings:
    """What is wrong, and what was counted on the way."""

    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def say(self, invariant: str, what: str) -> None:
        """Note one breach."""
        self.wrong.append(f"{invariant}: {what}")


@dataclass(frozen=True, slots=True)
class Struck:
    """When a strike began and ended, seconds since 1970."""

    name: str
    began: float
    ended: float


async def audit(client: Client, struck: list[Struck], *, stuck: list[str]) -> Findings:
    """Check everything. `stuck`: what did not come to rest, as `Rest.why` says; if not empty, that is the first finding."""
    found = Findings()
    connection = await client.yard.connect()
    try:
        for line in await violations(connection):
            found.wrong.append(line)
        runs = {UUID(int=row["id"].int): row for row in await connection.fetch(_RUNS)}
        for line in stuck:
            found.say("I31", line)
        await _tables(connection, found)
        await _events(connection, client, found)
        await _waits(connection, client, found)
        _ends(runs, client, found, struck)
        await _executions(connection, client, runs, found, struck)
        for new, (old, before) in client.replays.items():
            if new not in runs:
                found.say("I1", f"the acknowledged replay {to_ulid(new)} does not exist")
            if await client.row_of(old) != before:
                found.say("I11", f"the run {to_ulid(old)} changed when it was made again")
    finally:
        await connection.close()
    found.wrong += client.odd[:20]
    if client.yard.most_connections > _BOUNDED:
        found.say("F10", f"{client.yard.most_connections} connections at once, {_BOUNDED} are enough")
    return found


async def _tables(connection: Any, found: Findings) -> None:
    for row in (await connection.fetch(_DOUBLES))[:5]:
        found.say("I4", f"{row['n']} runs of {row['slug']} for the event id {row['client_id']}")
    for row in await connection.fetch(_MISCOUNTED):
        found.say("I26", f"usage and runs differ: {dict(row)}")
    for row in (await connection.fetch(_MISSED_TICKS))[:5]:
        found.say("I21", f"no answer for the due time {row['t']}")
    for row in await connection.fetch(_SLOTS_OVER_TIME):
        found.say("I17", f"{row['n']} at once under a limit of {row['cap']}")
    for row in (await connection.fetch(_UNANSWERED))[:5]:
        found.say("I3", f"event {row['id']} ({row['name']}) has no answer for {row['slug']}")
    ticks = await connection.fetchval("select count(*) from schedule_answers where outcome = 'ran'")
    found.counts["ticks of a schedule"] = ticks
    for row in await connection.fetch("select outcome, count(*) as n from dispositions group by 1"):
        found.counts[f"events {row['outcome']}"] = row["n"]
    for row in await connection.fetch("select kind, count(*) as n from history group by 1"):
        found.counts[f"journal {row['kind']}"] = row["n"]
    found.counts["calls with redeliveries"] = await connection.fetchval(
        "select count(*) from history where kind = 'call' and (detail::json->>'redeliveries')::int > 0"
    )
    found.counts["batches"] = await connection.fetchval("select count(*) from runs where batch_size > 1")


async def _events(connection: Any, client: Client, found: Findings) -> None:
    rows = await connection.fetch("select id, client_id from events")
    ids = {UUID(int=row["id"].int) for row in rows}
    by_client = Counter(row["client_id"] for row in rows)
    promised = 0
    for sent in client.sent:
        promised += len(sent.ids)
        missing = [x for x in sent.ids if x not in ids]
        if missing:
            found.say("I1", f"acknowledged and not stored: {sent.names} {missing}")
        if sent.is_given_up and all(sent.cids) and sum(by_client[c] > 0 for c in sent.cids) not in (0, len(sent.cids)):
            found.say("I2", f"stored in part: {sent.cids}")
    for line in _app_lines(client):
        if line["k"] == "sent":
            promised += 1
            got = parse_ulid(line["id"])
            if got is None or UUID(int=got.int) not in ids:
                found.say("I1", f"an event of a step was acknowledged and is not stored: {line['cid']}")
    found.counts["events acknowledged"] = promised
    found.counts["events stored"] = len(rows)


async def _waits(connection: Any, client: Client, found: Findings) -> None:
    """I14: who was answered while it was seen to wait has heard it, unless its run ended otherwise."""
    ask = """select s.state, s.memo, r.status from runs r left join steps s on s.run_id = r.id and s.step_key = $2
             where r.id = $1"""
    for (run_id, step), at in client.answers.items():
        row = await connection.fetchrow(ask, run_id, step)
        if row is not None and row["status"] != "cancelled" and row["memo"] in (None, "null"):
            found.say(
                "I14", f"{to_ulid(run_id)} {step[:8]} was answered at {at:.0f} and is {row['state']}, {row['memo']}"
            )


def _ends(runs: dict[UUID, Any], client: Client, found: Findings, struck: list[Struck]) -> None:
    poisoned = 0
    again = Counter(
        (row["event_id"], row["slug"].removeprefix("storm-"))
        for row in runs.values()
        if row["original_run_id"] is not None
    )
    for run_id, row in runs.items():
        name = row["slug"].removeprefix("storm-")
        found.counts[f"{name} {row['status']}"] += 1
        if row["ended_at"] is None:
            continue
        at = client.cancelled.get(run_id)
        if at is not None and row["ended_at"].timestamp() > at:
            found.say("I22", f"{to_ulid(run_id)} ended after its cancellation was acknowledged")
        wanted = {"victim": "cancelled", "late": "cancelled", "fragile": "failed"}.get(name, "completed")
        status = row["status"]
        if status == "failed" and row["error_code"] == "signal_conflict" and again[row["event_id"], name] > 1:
            # Asked for twice because the first answer got lost, it was made again twice: both wait for the same signal.
            found.counts["runs made again twice that wanted one signal"] += 1
            continue
        if status == "failed" and row["error_code"] == "poison_work":
            # Three workers died with it in hand (F17); with so many deaths that is what shall happen.
            poisoned += 1
            continue
        if status == "cancelled" and (run_id in client.may_be_cancelled or _is_child(row, runs)):
            continue
        if name == "fragile" and status == "completed":
            wanted = (
                status  # Its step failed for good and its code took it; else the call around the step failed too often.
            )
        if status != wanted:
            found.say(
                "I9",
                f"{name} {to_ulid(run_id)} is {status} ({row['error_code']}: {row['error_message']}), {wanted} expected;"
                f" {row['calls']} calls",
            )
        elif status == "completed":
            _result(run_id, row, found)
    found.counts["runs"] = len(runs)
    found.counts["runs set aside as poison"] = poisoned
    deaths = sum("worker" in s.name or "database" in s.name for s in struck)
    if poisoned and deaths < 3:
        found.say("F17", f"{poisoned} runs were set aside as poison after {deaths} deaths")


def _is_child(row: Any, runs: dict[UUID, Any]) -> bool:
    parent = row["parent_run_id"]
    return parent is not None and runs.get(UUID(int=parent.int), {"status": "cancelled"})["status"] == "cancelled"


def _result(run_id: UUID, row: Any, found: Findings) -> None:
    data = json.loads(row["payload"])["data"]
    program = (data or {}).get("program", SIMPLE)
    wrong = disagreement(program, json.loads(row["detail"])["output"])
    if wrong:
        found.say("model", f"{row['slug']} {to_ulid(run_id)}: {wrong}")
    found.counts["results that agree with the model"] += not wrong


async def _executions(
    connection: Any, client: Client, runs: dict[UUID, Any], found: Findings, struck: list[Struck]
) -> None:
    """I7, I8, I16, I22 by the app's own ledger: what was executed, when, and how often."""
    rows = await connection.fetch("select run_id, step_key, state, settled_at from steps where settled_at is not null")
    settled = {(to_ulid(r["run_id"]), r["step_key"]): r["settled_at"].timestamp() for r in rows}
    executed: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    slept: dict[tuple[str, str], float] = {}
    for line in _app_lines(client):
        pair = (line.get("run", ""), line.get("step", ""))
        match line["k"]:
            case "exec":
                executed[pair].append(line)
            case "slept":
                slept.setdefault(pair, line["at"] + line["s"])
            case "woke":
                if pair in slept and line["at"] < slept[pair] - 0.2:
                    found.say("I16", f"{pair[0]} woke {slept[pair] - line['at']:.2f} s early")
            case "odd":
                found.wrong.append(f"{line['what']} ({line['run']})")
            case "did":
                found.counts[line["what"]] += 1
    ended = {to_ulid(k): r["ended_at"].timestamp() for k, r in runs.items() if r["ended_at"] is not None}
    again = unexplained = 0
    for pair, lines in executed.items():
        done_at = settled.get(pair)
        for line in lines:
            if done_at is not None and line["sent"] > done_at:
                found.say("I7", f"{pair} was called {line['sent'] - done_at:.1f} s after its outcome was committed")
            if line["sent"] > ended.get(pair[0], time.time()) + _SENT_LATE_S:
                found.say("I22", f"{pair} was called after its run had ended")
        for one, other in pairwise(lines):
            if (one["item"], one["attempt"]) != (other["item"], other["attempt"]):
                continue  # a counted attempt, or a new call after the first was given up
            again += 1
            if not any(s.began - 2 <= other["at"] and one["at"] <= s.ended + _WAKE_S for s in struck):
                unexplained += 1
                found.say("I8", f"{pair} attempt {one['attempt']} was executed again, and nothing had been struck")
    found.counts["executions"] = sum(len(lines) for lines in executed.values())
    found.counts["executions repeated"] = again
    found.counts["executions repeated for no reason"] = unexplained


def _app_lines(client: Client) -> list[dict[str, Any]]:
    if not client.yard.ledger.exists():
        return []
    return [json.loads(line) for line in client.yard.ledger.read_text(encoding="utf-8").splitlines()]
