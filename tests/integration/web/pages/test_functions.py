"""The function pages on the whole application: lists, settings, and what people do to a function."""

import gzip
import json
import re
from datetime import timedelta
from typing import Any

import pytest

from app.domain.ids import to_ulid
from app.engine.catalogue import Catalogue
from tests import world
from tests.integration.accounts.world import scope_of
from tests.integration.web.pages.people import HOSTILE, actions, config, make_role, store_event, store_function

FULL = {
    "retries": 7,
    "concurrency": [{"limit": 5, "key": "event.data.user_id", "scope": "env"}],
    "throttle": {"limit": 3, "period": "10s", "burst": 2},
    "debounce": {"period": "30s", "key": "event.data.id", "timeout": "5m"},
    "priority": {"run": "event.data.plan == 'gold' ? 120 : 0"},
    "idempotency": "event.data.cart",
    "cancel": [{"event": "order/cancelled", "if": "event.data.id == async.data.id", "timeout": "2h"}],
    "timeouts": {"start": "1m", "finish": "1h30m"},
    "singleton": {"mode": "cancel"},
    "triggers": [{"event": "order/*", "expression": "event.data.total > 100"}, {"cron": "TZ=Europe/Oslo 0 9 * * *"}],
}


def names_of(text: str) -> list[str]:
    return re.findall(r'href="/env/production/functions/([\w-]+)" hx-preload', text)


async def test_the_list_shows_triggers_state_and_the_last_run(ada: Any, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "charge", triggers=FULL["triggers"])
    now = await owner.fetchval("select clock()")
    await world.order_failed(function, now - timedelta(hours=2)).save(owner)
    last = await world.order_completed(function, now - timedelta(minutes=1)).save(owner)
    text = (await ada.get("/functions")).text
    assert names_of(text) == ["shop-charge"]
    assert "order/*" in text
    assert "TZ=Europe/Oslo 0 9 * * *" in text
    assert f"/runs/{last.ulid}" in text
    assert "Active" in text


async def test_filters_find_by_text_app_and_state(ada: Any, owner: Any) -> None:
    await store_function(owner, ada.tenant, "charge")
    paused = await store_function(owner, ada.tenant, "refund_100%")
    gone = await store_function(owner, ada.tenant, "gone")
    other = await world.make_function(owner, ada.tenant, "mail", app="growth")
    await owner.execute("update functions set paused_at = clock() where id = $1", paused.id)
    await owner.execute("update functions set archived_at = clock() where id = $1", gone.id)

    async def found(query: str) -> set[str]:
        text = (await ada.get(f"/functions?{query}")).text
        return set(re.findall(r'<span class="fn"><a href="[^"]*"[^>]*>([^<]*)</a>', text))

    assert await found("") == {"charge", "refund_100%", "mail"}
    assert await found("q=CHAR") == {"charge"}
    assert await found("q=%25") == {"refund_100%"}
    assert await found("q=_") == {"refund_100%"}
    assert await found("app=growth") == {other.name}
    assert await found("state=paused") == {"refund_100%"}
    assert await found("state=archived") == {"gone"}
    assert await found("state=nonsense&q=%00") == {"charge", "refund_100%", "mail"}


async def test_five_hundred_functions_are_one_page_and_more_are_another(
    ada: Any, owner: Any, monkeypatch: Any, statements: Any
) -> None:
    monkeypatch.setattr("app.reads.functions.SIZE", 3)
    for n in range(5):
        await store_function(owner, ada.tenant, f"fn-{n}")
    statements.clear()
    first = (await ada.get("/functions")).text
    assert len(statements) <= 6
    assert names_of(first) == ["shop-fn-0", "shop-fn-1", "shop-fn-2"]
    link = re.search(r'href="/env/production(/functions\?after=[^"]+)"', first)
    assert link
    assert names_of((await ada.get(link[1])).text) == ["shop-fn-3", "shop-fn-4"]


async def test_a_function_shows_its_runs_by_status_and_links_to_them(ada: Any, owner: Any, statements: Any) -> None:
    function = await store_function(owner, ada.tenant, "charge")
    now = await owner.fetchval("select clock()")
    for n in range(12):
        await world.order_completed(function, now - timedelta(minutes=n)).save(owner)
    failed = await world.order_failed(function, now).save(owner)
    statements.clear()
    text = (await ada.get("/functions/shop-charge")).text
    assert len(statements) <= 6
    assert len(gzip.compress(text.encode())) <= 14 * 1024
    assert text.count('<li><span class="st') == 10
    assert "WarehouseTimeout" in text
    assert failed.ulid in re.sub(r'<span class="sr"> |</span>', "", text)
    assert 'href="/env/production/runs?fn=shop-charge&amp;last=any&status=failed"' in text


async def test_every_setting_is_told_with_its_default_marked(ada: Any, owner: Any) -> None:
    await store_function(owner, ada.tenant, "plain")
    await store_function(owner, ada.tenant, "full", **FULL)
    plain = (await ada.get("/functions/shop-plain/config")).text
    full = (await ada.get("/functions/shop-full/config")).text
    names = re.findall(r"<dt>([^<]+)<small>", plain)
    assert names == [
        "Trigger", "Retries", "Concurrency", "Runs at once", "Throttle", "Rate limit", "Idempotency", "Debounce",
        "Batching", "Priority", "Singleton", "Start timeout", "Finish timeout", "Cancel on", "URL", "SDK",
    ]  # fmt: skip
    assert plain.count('class="is-default"') == 13
    shown = re.sub(r"<[^>]+>", "", full).replace("&#39;", "'").replace("&gt;", ">")
    for words in (
        "7 after the first attempt", "5 for each value over the environment", "event.data.user_id",
        "3 starts per 10 s, 2 more at once", "30 s of quiet, at most 5 min", "event.data.plan == 'gold' ? 120 : 0",
        "once in 24 h per value", "order/cancelled, within 2 h", "event.data.id == async.data.id", "1 h 30 min",
        "a new run cancels the old one", "event.data.total > 100",
    ):  # fmt: skip
        assert words in shown, words
    assert '<span class="s">&#39;gold&#39;</span>' in full
    assert "Version 1" in full


async def test_an_invoke_stores_the_event_and_shows_it_while_there_is_no_run(
    ada: Any, owner: Any, page_pool: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("app.web.pages.functions._PATIENCE_S", 0.1)
    await store_function(owner, ada.tenant, "charge")
    answer = await ada.post("/functions/shop-charge/invoke", payload='{"total": 1.10, "_inngest": {"fn_id": "other"}}')
    row = await owner.fetchrow("select * from events where environment_id = $1", ada.tenant.environment_id)
    assert answer.headers["location"] == f"/env/production/events/{to_ulid(row['id'])}"
    assert (row["name"], row["source"]) == ("inngest/function.invoked", "page")
    assert json.loads(row["payload"])["data"] == {"_inngest": {"fn_id": "shop-charge"}, "total": 1.1}
    assert await actions(page_pool, ada.made) == ["function.invoked"]


async def test_an_invoke_goes_to_its_run(ada: Any, owner: Any, monkeypatch: Any) -> None:
    function = await store_function(owner, ada.tenant, "charge")
    story = await world.order_queued(function, await owner.fetchval("select clock()")).save(owner)

    async def run_of(*_: Any) -> tuple[bool, str]:
        return True, story.ulid

    monkeypatch.setattr("app.web.pages.functions.events.first_run", run_of)
    answer = await ada.post("/functions/shop-charge/invoke", payload="")
    assert answer.headers["location"] == f"/env/production/runs/{story.ulid}"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("{\n  total: 1}", "Line 2, column 3."),
        ("[1]", "must be an object"),
        ('{"a": 1}, "name": "x"', "Line 1"),
        ('{"a":' * 70 + "1" + "}" * 70, "nested deeper"),
    ],
)
async def test_a_bad_payload_comes_back_with_its_place(ada: Any, owner: Any, payload: str, words: str) -> None:
    await store_function(owner, ada.tenant, "charge")
    answer = await ada.post("/functions/shop-charge/invoke", payload=payload)
    assert answer.status_code == 422
    assert words in answer.text
    assert await owner.fetchval("select count(*) from events where account_id = $1", ada.tenant.account_id) == 0


async def test_a_pause_is_seen_by_the_engine_told_on_the_page_and_ends(
    ada: Any, owner: Any, engine_pool: Any, page_pool: Any
) -> None:
    function = await store_function(owner, ada.tenant, "charge")

    async def no_keys(_: Any) -> list[str]:
        return []

    catalogue, scope = Catalogue(engine_pool, no_keys), scope_of(ada.made)
    version = await owner.fetchval("select catalogue_version from environments where id = $1", scope.environment_id)
    consequences = (await ada.get("/functions/shop-charge/pause")).text
    assert "Runs that exist: 0 running" in consequences
    assert (await ada.post("/functions/shop-charge/pause", reason="card network is down")).status_code == 303
    view = await catalogue.view(scope, version + 1)
    assert next(iter(view.functions.values())).function.is_paused
    event = await store_event(owner, ada.tenant)
    await owner.execute(
        "insert into dispositions (environment_id, event_id, function_id, account_id, outcome)"
        " values ($1, $2, $3, $4, 'paused')",
        ada.tenant.environment_id, event, function.id, ada.tenant.account_id,
    )  # fmt: skip
    text = re.sub(r"<[^>]+>", "", (await ada.get("/functions/shop-charge")).text)
    assert f"by {ada.made['user']}: card network is down. 1 event arrived since and started no run." in text
    assert "Resume" in text
    assert (await ada.post("/functions/shop-charge/pause")).status_code == 303
    assert (await ada.post("/functions/shop-charge/resume")).status_code == 303
    view = await catalogue.view(scope, version + 2)
    assert not next(iter(view.functions.values())).function.is_paused
    assert "Resume" not in (await ada.get("/functions/shop-charge")).text
    assert await actions(page_pool, ada.made) == ["function.paused", "function.resumed"]


async def test_a_viewer_looks_but_changes_nothing(ada: Any, owner: Any, page_pool: Any) -> None:
    await store_function(owner, ada.tenant, "charge")
    await make_role(owner, ada.made, "viewer")
    text = (await ada.get("/functions/shop-charge")).text
    assert "Pause" not in text
    assert "/invoke" not in text
    for action in ("invoke", "pause", "resume"):
        assert (await ada.post(f"/functions/shop-charge/{action}")).status_code == 403
    assert await actions(page_pool, ada.made) == ["role.refused"] * 3


async def test_functions_with_odd_names_are_reached_by_their_ids(ada: Any, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "a/b c?#")
    text = (await ada.get("/functions")).text
    assert f'href="/env/production/functions/{function.id}"' in text
    for path in ("", "/config", "/invoke", "/pause"):
        assert (await ada.get(f"/functions/{function.id}{path}")).status_code == 200


async def test_hostile_texts_are_shown_as_text(ada: Any, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "x")
    text = json.dumps(
        config(function.slug, name=HOSTILE)
        | {"triggers": [{"event": HOSTILE, "expression": f"event.data.x == '{HOSTILE}'"}], "idempotency": HOSTILE}
    )
    await owner.execute("update functions set config = $2, name = $3 where id = $1", function.id, text, HOSTILE)
    await owner.execute("update apps set name = $2, sdk = $2 where id = $1", function.app_id, HOSTILE)
    await ada.post("/functions/shop-x/pause", reason=HOSTILE)
    for path in ("/functions", "/functions/shop-x", "/functions/shop-x/config", "/functions/shop-x/invoke"):
        page = (await ada.get(path)).text
        assert "<script>alert" not in page, path
        assert "<img" not in page, path
        assert "U+202E" in page, path
    refused = await ada.post("/functions/shop-x/invoke", payload=HOSTILE)
    assert "<script>alert" not in refused.text


@pytest.mark.parametrize("stored", ["{}", "null", "[]", "{", '{"id":"x","retries":"many","cancel":7}', '"\\ud800"'])
async def test_settings_nobody_can_read_do_not_break_the_pages(ada: Any, owner: Any, stored: str) -> None:
    function = await store_function(owner, ada.tenant, "odd")
    await owner.execute("update functions set config = $2 where id = $1", function.id, stored)
    for path in ("/functions", "/functions/shop-odd", "/functions/shop-odd/config"):
        assert (await ada.get(path)).status_code == 200


async def test_a_pause_may_cancel_the_runs_that_exist_and_a_resume_lets_them_be(ada: Any, owner: Any) -> None:
    await store_function(owner, ada.tenant, "charge")
    orders = (
        "select due_at - clock() > interval '6 days' as is_late, deleted_at is not null as is_withdrawn"
        " from cancellations where account_id = $1 order by created_at"
    )
    await ada.post("/functions/shop-charge/pause", runs="keep")
    await ada.post("/functions/shop-charge/resume")
    await ada.post("/functions/shop-charge/pause", runs="cancel")
    rows = [tuple(row) for row in await owner.fetch(orders, ada.tenant.account_id)]
    assert rows == [(None, True), (False, False)]


async def test_a_schedule_tells_when_it_is_due_next_unless_it_is_paused(ada: Any, owner: Any) -> None:
    await store_function(owner, ada.tenant, "nightly", triggers=[{"cron": "0 9 * * *"}])
    text = (await ada.get("/functions/shop-nightly")).text
    assert len(re.findall(r'<time datetime="\d{4}-\d\d-\d\dT09:00:00\.000Z"', text)) == 3
    await ada.post("/functions/shop-nightly/pause")
    assert "09:00:00.000Z" not in (await ada.get("/functions/shop-nightly")).text
