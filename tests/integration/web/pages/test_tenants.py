"""Every route of these pages, walked by somebody of another organization with look-alike rows."""

from typing import Any
from uuid import uuid4

from litestar import Router

from app.domain.ids import to_ulid
from app.reads.error_groups import FINGERPRINT
from app.web.pages import (
    apps,
    bulk,
    error_groups,
    event_types,
    events,
    functions,
    go,
    overview,
    run_actions,
    runs,
)
from tests import world
from tests.integration.accounts.world import new_tenant
from tests.integration.web.pages.people import SAME, store_event, store_function, world_of

SECRET = "only-for-contoso"


def routes(*routers: Router) -> list[tuple[str, str]]:
    """Every method and path, from the route tables."""
    return sorted(
        (method, route.path)
        for router in routers
        for route in router.routes
        for method in getattr(route, "methods", ())
        if method in ("GET", "POST")
    )


async def test_nothing_of_another_organization_is_seen_or_changed(ada: Any, owner: Any, database: str) -> None:
    theirs = world_of(await new_tenant(database))
    event = await store_event(owner, theirs, SECRET)
    function = await store_function(owner, theirs, SECRET)
    await owner.execute("update apps set name = $2, url = $2 where id = $1", function.app_id, SECRET)
    sync = uuid4()
    await owner.execute(
        "insert into syncs (id, account_id, environment_id, app_id, url, kind, status, added)"
        " values ($1, $2, $3, $4, $5, 'in_band', 'succeeded', array[$5])",
        sync, theirs.account_id, theirs.environment_id, function.app_id, SECRET,
    )  # fmt: skip
    await owner.execute("update environments set slug = $2 where id = $1", theirs.environment_id, SECRET)
    now = await owner.fetchval("select clock()")
    story = await world.Story(function, now, event_name=SECRET, event_data={"secret": SECRET}).begin().save(owner)
    whose = (theirs.account_id, theirs.environment_id)
    bulk_id, view_id = uuid4(), uuid4()
    await owner.execute(
        "insert into bulk_actions (id, account_id, environment_id, action, token, reason, total, actor)"
        " values ($1, $2, $3, 'cancel', $4, $4, 1, $4)", bulk_id, *whose, SECRET,
    )  # fmt: skip
    await owner.execute(
        "insert into bulk_items (bulk_id, run_id, account_id, environment_id, taken_until) values ($1, $2, $3, $4, 'infinity')",
        bulk_id, story.id, *whose,
    )  # fmt: skip
    await owner.execute(
        "insert into run_views (id, account_id, environment_id, user_id, name, filters, is_shared)"
        " values ($1, $2, $3, $4, $5, $5, true)", view_id, *whose, uuid4(), SECRET,
    )  # fmt: skip
    ids = {"run_id": story.ulid, "bulk_id": to_ulid(bulk_id), "view_id": to_ulid(view_id)}
    failed = await world.order_failed(function, now).save(owner)
    group = await owner.fetchval(f"select {FINGERPRINT} from runs r where r.id = $1", failed.id)
    values = ids | {
        "fingerprint": group,
        "event_id": to_ulid(event),
        "fn": function.slug,
        "app": SECRET,
        "sync_id": str(sync),
    }
    row = "select * from functions f join apps a on a.id = f.app_id where f.id = $1"
    before = await owner.fetch(row, function.id)
    walked = 0
    routers = (
        apps.ROUTER,
        bulk.ROUTER,
        error_groups.ROUTER,
        event_types.ROUTER,
        events.ROUTER,
        functions.ROUTER,
        go.ROUTER,
        overview.ROUTER,
        run_actions.ROUTER,
        runs.ROUTER,
    )
    for method, path in routes(*routers):
        if path == "/":
            continue
        is_about_one = any(f"{{{name}:" in path for name in values)
        for slug in (SECRET, "production"):
            if slug == "production" and path.endswith("/stream") and not is_about_one:
                continue  # Our own, and endless.
            address = _filled(path, {"slug": slug, "deed": "stop"} | values)
            fields = {"csrf_token": ada.csrf, "body": "{", "payload": "{", "url": "x"}
            answer = (
                await ada.client.get(address)
                if method == "GET"
                else await ada.client.post(address, data=fields, headers=SAME)
            )
            if (slug == SECRET and "{slug" in path) or is_about_one or path.endswith("/progress"):
                assert answer.status_code == 404, (method, address)
            assert SECRET not in answer.text, (method, address)
            walked += 1
    assert walked > 50
    assert await owner.fetch(row, function.id) == before
    for table, number in (("events", 3), ("syncs", 1), ("error_mutes", 0), ("runs", 2), ("run_views", 1)):
        found = await owner.fetchval(f"select count(*) from {table} where account_id = $1", theirs.account_id)
        assert found == number, table
    assert await owner.fetchval("select state from bulk_items where bulk_id = $1", bulk_id) == "pending"
    assert await owner.fetchval("select status from runs where id = $1", story.id) == "running"


def _filled(path: str, values: dict[str, str]) -> str:
    return "/".join(values[part[1:].partition(":")[0]] if part[:1] == "{" else part for part in path.split("/"))
