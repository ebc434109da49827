"""sql/sync.sql: as much of a sync as changes settings in mid-run."""

from tests.simulation.connection import Query
from tests.simulation.store import Row


def hold_environment(q: Query) -> list[Row]:
    """One sync of an environment at a time."""
    q.t.lock("environments", q.v["environment"])
    return [{"id": q.v["environment"]}]


def put_functions(q: Query) -> list[Row]:
    """Functions as they are registered now."""
    for function_id, slug, config, url in zip(q.v["id"], q.v["slug"], q.v["config"], q.v["url"], strict=True):
        old = q.t.get("functions", function_id)
        row = {
            "id": function_id,
            "account_id": q.v["account"],
            "environment_id": q.v["environment"],
            "app_id": q.v["app"],
            "app_name": "house",
            "synced_at": q.t.began,
            "sdk": "",
            "slug": slug,
            "name": slug,
            "config": config,
            "url": url,
            "version": old["version"] + 1 if old is not None else 1,
            "paused_at": old["paused_at"] if old is not None else None,
            "archived_at": None,
            "held_until": None,
            "own_backoff": None,
            "changed_limits": [],
            "backoff": None,
            "is_removed": False,
        }
        q.t.put("functions", function_id, row)
    return []
