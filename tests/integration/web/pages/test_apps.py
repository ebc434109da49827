"""The app pages on the whole application: cards, syncs with their causes, checks, archiving."""

import asyncio
import json
import re
import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from app.adapters.http import Answer, CallFailed
from app.domain.protocol.signature import hash_event_key, hash_key, sign
from tests import world
from tests.integration.web.pages.people import HOSTILE, AppStandIn, actions, config, make_role, store_function

SDK = {"x-inngest-sdk": "inngest-js:v3.54.2", "x-inngest-framework": "express"}
URL = "http://app.test/api/inngest"


def stand_in(ada: Any, **answers: Any) -> AppStandIn:
    """Put an app where the pages' calls go."""
    caller = AppStandIn(answers)
    ada.client.app.state.app_calls.caller = caller
    return caller


def in_band(ada: Any, *functions: dict[str, Any]) -> Any:
    """An app that answers a sync with its functions, signed."""
    body = json.dumps(
        {
            "app_id": "shop",
            "appName": "shop",
            "env": None,
            "framework": "express",
            "functions": list(functions),
            "inspection": None,
            "platform": None,
            "sdk_author": "inngest",
            "sdk_language": "js",
            "sdk_version": "3.54.2",
            "sdk": "js:v3.54.2",
            "url": URL,
            "v": "0.1",
            "capabilities": {},
            "deployType": "ping",
        }
    ).encode()

    def answer(_headers: Any, _body: bytes) -> Answer:
        signature = sign(ada.made["signing_key"], body, int(time.time()))
        return Answer(200, SDK | {"x-inngest-sync-kind": "in_band", "x-inngest-signature": signature}, body, 3.0)

    return answer


async def begin(ada: Any, path: str = "/apps/new", **fields: str) -> str:
    """Begin a sync; the text of the page that shows how it went."""
    answer = await ada.post(path, **fields)
    assert answer.status_code == 303, answer.text
    page: str = (await ada.client.get(answer.headers["location"])).text
    return page


async def test_a_sync_by_url_shows_its_steps_and_what_it_brought(ada: Any, page_pool: Any) -> None:
    caller = stand_in(ada, PUT=in_band(ada, config("shop-charge"), config("shop-refund")))
    text = await begin(ada, url=URL)
    ((method, address),) = caller.calls
    assert (method, address.partition("?deployId=")[0]) == ("PUT", URL)
    assert text.count('<span class="st ok">') == 3
    assert "shop is synced" in text
    assert "2 added, 0 changed, 0 removed." in text
    app = (await ada.get("/apps/shop")).text
    assert "js:v3.54.2" in app
    assert 'href="/env/production/functions/shop-charge"' in app
    sync = re.search(r'href="/env/production(/apps/shop/syncs/[\w-]+)"', app)
    assert sync
    assert "shop-refund" in (await ada.get(sync[1])).text
    stand_in(ada, PUT=in_band(ada, config("shop-charge", retries=2)))
    assert "0 added, 1 changed, 1 removed." in await begin(ada, "/apps/shop/resync")
    assert "Nothing had changed." in await begin(ada, "/apps/shop/resync")
    assert await actions(page_pool, ada.made) == ["app.synced"] * 3


@pytest.mark.parametrize(
    ("answer", "message", "fix"),
    [
        (CallFailed("app_unreachable"), "could not be reached", "Start the app"),
        (CallFailed("app_address_blocked"), "may not be called from here", "Start the app"),
        (Answer(404, {}, b"", 1.0), "nothing at this path (404)", "/api/inngest"),
        (Answer(200, {}, b"<html>", 1.0), "no SDK", "where the SDK is served"),
        (Answer(401, SDK, b"", 1.0), "refused our signature", "INNGEST_SIGNING_KEY"),
        (Answer(200, SDK | {"x-inngest-sync-kind": "in_band"}, b"{}", 1.0), "not signed", "INNGEST_SIGNING_KEY"),
    ],
)
async def test_a_failed_sync_says_its_cause_and_the_fix_and_is_kept(
    ada: Any, answer: Any, message: str, fix: str
) -> None:
    stand_in(ada, PUT=answer)
    text = await begin(ada, url=URL)
    assert "The sync failed" in text
    assert message in text
    assert fix in text
    kept = (await ada.get("/apps")).text
    assert "Failed syncs of no app yet" in kept
    assert message in kept
    page = re.search(r'href="/env/production(/apps/-/syncs/[\w-]+)"', kept)
    assert page
    assert fix in (await ada.get(page[1])).text


async def test_the_failure_of_a_known_app_stands_on_its_card_until_a_sync_works(ada: Any, owner: Any) -> None:
    stand_in(ada, PUT=in_band(ada, config("shop-charge")))
    await begin(ada, url=URL)
    stand_in(ada, PUT=CallFailed("app_unreachable"))
    await begin(ada, "/apps/shop/resync")
    for path in ("/apps", "/apps/shop"):
        text = (await ada.get(path)).text
        assert "could not be reached" in text, path
        assert 'data-status="failed"' in text, path
    stand_in(ada, PUT=in_band(ada, config("shop-charge")))
    await begin(ada, "/apps/shop/resync")
    assert "could not be reached" not in (await ada.get("/apps")).text


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://x", "javascript:alert(1)", "http://u:p@x/", "http://x/\x00", "ws://x/"]
)
async def test_what_is_no_url_comes_back_with_a_sentence(ada: Any, url: str) -> None:
    caller = stand_in(ada)
    answer = await ada.post("/apps/new", url=url)
    assert answer.status_code == 422
    assert "Enter the URL where the app serves" in answer.text
    assert caller.calls == []


async def test_a_sync_that_takes_long_polls_and_another_process_finds_what_came_of_it(ada: Any) -> None:
    calls = ada.client.app.state.app_calls
    gate = threading.Event()  # The application has a loop of its own.
    real = stand_in(ada, PUT=in_band(ada, config("shop-charge")))

    class Slow(AppStandIn):
        async def call(self, *args: Any, **more: Any) -> Answer:
            while not gate.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.01)
            return await real.call(*args, **more)

    calls.caller = Slow({})
    answer = await ada.post("/apps/new", url=URL)
    attempt = answer.headers["location"].rpartition("=")[2]
    text = (await ada.get(f"/apps/new/progress?attempt={attempt}")).text
    assert 'hx-trigger="load delay:500ms"' in text
    assert "Not yet" in text
    gate.set()
    async with asyncio.timeout(10):
        while "shop is synced" not in (text := (await ada.get(f"/apps/new/progress?attempt={attempt}")).text):
            assert "failed" not in text
    calls._attempts.clear()
    assert "shop is synced" in (await ada.get(f"/apps/new/progress?attempt={attempt}")).text
    assert (await ada.get("/apps/new/progress?attempt=nonsense")).status_code == 404


async def test_only_so_many_syncs_run_at_once(ada: Any) -> None:
    class Stuck(AppStandIn):
        async def call(self, *_args: Any, **_more: Any) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    ada.client.app.state.app_calls.caller = Stuck({})
    answers = [(await ada.post("/apps/new", url=URL)).status_code for _ in range(5)]
    assert answers == [303, 303, 303, 303, 429]


async def test_a_check_says_what_is_well_and_what_is_not(ada: Any, owner: Any, page_pool: Any) -> None:
    await store_function(owner, ada.tenant, "charge")
    assert (await ada.get("/apps/shop/check")).status_code == 200
    said = {"mode": "cloud", "function_count": 2, "has_signing_key": True, "authentication_succeeded": True}
    good = said | {
        "signing_key_hash": hash_key(ada.made["signing_key"]),
        "event_key_hash": hash_event_key(ada.made["event_key"]),
    }

    def trusted(_headers: Any, body: bytes) -> Answer:
        signature = sign(ada.made["signing_key"], body, int(time.time()))
        return Answer(200, SDK | {"x-inngest-signature": signature}, body, 3.0)

    stand_in(ada, GET=Answer(200, SDK, json.dumps(good).encode(), 12.0), POST=trusted)
    text = (await ada.post("/apps/shop/check")).text
    assert "Nothing is wrong." in text
    assert text.count("the same as here") == 2
    assert "it proved its key" in text
    for body, words in (
        (said | {"mode": "dev"}, "Set INNGEST_DEV"),
        (said | {"signing_key_hash": "0" * 64}, "it has another one"),
        (said | {"has_signing_key": False}, "it has none"),
    ):
        stand_in(ada, GET=Answer(200, SDK, json.dumps(body).encode(), 12.0), POST=trusted)
        assert words in (await ada.post("/apps/shop/check")).text
    stand_in(ada, GET=CallFailed("app_timeout"))
    assert "did not answer in time" in (await ada.post("/apps/shop/check")).text
    assert await actions(page_pool, ada.made) == ["app.checked"] * 5


async def test_an_archived_app_starts_nothing_and_comes_back(ada: Any, owner: Any, page_pool: Any) -> None:
    await store_function(owner, ada.tenant, "charge")
    version = "select catalogue_version from environments where id = $1"
    before = await owner.fetchval(version, ada.tenant.environment_id)
    assert (await ada.post("/apps/shop/archive")).status_code == 303
    assert "No apps yet" in (await ada.get("/apps")).text
    assert "Unarchive" in (await ada.get("/apps/shop")).text
    assert "shop" in (await ada.get("/apps?state=archived")).text
    assert "Archived." in (await ada.get("/functions/shop-charge")).text
    assert (await ada.post("/apps/shop/archive")).status_code == 303
    assert (await ada.post("/apps/shop/unarchive")).status_code == 303
    assert await owner.fetchval(version, ada.tenant.environment_id) == before + 2
    assert await actions(page_pool, ada.made) == ["app.archived", "app.unarchived"]


async def test_roles_decide_who_may_act(ada: Any, owner: Any) -> None:
    await store_function(owner, ada.tenant, "charge")
    stand_in(ada, GET=CallFailed("app_timeout"), PUT=CallFailed("app_timeout"))
    deeds = {"/apps/new": "url", "/apps/shop/resync": "", "/apps/shop/check": ""}
    await make_role(owner, ada.made, "viewer")
    for path in (*deeds, "/apps/shop/archive", "/apps/shop/unarchive"):
        assert (await ada.post(path, url=URL)).status_code == 403, path
    for path in ("/apps", "/apps/shop", "/apps/new", "/apps/shop/check"):
        assert (await ada.get(path)).status_code == 200, path
    assert "Resync" not in (await ada.get("/apps/shop")).text
    await make_role(owner, ada.made, "member")
    assert "Archive" not in (await ada.get("/apps/shop")).text
    for path in deeds:
        assert (await ada.post(path, url=URL)).status_code in (200, 303), path
    assert (await ada.post("/apps/shop/archive")).status_code == 403


async def test_pages_ask_few_things_however_many_apps_there_are(ada: Any, owner: Any, statements: Any) -> None:
    for n in range(20):
        await world.make_function(owner, ada.tenant, "charge", app=f"app-{n}")
    statements.clear()
    assert (await ada.get("/apps")).text.count("app-card") == 20
    assert len(statements) <= 6
    statements.clear()
    await ada.get("/apps/app-3")
    assert len(statements) <= 6
    statements.clear()
    assert (await ada.get("")).status_code == 200
    assert len(statements) <= 6


async def test_hostile_texts_are_shown_as_text(ada: Any, owner: Any) -> None:
    function = await store_function(owner, ada.tenant, "x")
    await owner.execute(
        "update apps set name = $2, sdk = $2, framework = $2, url = $2, error_code = 'x', error = $2 where id = $1",
        function.app_id, HOSTILE,
    )  # fmt: skip
    sync, lonely = uuid4(), uuid4()
    for sync_id, app_id in ((sync, function.app_id), (lonely, None)):
        await owner.execute(
            "insert into syncs (id, account_id, environment_id, app_id, url, kind, status, sdk, framework, added, error_code,"
            " error) values ($1, $2, $3, $4, $5, 'in_band', 'failed', $5, $5, array[$5], $5, $5)",
            sync_id, ada.tenant.account_id, ada.tenant.environment_id, app_id, HOSTILE,
        )  # fmt: skip
    answer = Answer(200, {"x-inngest-sdk": HOSTILE, "x-inngest-framework": HOSTILE}, json.dumps({"mode": HOSTILE}).encode(), 1.0)  # fmt: skip
    stand_in(ada, GET=answer, POST=CallFailed("app_timeout"))
    app = f"/apps/{function.app_id}"
    for path in ("/apps", app, f"{app}/check", f"{app}/syncs/{sync}", f"/apps/-/syncs/{lonely}", ""):
        text = (await ada.get(path)).text
        assert "<script>alert" not in text, path
        assert "<img" not in text, path
        assert "U+202E" in text, path
    checked = await ada.post(f"{app}/check")
    assert checked.status_code == 200
    assert "<script>alert" not in checked.text
