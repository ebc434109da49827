"""sql/inbox.sql: events, what they set off, and the waits they end."""

from datetime import timedelta
from typing import Any

from tests.simulation.connection import Query
from tests.simulation.sql.commit import bring_forward, new_item, store_event
from tests.simulation.store import FOREVER, Row

_DAY = timedelta(hours=24)


def _unnest(q: Query, *names: str) -> list[dict[str, Any]]:
    return [dict(zip(names, values, strict=True)) for values in zip(*(q.v[name] for name in names), strict=True)]


def ingest(q: Query) -> list[Row]:
    """Store the events of many requests; one whose seed was seen stores nothing."""
    fresh: dict[int, Row] = {}
    ids = list(zip(q.v["event_n"], q.v["event_id"], strict=True))
    for r in _unnest(q, "n", "environment", "account", "seed", "sha"):
        if r["seed"] is not None:
            row = {"body_sha": r["sha"], "ids": [event for n, event in ids if n == r["n"]]}
            if not q.t.insert("ingest_seeds", (r["environment"], r["seed"]), row):
                q.server.seen["request repeated by its seed"] += 1
                continue
        fresh[r["n"]] = r
    for e in _unnest(q, "event_n", "event_id", "event_name", "event_client_id", "event_ts", "event_payload"):
        r = fresh.get(e["event_n"], {})
        if r:
            event = {name: e[f"event_{name}"] for name in ("id", "name", "client_id", "ts", "payload")}
            store_event(q, r["environment"], r["account"], event)
    return [{"n": n} for n in fresh]


def seed(q: Query) -> list[Row]:
    """What an earlier request with this seed stored."""
    row = q.t.get("ingest_seeds", (q.v["environment"], q.v["seed"]))
    return [row] if row is not None else []


def claim(q: Query) -> list[Row]:
    """Events nobody has reacted to, in turns of their names, locked until their consequences are committed."""
    t, aside = q.t, set(q.v["set_aside"])
    pairs = sorted({(r["environment_id"], r["name"]) for _, r in t.rows("inbox")})
    last = (q.v["after_environment"], q.v["after_name"])
    turns = ([p for p in pairs if p > last] + [p for p in pairs if p <= last])[: q.v["turns"]]
    share = max(q.v["room"] // max(len(turns), 1), 1)
    rows: list[Row] = []
    for turn, pair in enumerate(turns, 1):
        mine = sorted(
            ((r["received_at"], k) for k, r in t.rows("inbox") if (r["environment_id"], r["name"]) == pair),
        )
        free = [k for _, k in mine if k[1] not in aside and t.is_free("inbox", k)][:share]
        for key in free:
            t.lock("inbox", key)
            box = t.get("inbox", key)
            assert box is not None
            event = t.get("events", (*key, box["received_at"]))
            environment = t.get("environments", key[0])
            assert event is not None and environment is not None
            columns = {c: event[c] for c in ("name", "client_id", "ts", "payload")}
            more = {"turn": turn, "catalogue_version": environment["catalogue_version"], "now": t.began}
            more["has_waits"] = any((p["environment_id"], p["event_name"]) == pair for _, p in t.rows("pauses"))
            rows.append(box | columns | more)
    return sorted(rows[: q.v["room"]], key=lambda r: (r["received_at"], r["event_id"]))


_NEW = [
    "n",
    "run_id",
    "account",
    "environment",
    "app",
    "function",
    "function_version",
    "lane",
    "max_attempts",
    "is_quiet",
    "event_id",
    "event_received_at",
    "event_name",
    "parent_run",
    "parent_step",
    "dedupe_key",
    "item_id",
    "due_at",
    "lease_id",
    "item_lane",
    "skip",
    "note",
    "batch_size",
    "cron",
    "head_start",
    "state_bytes",
]


def create_runs(q: Query) -> list[Row]:
    """The runs of claimed events with their first items, and the answers of functions that made none."""
    t, now = q.t, q.t.began
    new = _unnest(q, *_NEW)
    claimed = claim_keys(q, [(r["environment"], r["function"], r["dedupe_key"], r["run_id"]) for r in new])
    good = [r for r in new if r["dedupe_key"] is None or r["run_id"] in claimed]
    for r in good:
        lane = t.get("lanes", r["item_lane"])
        if q.v["is_crowded"] and lane is not None and lane["next_due"] <= now:
            r["lease_id"] = None
    made: list[Any] = []
    due: dict[Any, Any] = {}
    for r in good:
        if not t.insert("runs", r["run_id"], _run_row(r, q.v["commit_id"], now)):
            continue
        made.append(r["run_id"])
        kind = "run.created" if r["skip"] is None else "run.skipped"
        line = {"run_id": r["run_id"], "kind": kind, "step_key": None, "item_key": None, "attempt": None}
        t.insert("history", (r["run_id"], 0, 1), line | {"started_at": None})
        if r["skip"] is not None:
            continue
        owner = {
            "id": r["run_id"],
            "account_id": r["account"],
            "environment_id": r["environment"],
            "function_id": r["function"],
            "lane_id": r["item_lane"],
        }
        worker = q.v["worker"] if r["lease_id"] is not None else None
        due_at = r["due_at"] or now + timedelta(microseconds=r["n"])
        item = new_item(owner, "start", "discover", None, due_at, r["lease_id"], worker, now)
        if r["head_start"] is not None:
            item["rank"] = due_at - r["head_start"]
        t.insert("items", r["item_id"], item)
    for r in good:
        if r["lease_id"] is None and r["skip"] is None:
            due[r["item_lane"]] = min(r["due_at"] or now, due.get(r["item_lane"], FOREVER))
    for r in new:
        if r["dedupe_key"] is not None and r["run_id"] not in claimed:
            q.server.seen["duplicate event id"] += 1
            t.put(
                "dispositions",
                (r["environment"], r["event_id"], r["function"]),
                {"outcome": "duplicate", "run_id": None},
            )
    columns = ("answer_environment", "answer_event", "answer_function", "answer_outcome", "answer_run")
    for a in _unnest(q, *columns):
        key = (a["answer_environment"], a["answer_event"], a["answer_function"])
        q.server.seen[f"event {a['answer_outcome']}"] += 1
        t.put("dispositions", key, {"outcome": a["answer_outcome"], "run_id": a["answer_run"]})
    for d in _unnest(q, "done_environment", "done_event"):
        t.delete("inbox", (d["done_environment"], d["done_event"]))
    bring_forward(q, due)
    return [{"id": r["run_id"], "is_leased": r["lease_id"] is not None} for r in good if r["run_id"] in made]


def _run_row(r: dict[str, Any], commit_id: Any, now: Any) -> Row:
    return {
        "id": r["run_id"],
        "account_id": r["account"],
        "environment_id": r["environment"],
        "app_id": r["app"],
        "function_id": r["function"],
        "function_version": r["function_version"],
        "lane_id": r["lane"],
        "status": "queued" if r["skip"] is None else "skipped",
        "version": 0,
        "request_version": -1,
        "is_planned": False,
        "is_quiet": r["is_quiet"],
        "completed": 0,
        "pending": 0,
        "group_key": None,
        "discoveries": 1,
        "state_bytes": r["state_bytes"],
        "max_attempts": r["max_attempts"],
        "event_id": r["event_id"],
        "event_received_at": r["event_received_at"],
        "batch_size": r["batch_size"],
        "parent_run_id": r["parent_run"],
        "parent_step_key": r["parent_step"],
        "queued_at": now,
        "started_at": None,
        "ended_at": now if r["skip"] is not None else None,
        "finish_within": None,
        "commit_id": commit_id,
        "error_code": r["skip"],
    }


def claim_keys(q: Query, asked: list[tuple[Any, Any, Any, Any]]) -> set[Any]:
    """`insert into dedupe`: the runs that have their key for the next day."""
    first: dict[Any, Any] = {}
    for environment, function, key, run_id in asked:
        if key is not None:
            first.setdefault((environment, function, key), run_id)
    claimed: set[Any] = set()
    for place, run_id in first.items():
        q.t.lock("dedupe", place)
        old = q.t.get("dedupe", place)
        if old is None or old["expires_at"] < q.t.began:
            q.t.put("dedupe", place, {"run_id": run_id, "expires_at": q.t.began + _DAY})
            claimed.add(run_id)
    return claimed


def matching_pauses(q: Query) -> list[Row]:
    """Open waits that events may end, in the order of the events."""
    values = {tuple(v.values()) for v in _unnest(q, "value_n", "value_environment", "value_name", "path", "value")}
    found = [
        (e["n"], key, r)
        for e in _unnest(q, "n", "environment", "name")
        for key, r in q.t.rows("pauses")
        if (r["environment_id"], r["event_name"]) == (e["environment"], e["name"])
        if r["match_path"] is None or (e["n"], e["environment"], e["name"], r["match_path"], r["match_value"]) in values
        if (e["n"], *key) > (q.v["after_n"], q.v["after_run"], q.v["after_step"])
    ]
    return [r | {"n": n} for n, _, r in sorted(found, key=lambda f: f[:2])][: q.v["room"]]


def pause_paths(q: Query) -> list[Row]:
    """The paths that open waits of names compare by."""
    pairs = {(p["environment"], p["name"]) for p in _unnest(q, "environment", "name")}
    paths = {
        (r["environment_id"], r["event_name"], r["match_path"])
        for _, r in q.t.rows("pauses")
        if (r["environment_id"], r["event_name"]) in pairs and r["match_path"] is not None
    }
    return [dict(zip(("environment_id", "name", "path"), p, strict=True)) for p in sorted(paths)]


def pauses_of_children(q: Query) -> list[Row]:
    """The waits of parents for children that ended."""
    return [
        r | {"n": c["n"]}
        for c in _unnest(q, "n", "environment", "correlation")
        for _, r in q.t.rows("pauses")
        if (r["environment_id"], r["correlation"]) == (c["environment"], c["correlation"])
    ]


def unchecked_pauses(q: Query) -> list[Row]:
    """Waits whose second look is still owed."""
    before = q.t.began - q.v["older"]
    owed = [r for _, r in q.t.rows("pauses") if r["rechecked_at"] is None and r["requested_at"] < before]
    return sorted(owed, key=lambda r: r["requested_at"])[: q.v["room"]]


def events_since(q: Query) -> list[Row]:
    """Events of a name received since a wait was asked for."""
    found = [
        r
        for _, r in q.t.rows("events")
        if r["environment_id"] == q.v["environment"] and r["name"] == q.v["name"] and r["received_at"] >= q.v["since"]
    ]
    behind = [r for r in found if (r["received_at"], r["id"]) > (q.v["since"], q.v["after"])]
    return sorted(behind, key=lambda r: (r["received_at"], r["id"]))[: q.v["room"]]


def mark_rechecked(q: Query) -> list[Row]:
    """The look was taken."""
    q.t.update("pauses", (q.v["run_id"], q.v["step_key"]), rechecked_at=q.t.began)
    return []
