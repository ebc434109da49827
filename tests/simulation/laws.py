"""What must hold: the model's translation of docs/invariants.sql and of the ledger's side, which no SQL can see.

`watch` judges every commit before it is made: what a transaction changes, and the runs it touches as they then are.
`after_all` judges the house when nothing is left to do. A breach raises `Breach`; what goes wrong inside the server's
callbacks is kept in `breaches`, since nobody would hear it there.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from app.domain.run.state import CALLS
from app.engine.hot import HotRun, LeasedItem
from tests.simulation.store import Key, Row, Transaction

if TYPE_CHECKING:
    from tests.simulation.house import House

_SETTLED = ("completed", "failed")
_WAITS = ("waiting", "invoking")
_DEADLINES = ("start_timeout", "finish_timeout")
_ENDS = ("run.completed", "run.failed", "run.cancelled")
Changes = dict[str, dict[Key, Row | None]]


class Breach(AssertionError):
    """A law is broken."""


class Laws:
    """The laws of one house."""

    def __init__(self, house: "House") -> None:
        self.house = house
        self.commits = 0
        self.breaches: list[str] = []
        self.settled: dict[Any, int] = {}
        self.leased: dict[tuple[Any, int], int] = {}
        self.item_ids: set[Any] = set()
        self.opened: dict[Any, tuple[int, Row]] = {}
        self.looked: dict[Any, int] = {}
        self.timed_out: dict[Any, int] = {}
        self.stored: dict[Any, int] = {}
        self.reacted: dict[Any, int] = {}
        self.caps: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
        self.executions: dict[Any, int] = defaultdict(int)
        #: Who took the lease of an item, by item and fence.
        self.holders: dict[tuple[Any, int], Any] = {}

    def must(self, holds: bool, law: str) -> None:
        """Keep a breach; the first is the one that is told."""
        if not holds:
            self.breaches.append(law)

    # ---- the ledger

    def call_begins(self, hot: HotRun, item: LeasedItem) -> set[str]:
        """Steps whose outcome whoever makes this call must know; none for a call whose lease was lost before."""
        row = self.house.store.table("items").get(item.id)
        if row is None or row["fence"] != item.fence or row["lease_id"] != item.lease_id:
            self.house.server.seen["call under a lease that was lost"] += 1
            return set()
        since = self.leased.get((item.id, item.fence), self.commits)
        known = {key for (run, key), at in self.settled.items() if run == hot.run.id and at <= since}
        self.must(
            known <= set(hot.memos), f"rule 3: a call is made without the outcomes {sorted(known - set(hot.memos))}"
        )
        return known

    def executes(self, run_id: Any, step_key: str, settled_before: set[str]) -> None:
        """An app runs a step's code."""
        self.executions[run_id, step_key] += 1
        if self.executions[run_id, step_key] > 1:
            self.house.server.seen["step executed again"] += 1
        self.must(step_key not in settled_before, f"I7: {step_key} has its outcome and is executed again")

    # ---- every commit

    def watch(self, t: Transaction, changes: Changes) -> None:
        """Judge a transaction that is about to commit."""
        self.commits += 1
        touched: set[Any] = set()
        for key, row in changes.get("runs", {}).items():
            touched.add(key)
            self._run_changes(key, self.house.store.table("runs").get(key), row, t)
        for key, row in changes.get("steps", {}).items():
            touched.add(key[0])
            self._step_changes(key, self.house.store.table("steps").get(key), row)
        for key, row in changes.get("items", {}).items():
            old = self.house.store.table("items").get(key)
            touched.add((row or old or {}).get("run_id"))
            self._item_changes(t, key, old, row)
        for key, row in changes.get("slots", {}).items():
            if row is not None and key not in self.house.store.table("slots"):
                self._slot_taken(t, key[0])
        for line in changes.get("history", {}).values():
            if line is not None and line["kind"] == "call":
                self._answer_is_the_holders(t, line)
        if "slots" in changes or "items" in changes:
            self._slots_have_owners(t)
        self._remember(t, changes)
        for run_id in touched:
            run = t.get("runs", run_id)
            if run is not None:
                self._run_is_well(t, run)

    def _run_changes(self, key: Any, old: Row | None, new: Row | None, t: Transaction) -> None:
        self.must(new is not None, "a run is deleted")
        if new is None:
            return
        if old is None:
            self._place_is_free(t, new)
            return
        if old == new:
            return
        self.must(old["ended_at"] is None, "I11: an ended run changed")
        if old["version"] == new["version"]:
            self.must(False, "rule 1: a run changed without a new version")
        self.must(new["version"] == old["version"] + 1, "rule 1: a version was passed over")

    def _place_is_free(self, t: Transaction, new: Row) -> None:
        """One open run per key of a singleton whose settings stayed the same."""
        if new["status"] != "queued":
            return
        place = self.house.singleton_place(t, new)
        if place is None:
            return
        others = [r for k, r in t.rows("runs") if k != new["id"] and r["ended_at"] is None]
        taken = [r for r in others if self.house.singleton_place(t, r) == place]
        self.must(not taken, "a singleton has two runs")

    def _step_changes(self, key: Any, old: Row | None, new: Row | None) -> None:
        if old is not None and old["memo_order"] is not None:
            same = new is not None and all(new[c] == old[c] for c in ("memo", "memo_order", "state"))
            self.must(same, "I6: a stored outcome changed")
        elif new is not None and new["memo_order"] is not None:
            self.settled[key] = self.commits

    def _item_changes(self, t: Transaction, key: Any, old: Row | None, new: Row | None) -> None:
        if new is None:
            return
        if old is None:
            self.must(key not in self.item_ids, f"law 3: the item {new['key']} lives twice")
            self.item_ids.add(key)
        else:
            self.must(new["fence"] >= old["fence"], "rule 1: a fence fell")
            if new["lease_id"] is not None and new["lease_id"] != old["lease_id"]:
                self.must(new["fence"] > old["fence"], "rule 1: a lease without a new fence")
                self.must(old["lease_id"] is None, "rule 10: a leased item is leased again")
            elif old["lease_id"] is not None and new["lease_id"] is None:
                self.must(new["fence"] > old["fence"], "rule 1: a lease ended without a new fence")
        if new["lease_id"] is not None:
            self.leased.setdefault((key, new["fence"]), self.commits)
            self.holders.setdefault((key, new["fence"]), t.by)
            self.must(new["due_at"] <= self.house.store.now() or new["kind"] in CALLS, "I16: a timer fired early")

    def _answer_is_the_holders(self, t: Transaction, line: Row) -> None:
        """Rule 10: what a call brought counts only while its worker holds the item."""
        items = self.house.store.table("items").items()
        held = [(k, i) for k, i in items if i["run_id"] == line["run_id"] and i["key"] == line["item_key"]]
        is_held = any(i["lease_id"] and self.holders.get((k, i["fence"])) is t.by for k, i in held)
        self.must(is_held, f"rule 10: an answer for {line['item_key']} counts whose lease was lost")

    def _slot_taken(self, t: Transaction, flow_key: Any) -> None:
        count = sum(key == flow_key for (key, _), _ in t.rows("slots"))
        caps = [
            cap
            for _, lane in t.rows("lanes")
            for key, limit in zip(lane["flow_key_ids"], lane["limit_ids"], strict=True)
            if key == flow_key
            for cap in self._caps_since(limit, t)
        ]
        self.must(not caps or count <= max(caps), f"I17: {count} slots of {max(caps, default=0)} are taken")

    def _slots_have_owners(self, t: Transaction) -> None:
        """I18, which leaves the sweep nothing to mend but slots of limits that a sync took away under a call.

        The case of Postgres that it is for, the store does not have.
        """
        leases = {(i["run_id"], i["lease_id"]) for _, i in t.rows("items")}
        for (_, lease), slot in t.rows("slots"):
            run = t.get("runs", slot["run_id"])
            is_whole = lease == slot["run_id"] and run is not None and run["ended_at"] is None
            lane = t.get("lanes", run["lane_id"]) if run is not None else None
            is_limited = lane is not None and bool(lane["flow_key_ids"])
            is_owned = is_whole or (slot["run_id"], lease) in leases
            self.must(is_owned or not is_limited, "I18: a slot belongs to nobody")

    def _caps_since(self, limit: Any, t: Transaction) -> list[int]:
        """What a limit allowed at some time during a transaction."""
        past = self.caps.get(limit, [])
        later = [cap for at, cap in past if at >= t.began]
        before = [cap for at, cap in past if at < t.began][-1:]
        return later + before

    def _remember(self, t: Transaction, changes: Changes) -> None:
        for key, row in changes.get("flow_limits", {}).items():
            if row is not None and row["kind"] != "throttle":
                self.caps[key].append((t.began, row["cap"]))
            elif row is None:
                self.caps[key].append((t.began, 1 << 30))
        for key, row in changes.get("pauses", {}).items():
            if row is not None and key not in self.opened:
                self.opened[key] = (self.commits, row)
            if row is not None and row["rechecked_at"] is not None:
                self.looked.setdefault(key, self.commits)
        for row in changes.get("history", {}).values():
            if row is not None and row["kind"] == "wait.timed_out":
                self.timed_out[row["run_id"], row["step_key"]] = self.commits
        for key, row in changes.get("events", {}).items():
            self.must(row is None or key not in self.house.store.table("events"), "I4: an event is stored twice")
            self.stored[key[:2]] = self.commits
        for key, row in changes.get("inbox", {}).items():
            if row is None:
                self.reacted[key] = self.commits

    def _run_is_well(self, t: Transaction, run: Row) -> None:
        """The blocks of docs/invariants.sql that speak of one run and leave no transaction out."""
        run_id = run["id"]
        items = [r for _, r in t.rows("items") if r["run_id"] == run_id]
        pauses = [r for _, r in t.rows("pauses") if r["run_id"] == run_id]
        steps = [r for key, r in t.rows("steps") if key[0] == run_id]
        if run["ended_at"] is not None:
            slots = [r for _, r in t.rows("slots") if r["run_id"] == run_id]
            self.must(not items and not pauses and not slots, "I22: an ended run has work, waits or slots")
            is_closed = all(s["state"] in ("completed", "failed", "cancelled") for s in steps)
            self.must(is_closed, "I22-steps: an ended run has an open step")
        else:
            self._open_run_is_well(run, items, pauses, steps)
        settled = sorted(s["memo_order"] for s in steps if s["memo_order"] is not None)
        self.must(settled == list(range(1, run["completed"] + 1)), "I6-order: the memo order has holes or doubles")
        for s in steps:
            self.must((s["state"] in _SETTLED) == (s["memo_order"] is not None), "I6-state: outcome and state differ")
        size = sum(len((s[column] or "").encode()) for s in steps for column in ("memo", "input", "opts"))
        size += sum(len(event["payload"].encode()) for event in self._events_of(t, run))
        self.must(run["state_bytes"] == size, "COUNTERS-bytes: state_bytes counts something else than there is")

    @staticmethod
    def _events_of(t: Transaction, run: Row) -> list[Row]:
        more = [(r["event_id"], r["received_at"]) for key, r in t.rows("run_events") if key[0] == run["id"]]
        places = [(run["event_id"], run["event_received_at"]), *more]
        found = [t.get("events", (run["environment_id"], *place)) for place in places]
        return [event for event in found if event is not None]

    def _open_run_is_well(self, run: Row, items: list[Row], pauses: list[Row], steps: list[Row]) -> None:
        self.must(any(i["kind"] not in _DEADLINES for i in items), "I10: an unfinished run has no work")
        at_work = {i["step_key"] for i in items}
        for s in steps:
            is_open = s["state"] in ("planned", "sleeping", *_WAITS) and not s["is_race"]
            self.must(not is_open or s["step_key"] in at_work, f"I10-steps: nothing moves {s['step_key']}")
        timeouts = [i["step_key"] for i in items if i["kind"] == "timeout"]
        waiting = sorted(s["step_key"] for s in steps if s["state"] in _WAITS)
        open_waits = sorted(p["step_key"] for p in pauses if p["kind"] != "cancel")
        self.must(sorted(timeouts) == open_waits, "I13: an open wait has not one live timeout")
        self.must(waiting == open_waits, "I13-steps: waits are not open exactly while their steps are")
        open_members = sum(s["is_member"] and s["state"] not in (*_SETTLED, "cancelled") for s in steps)
        is_group_well = (run["pending"] > 0) == (run["group_key"] is not None)
        self.must(run["pending"] == open_members and is_group_well, "COUNTERS-pending: the group is miscounted")
        self.must(all(i["attempt"] < run["max_attempts"] for i in items), "I8: too many attempts")

    # ---- the end

    def after_all(self) -> None:
        """Judge a house in which nothing moves any more."""
        tables = self.house.store.tables
        runs = tables.get("runs", {})
        self.must(not tables.get("slots"), "I18: a slot is leaked")
        self.must(not tables.get("items"), "I22: work is left")
        self.must(not tables.get("inbox"), "I3: an event is left in the inbox")
        told: dict[Any, list[Row]] = defaultdict(list)
        for line in tables.get("history", {}).values():
            told[line["run_id"]].append(line)
        for run_id, run in runs.items():
            self._run_ended_once(run, told[run_id])
        self._events_are_answered()
        self._batches_are_whole()
        self._waits_heard_their_events()
        self._children_reached_their_parents()
        for gate in tables.get("gates", {}).values():
            self.must(
                gate["kind"] in ("singleton", "rate_limit") or gate["opened_at"] is None, "I20: a gate stays open"
            )

    def _run_ended_once(self, run: Row, lines: list[Row]) -> None:
        ends = [line["kind"] for line in lines if line["kind"] in _ENDS]
        expected = [] if run["status"] == "skipped" else [f"run.{run['status']}"]
        self.must(ends == expected, f"I9: a run that is {run['status']} ended by {ends}")
        outcomes = [line["step_key"] for line in lines if line["kind"] in ("step.completed", "step.failed")]
        self.must(len(outcomes) == len(set(outcomes)), "I6: a step has two outcomes")
        waits = [
            line["step_key"] for line in lines if line["kind"] in ("wait.resumed", "wait.timed_out", "wait.cancelled")
        ]
        self.must(len(waits) == len(set(waits)), "I15: a wait has two outcomes")
        attempts = [line["attempt"] for line in lines if line["kind"] == "call"]
        self.must(all(a < run["max_attempts"] for a in attempts), "I8: too many attempts")
        finished = [
            e
            for e in self.house.store.table("events").values()
            if e["name"] == "inngest/function.finished" and self.house.ulid(run["id"]) in e["payload"]
        ]
        self.must(
            len(finished) <= 1 + sum(1 for e in finished if "correlation" in e["payload"]), "I9-events: ended twice"
        )

    def _events_are_answered(self) -> None:
        """I1, I3, I4: what was acknowledged is there, and every function it may start has a run or an answer of it."""
        store = self.house.store
        for event_id in self.house.acknowledged:
            found = sum(key[1] == event_id for key in store.table("events"))
            self.must(found == 1, f"I1: an acknowledged event is stored {found} times")
        starts: dict[Any, int] = defaultdict(int)
        for run in store.table("runs").values():
            starts[run["event_id"], run["function_id"]] += 1
        more = {row["event_id"] for row in store.table("run_events").values()}
        for (event_id, function_id), count in starts.items():
            self.must(count == 1, f"I4-runs: an event started a function {count} times ({event_id}, {function_id})")
        for (environment, event_id, _), event in store.table("events").items():
            if event["name"] != "go":
                continue
            function_id = self.house.function_ids[0]
            is_answered = (environment, event_id, function_id) in store.table("dispositions")
            is_answered = is_answered or starts[event_id, function_id] > 0 or event_id in more
            self.must(is_answered, "I3: an event has neither a run nor an answer")

    def _batches_are_whole(self) -> None:
        store = self.house.store
        places: dict[Any, int] = defaultdict(int)
        for run in store.table("runs").values():
            size = 1 + sum(key[0] == run["id"] for key in store.table("run_events"))
            self.must(run["batch_size"] == size, "I20: a batch does not know its size")
            if run["function_id"] == self.house.function_ids[0]:
                places[run["event_id"]] += 1
        for row in store.table("run_events").values():
            places[row["event_id"]] += 1
        self.must(all(count == 1 for count in places.values()), "I20: an event is in two batches")
        for (_, event_id, _), answer in store.table("dispositions").items():
            if answer["outcome"] == "batched":
                self.must(places[event_id] == 1, "I20-answers: a batched event is in no batch")
            if answer["outcome"] in ("rate_limited", "duplicate"):
                self.must(places[event_id] == 0, "I19: a refused event made a run")

    def _waits_heard_their_events(self) -> None:
        """I14: no wait expired although an event for it was handled while it was open, or before its second look."""
        events = [(key, row) for key, row in self.house.store.table("events").items() if row["name"] == "x"]
        for place, ended in self.timed_out.items():
            opened = self.opened.get(place)
            if opened is None or opened[1]["event_name"] is None:
                continue
            at, pause = opened
            for (environment, event_id, received_at), _ in events:
                if received_at <= pause["requested_at"]:
                    continue
                reacted = self.reacted.get((environment, event_id), 1 << 60)
                was_missed = self.stored[environment, event_id] < at and self.looked.get(place, 1 << 60) < ended
                self.must(not was_missed, "I14: the second look of a wait missed an event")
                self.must(not at < reacted < ended or self._is_late(place, event_id), "I14: a wait missed an event")

    def _is_late(self, place: Any, event_id: Any) -> bool:
        """Whether the wait was opened while its event was being handled: then the second look is owed, and was not due."""
        opened, _ = self.opened[place]
        stored = next(at for (_, event), at in self.stored.items() if event == event_id)
        return stored < opened and place not in self.looked

    def _children_reached_their_parents(self) -> None:
        steps = self.house.store.table("steps")
        for run in self.house.store.table("runs").values():
            if run["parent_run_id"] is not None:
                step = steps.get((run["parent_run_id"], run["parent_step_key"]))
                is_open = step is not None and step["state"] in _WAITS
                self.must(not is_open, "I12: a child's end did not reach its parent")
