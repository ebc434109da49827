"""Syncs that fail, apps that move, functions that go and come back, keys in rotation, apps that are looked at."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.adapters.http import MAX_BODY, Answer, CallFailed
from app.domain.errors import RegistrationRefused
from app.domain.protocol.signature import sign, verify_request
from app.domain.scope import Scope
from app.engine.clock import DatabaseClock
from app.engine.diagnose import KeyState, check_app
from app.engine.dispatch import Dispatch
from app.engine.sync import Synced, SyncFailed, register, register_body, remove_app, sync_app
from app.store.db import Pool, open_engine_pool
from tests.integration.engine.played import URL, config, read, registration, tenant

OLD, NEW = "signkey-prod-" + "a1" * 32, "signkey-prod-" + "b2" * 32


class App:
    """Answers what a test says; `knows` is the key it checks signatures with."""

    def __init__(self, answer: Callable[[str], Answer] | None = None, knows: str | None = None) -> None:
        self.answer = answer
        self.knows = knows
        self.asked: list[str] = []

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        max_body: int = MAX_BODY,
    ) -> Answer:
        self.asked.append(method)
        if self.answer is None:
            raise CallFailed("app_unreachable")
        if self.knows:
            signature = headers.get("x-inngest-signature", "")
            at = int(signature.partition("&")[0].removeprefix("t=") or 0)
            if verify_request(signature, body, keys=[self.knows], now=at) is None:
                return Answer(401, {"x-inngest-sdk-handled": "true"}, b'{"message":"Unauthorized"}', 1.0)
            answer = self.answer(method)
            signed = {**answer.headers, "x-inngest-signature": sign(self.knows, answer.body, at)}
            return Answer(answer.status, signed, answer.body, 1.0)
        return self.answer(method)

    async def close(self) -> None:
        """Nothing is open."""


def in_band(*configs: dict[str, Any], app: str = "shop") -> Callable[[str], Answer]:
    """An app that answers a sync with its functions."""
    body = {"app_id": app, "url": URL, "functions": configs, "sdk_language": "js", "sdk_version": "4.24.0"}
    headers = {"x-inngest-sdk": "inngest-js:v4.24.0", "x-inngest-sync-kind": "in_band"}
    return lambda _method: Answer(200, headers, json.dumps(body).encode(), 1.0)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


@pytest.fixture
async def scope(pool: Pool) -> Scope:
    return await tenant(pool)


async def syncs(pool: Pool, scope: Scope) -> list[Any]:
    async with pool.acquire() as connection:
        found: list[Any] = await connection.fetch(
            "select * from syncs where environment_id = $1 order by started_at, ended_at", scope.environment_id
        )
    return found


async def functions(pool: Pool, scope: Scope) -> dict[str, tuple[int, bool]]:
    """Version and whether it is live, by slug."""
    async with pool.acquire() as connection:
        rows = await connection.fetch("select * from functions where environment_id = $1", scope.environment_id)
    return {row["slug"]: (row["version"], row["archived_at"] is None) for row in rows}


FAILURES = [
    ("http_unreachable", None),
    ("sig_verification_failed", lambda _: Answer(401, {"x-inngest-sdk-handled": "true"}, b"{}", 1.0)),
    ("http_not_ok", lambda _: Answer(404, {}, b"", 1.0)),
    ("not_sdk", lambda _: Answer(200, {"content-type": "text/html"}, b"<html>", 1.0)),
    ("no_functions", in_band()),
    ("config_invalid", in_band({"id": "", "triggers": []})),
]


@pytest.mark.parametrize(("code", "answer"), FAILURES)
async def test_a_failed_sync_without_an_app_is_kept_once_with_cause_and_fix(
    pool: Pool, scope: Scope, code: str, answer: Callable[[str], Answer] | None
) -> None:
    for _ in range(2):
        done = await sync_app(pool, App(answer), scope, URL + "?deployId=1", server_kind="dev", keys=[])
        assert isinstance(done, SyncFailed)
    rows = await syncs(pool, scope)
    assert [(r["status"], r["error_code"], r["app_id"], r["url"]) for r in rows] == [("failed", code, None, URL)]
    assert rows[0]["error"]
    assert rows[0]["fix"]


async def test_a_failure_shows_on_the_app_that_lives_there_and_goes_with_the_next_success(
    pool: Pool, scope: Scope
) -> None:
    good = in_band(config("a"))
    assert isinstance(await sync_app(pool, App(good), scope, URL, server_kind="dev", keys=[]), Synced)
    await sync_app(pool, App(None), scope, URL, server_kind="dev", keys=[])
    async with pool.acquire() as connection:
        query = "select error_code from apps where environment_id = $1"
        assert await connection.fetchval(query, scope.environment_id) == "http_unreachable"
        again = await sync_app(pool, App(good), scope, URL, server_kind="dev", keys=[])
        assert isinstance(again, Synced)
        assert (again.added, again.changed) == ((), ())
        assert await connection.fetchval(query, scope.environment_id) is None
    assert (await syncs(pool, scope))[1]["app_id"] == again.app_id


async def test_what_an_app_posted_in_vain_is_kept_as_well(pool: Pool, scope: Scope) -> None:
    for body, url in ((b"{", ""), (registration(app="mine"), URL), (registration({"id": ""}), URL)):
        with pytest.raises(RegistrationRefused):
            await register_body(pool, scope, body)
        told = (await syncs(pool, scope))[-1]
        assert (told["status"], told["kind"], told["url"]) == ("failed", "out_of_band", url)


async def test_another_name_of_this_machine_is_no_change(pool: Pool, scope: Scope) -> None:
    here = URL.replace("app.test", "localhost:3000")
    body = registration(config("a", url=here), url=here)
    assert (await register_body(pool, scope, body)).is_modified
    same = body.replace(b"localhost", b"127.0.0.1")
    assert not (await register_body(pool, scope, same)).is_modified
    moved = body.replace(b"localhost:3000", b"localhost:3001")
    assert (await register_body(pool, scope, moved)).changed == ("a",)


@pytest.mark.parametrize("echoes", [True, False], ids=["by the id it echoes", "by its address"])
async def test_an_app_that_posts_its_functions_is_told_from_others_that_sync_meanwhile(
    pool: Pool, scope: Scope, echoes: bool
) -> None:
    elsewhere = "https://public.example/api/inngest"
    mine = registration(config("a", url=elsewhere), url=elsewhere) if echoes else registration(config("a"))
    other = registration(config("b", url=URL + "/b"), app="other", url=URL + "/b")

    class Posts(App):
        async def call(self, method: str, url: str, **more: Any) -> Answer:
            deploy_id = parse_qs(urlsplit(url).query)["deployId"][0]
            await register_body(pool, scope, mine, deploy_id if echoes else None)
            await register_body(pool, scope, other)
            return Answer(200, {"x-inngest-sdk": "inngest-js:v4.24.0"}, b"{}", 1.0)

    done = await sync_app(pool, Posts(), scope, URL, server_kind="dev", keys=[])
    assert isinstance(done, Synced)
    async with pool.acquire() as connection:
        assert await connection.fetchval("select name from apps where id = $1", done.app_id) == "shop"


async def test_a_deploy_that_posts_twice_is_one_sync(pool: Pool, scope: Scope) -> None:
    first = await register_body(pool, scope, registration(config("a")), "deploy-1")
    again = await register_body(pool, scope, registration(config("a")), "deploy-1")
    assert (first.sync_id, again.is_modified) == (again.sync_id, False)
    assert len(await syncs(pool, scope)) == 1


async def test_an_app_that_is_removed_owes_no_due_times_and_has_them_again_when_it_is_back(
    pool: Pool, scope: Scope
) -> None:
    async def due() -> int:
        async with pool.acquire() as connection:
            count: int = await connection.fetchval(
                "select count(*) from schedules where environment_id = $1", scope.environment_id
            )
        return count

    body = registration(config("a", triggers=[{"cron": "0 9 * * *"}]))
    await register_body(pool, scope, body)
    assert await due() == 1
    await remove_app(pool, scope, URL)
    assert await due() == 0
    await register_body(pool, scope, body)
    assert await due() == 1


async def test_the_same_registration_again_changes_nothing(pool: Pool, scope: Scope) -> None:
    first = await register(pool, scope, read(registration(config("a"), config("b"))), kind="out_of_band")
    second = await register(pool, scope, read(registration(config("b"), config("a"))), kind="out_of_band")
    assert (first.is_modified, second.is_modified) == (True, False)
    assert await functions(pool, scope) == {"a": (1, True), "b": (1, True)}


async def test_removed_functions_are_archived_and_come_back_under_their_id_with_a_new_version(
    pool: Pool, scope: Scope
) -> None:
    both, one = registration(config("a"), config("b")), registration(config("a"))
    await register(pool, scope, read(both), kind="out_of_band")
    gone = await register(pool, scope, read(one), kind="out_of_band")
    assert gone.removed == ("b",)
    assert await functions(pool, scope) == {"a": (1, True), "b": (1, False)}
    back = await register(pool, scope, read(both), kind="out_of_band")
    assert (back.added, back.changed) == (("b",), ())
    assert await functions(pool, scope) == {"a": (1, True), "b": (2, True)}
    async with pool.acquire() as connection:
        valid = await connection.fetch(
            "select v.version, v.valid_to is null as is_open from function_versions v join functions f on f.id = v.function_id"
            " where f.environment_id = $1 and f.slug = 'b' order by v.version",
            scope.environment_id,
        )
    assert [tuple(row) for row in valid] == [(1, False), (2, True)]


async def test_an_app_that_moves_keeps_its_functions_and_they_are_called_at_the_new_place(
    pool: Pool, scope: Scope
) -> None:
    await register(pool, scope, read(registration(config("a"))), kind="out_of_band")
    new = "https://new.example.com/api/inngest"
    moved = await register(pool, scope, read(registration(config("a", url=new), url=new)), kind="out_of_band")
    assert (moved.added, moved.changed, moved.removed) == ((), ("a",), ())
    async with pool.acquire() as connection:
        row = await connection.fetchrow(
            "select a.url, f.url as called from apps a join functions f on f.app_id = a.id where a.environment_id = $1",
            scope.environment_id,
        )
    assert row["url"] == new
    assert row["called"].startswith(new)


async def test_removing_an_app_by_any_name_of_this_machine_archives_it_until_it_syncs_again(
    pool: Pool, scope: Scope
) -> None:
    local = "http://localhost:3000/api/inngest"
    body = registration(config("a", url=local), url=local)
    await register(pool, scope, read(body), kind="out_of_band")
    other = await tenant(pool)
    assert await remove_app(pool, other, local) == 0
    assert await remove_app(pool, scope, "http://127.0.0.1:3000/api/inngest?fnId=x") == 1
    assert await remove_app(pool, scope, local) == 0
    back = await register(pool, scope, read(body), kind="out_of_band")
    assert back.is_modified
    async with pool.acquire() as connection:
        query = "select archived_at from apps where environment_id = $1"
        assert await connection.fetchval(query, scope.environment_id) is None


@pytest.mark.parametrize("knows", [OLD, NEW])
async def test_during_a_rotation_the_app_may_know_either_key(pool: Pool, scope: Scope, knows: str) -> None:
    app = App(in_band(config("a")), knows=knows)
    done = await sync_app(pool, app, scope, URL, server_kind="cloud", keys=[OLD, NEW])
    assert isinstance(done, Synced)
    assert len(app.asked) == (1 if knows == OLD else 2)


@pytest.mark.parametrize(("knows", "calls"), [(OLD, 1), (NEW, 2), ("signkey-prod-" + "c3" * 32, 2)])
async def test_a_call_goes_on_to_the_next_key_when_the_app_refuses_the_first(knows: str, calls: int) -> None:
    app = App(lambda _: Answer(200, {"x-inngest-sdk": "js:v4.24.0"}, b"1", 1.0), knows=knows)
    dispatch = Dispatch(app, DatabaseClock(), "cloud", is_signed=True, timeout_s=5.0)
    answer = await dispatch._signed(URL, {}, b"{}", (OLD, NEW))
    assert answer.status == (200 if knows in (OLD, NEW) else 401)
    assert len(app.asked) == calls


async def test_an_app_that_signs_with_a_foreign_key_registers_nothing(pool: Pool, scope: Scope) -> None:
    def forged(_method: str) -> Answer:
        answer = in_band(config("a"))("PUT")
        return Answer(200, {**answer.headers, "x-inngest-signature": sign(NEW, answer.body, 1)}, answer.body, 1.0)

    done = await sync_app(pool, App(forged), scope, URL, server_kind="cloud", keys=[OLD])
    assert isinstance(done, SyncFailed)
    assert done.code == "sig_verification_failed"
    assert await functions(pool, scope) == {}


def introspection(**more: Any) -> Callable[[str], Answer]:
    """An app that tells about itself."""
    said = {"function_count": 2, "has_event_key": True, "has_signing_key": True, "mode": "cloud"} | more
    headers = {"x-inngest-sdk": "inngest-py:v0.5.19", "x-inngest-framework": "flask"}
    return lambda method: Answer(200, headers, json.dumps(said).encode() if method == "GET" else b"null", 1.0)


def digest(key: str) -> str:
    return hashlib.sha256(bytes.fromhex(key.rpartition("-")[2])).hexdigest()


async def test_a_sound_app_is_found_sound() -> None:
    told = introspection(
        authentication_succeeded=True, signing_key_hash=digest(NEW)[:12], has_signing_key_fallback=False
    )
    found = await check_app(App(told, knows=NEW), URL, keys=[OLD, NEW], server_kind="cloud")
    assert (found.is_reachable, found.is_sdk, found.sdk, found.framework) == (True, True, "py:v0.5.19", "flask")
    assert (found.mode, found.function_count, found.is_trusted, found.problem) == ("cloud", 2, True, "")
    assert (found.signing_key, found.fallback_key) == (KeyState.CORRECT, KeyState.MISSING)


SICK = [
    (App(None), "could not be reached", KeyState.UNKNOWN),
    (App(lambda _: Answer(200, {}, b"hello", 1.0)), "no SDK", KeyState.UNKNOWN),
    (App(introspection(), knows=NEW), "signing key", KeyState.INCORRECT),
    (App(introspection(has_signing_key=False)), "no signing key", KeyState.MISSING),
    (App(introspection(signing_key_hash="signkey-prod-" + "0" * 64)), "signing key", KeyState.INCORRECT),
    (App(introspection(mode="dev")), "dev mode", KeyState.UNKNOWN),
    (App(introspection(signing_key_hash=digest(OLD))), "cannot prove", KeyState.CORRECT),
    (App(introspection(event_key_hash="0" * 64), knows=OLD), "sends events with a key", KeyState.UNKNOWN),
]


@pytest.mark.parametrize(("app", "problem", "state"), SICK)
async def test_a_sick_app_is_told_what_it_lacks(app: App, problem: str, state: KeyState) -> None:
    hashes = frozenset({hashlib.sha256(b"event-key").hexdigest()})
    found = await check_app(app, URL, keys=[OLD], server_kind="cloud", event_key_hashes=hashes)
    assert problem in found.problem
    assert found.fix
    assert found.signing_key is state
