"""What programs read and change by REST, asked as they ask it."""

import json
from collections.abc import AsyncIterator
from datetime import UTC
from uuid import UUID

import pytest

from app.domain.event import NewEvent
from app.domain.ids import EventId, FunctionId, parse_ulid, to_ulid
from app.engine.ingest import Ingest
from app.reads.api import Started, find_started
from app.store.db import Pool, open_engine_pool
from app.web.api import start
from app.web.site import Site
from tests.integration.web.api.look_alikes import LookAlike, look_alike, run_of
from tests.integration.web.site import Client, running, settings_for


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_engine_pool(database, size=2)
    yield pool
    await pool.close()


@pytest.fixture
async def client(database: str) -> AsyncIterator[Client]:
    async with running(settings_for(database)) as client:
        yield client


@pytest.fixture
async def mine(database: str, pool: Pool) -> LookAlike:
    return await look_alike(database, pool)


async def ids_of(client: Client, mine: LookAlike, query: str) -> list[str]:
    """The ids of a list of runs."""
    answer = await client.get(f"/v2/runs?{query}", headers=mine.bearer)
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["data"]]


async def test_pages_of_events_hold_each_once_the_newest_first(client: Client, mine: LookAlike, pool: Pool) -> None:
    ingest = Ingest(pool)
    ingest.start()
    sent = [mine.event_id]
    for n in range(5):
        # One request each; all of one have one time, and their ids decide.
        ids = await ingest.add(mine.scope, [NewEvent(f"n{n}", b"{}", 1_700_000_000_000) for _ in range(2)])
        sent += [to_ulid(one) for one in ids]
    await ingest.stop()
    seen: list[str] = []
    while True:
        cursor = f"&cursor={seen[-1]}" if seen else ""
        page = (await client.get(f"/v1/events?limit=3{cursor}", headers=mine.bearer)).json()["data"]
        if not page:
            break
        seen += [event["internal_id"] for event in page]
    assert sorted(seen) == sorted(sent)
    times = [(await client.get(f"/v1/events/{one}", headers=mine.bearer)).json()["data"]["received_at"] for one in seen]
    assert times == sorted(times, reverse=True)
    named = (await client.get("/v1/events?name=n3", headers=mine.bearer)).json()["data"]
    assert [event["name"] for event in named] == ["n3", "n3"]
    after = (await client.get(f"/v1/events?received_after={times[0]}", headers=mine.bearer)).json()["data"]
    assert after == []


async def test_runs_are_found_by_each_filter_and_paged_both_ways(client: Client, mine: LookAlike) -> None:
    both = sorted([mine.run_id, mine.ended_run_id])
    for order, expected in (("ASC", both), ("DESC", both[::-1])):
        first = (await client.get(f"/v2/runs?limit=1&order={order}", headers=mine.bearer)).json()
        assert first["page"] == {"cursor": first["page"]["cursor"], "hasMore": True, "limit": 1}
        rest = await ids_of(client, mine, f"limit=1&order={order}&cursor={first['page']['cursor']}")
        assert [first["data"][0]["id"], *rest] == expected
    assert await ids_of(client, mine, "status=COMPLETED") == [mine.ended_run_id]
    assert await ids_of(client, mine, "status=failed&status=running") == [mine.run_id]
    for query in ("appId=shop", f"app_id={mine.app_id}", "functionId=shop-order", f"functionId={mine.function_id}"):
        assert sorted(await ids_of(client, mine, query)) == both
    assert await ids_of(client, mine, "functionId=other") == []
    assert await ids_of(client, mine, "timeField=ENDED_AT&from=2000-01-01T00:00:00Z") == [mine.ended_run_id]
    assert await ids_of(client, mine, "until=2000-01-01T00:00:00Z") == []
    assert sorted(await ids_of(client, mine, "from=2000-01-01T00:00:00Z")) == both
    by_function = await client.get("/v2/apps/shop/functions/order/runs", headers=mine.bearer)
    assert sorted(run["id"] for run in by_function.json()["data"]) == both
    by_event = await client.get(f"/v2/events/{mine.event_id}/runs?includeOutput=true", headers=mine.bearer)
    outputs = {run["id"]: run["output"] for run in by_event.json()["data"]}
    assert outputs == {mine.run_id: None, mine.ended_run_id: {"of": str(mine.scope.account_id)}}


async def test_a_run_made_again_is_linked_both_ways_and_keeps_what_is_done(
    client: Client, mine: LookAlike, pool: Pool
) -> None:
    path = f"/v2/runs/{mine.ended_run_id}/rerun"
    again = (await client.post(path, headers=mine.bearer)).json()["data"]
    assert again["originalRunId"] == mine.ended_run_id
    run = (await client.get(f"/v2/runs/{again['id']}", headers=mine.bearer)).json()["data"]
    assert (run["status"], run["originalRunId"]) == ("QUEUED", mine.ended_run_id)
    original = (await client.get(f"/v2/runs/{mine.ended_run_id}", headers=mine.bearer)).json()["data"]
    assert original["replayedAs"] == [again["id"]]
    edited = await client.post(path, headers=mine.bearer, json={"from_step": {"step_id": "a", "input": {"n": 2}}})
    async with pool.acquire() as connection:
        step = await connection.fetchrow(
            "select * from steps where run_id = $1", parse_ulid(edited.json()["data"]["id"])
        )
    assert (step["step_key"], step["state"], step["memo"], step["input"]) == ("a", "retrying", None, '[{"n":2}]')
    open_run = await client.post(
        f"/v2/runs/{mine.run_id}/rerun", headers=mine.bearer, json={"fromStep": {"stepId": "a"}}
    )
    assert (open_run.status_code, open_run.json()["errors"][0]["code"]) == (409, "run_not_ended")


async def test_cancelling_ends_a_run_once(client: Client, mine: LookAlike) -> None:
    path = f"/v2/runs/{mine.run_id}"
    jobs = (await client.get(f"/v1/runs/{mine.run_id}/jobs", headers=mine.bearer)).json()["data"]
    assert [(job["kind"], job["attempt"], job["position"]) for job in jobs] == [("discover", 0, 1)]
    told = [(await client.post(f"{path}/cancel", headers=mine.bearer)).json()["data"] for _ in range(2)]
    assert [one["cancelled"] for one in told] == [True, False]
    assert (await client.get(path, headers=mine.bearer)).json()["data"]["status"] == "CANCELLED"
    assert (await client.get(f"/v1/runs/{mine.run_id}/jobs", headers=mine.bearer)).json()["data"] == []


async def test_apps_and_functions_are_told_with_their_settings(client: Client, mine: LookAlike) -> None:
    bare = (await client.get("/v1/apps/shop/functions", headers=mine.bearer)).json()
    assert [(one["slug"], one["config"]["triggers"]) for one in bare] == [
        ("shop-order", [{"event": "shop-order/sent"}])
    ]
    app = (await client.get("/v2/apps/shop", headers=mine.bearer)).json()["data"]
    assert (app["functionCount"], app["sdk"], app["error"]) == (1, "js:v4.24.0", None)
    for name in ("order", "shop-order", mine.function_id):
        found = await client.get(f"/api/v2/apps/shop/functions/{name}", headers=mine.bearer)
        assert found.json()["data"]["id"] == mine.function_id
    removed = await client.delete("/fn/remove?url=http://app.test/api/inngest", headers=mine.bearer)
    assert removed.json() == {"ok": True, "removed": 1}
    assert (await client.get("/v2/apps/shop", headers=mine.bearer)).json()["data"]["archivedAt"] is not None


async def test_the_trace_is_a_tree_of_the_run_and_its_steps(client: Client, mine: LookAlike) -> None:
    told = (await client.get(f"/v2/runs/{mine.ended_run_id}/trace", headers=mine.bearer)).json()["data"]
    assert told["rootSpan"]["status"] == "COMPLETED"
    assert [(one["name"], one["status"], one["output"]) for one in told["rootSpan"]["children"]] == [
        ("a", "COMPLETED", {"data": 1})
    ]


async def test_an_event_sent_by_the_api_is_stored_for_the_key_s_environment(client: Client, mine: LookAlike) -> None:
    sent = await client.post("/v2/events", headers=mine.bearer, json={"name": "a/b", "data": {"n": 1}, "id": "mine"})
    event = await client.get(f"/v1/events/{sent.json()['data']['eventId']}", headers=mine.bearer)
    assert (event.json()["data"]["id"], event.json()["data"]["data"]) == ("mine", {"n": 1})


async def test_the_document_and_the_list_of_addresses_need_no_key(client: Client) -> None:
    document = (await client.get("/api/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    page = await client.get("/api/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "POST /e/{event_key}" in page.text


async def test_a_key_that_asks_too_often_is_told_when_to_come_again_and_its_runs_are_not_disturbed(
    client: Client, mine: LookAlike, pool: Pool
) -> None:
    site: Site = client.app.state.site
    assert "x-ratelimit-limit" not in (await client.get("/v2/apps", headers=mine.bearer)).headers
    async with pool.acquire() as connection:
        await connection.execute("update accounts set plan = 'free' where id = $1", mine.scope.account_id)
    site.plans.forget(mine.scope.account_id)
    for _ in range(600):
        site.api_rate.ask(mine.bearer["authorization"], 600)
    for path in ("/v2/apps", "/v1/events", "/v1/cancellations"):
        answer = await client.get(path, headers=mine.bearer)
        assert answer.status_code == 429, path
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-ratelimit-limit"] == "600"
        assert answer.headers["x-ratelimit-remaining"] == "0"
    for path in ("actions", "batch"):
        assert (await client.get(f"/v0/runs/{mine.run_id}/{path}", headers=mine.bearer)).status_code == 200
    checkpoint = await client.post(f"/v1/checkpoint/{mine.run_id}/async", headers=mine.bearer, content=b"{}")
    register = await client.post("/fn/register", headers=mine.bearer, content=b"{}")
    assert (checkpoint.status_code, register.status_code) == (400, 400)


async def test_a_function_started_by_program_answers_with_its_run(
    client: Client, mine: LookAlike, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_PATIENCE_S", 0.0)
    path = f"/v2/apps/{mine.app_id}/functions/{mine.function_id}/invoke"
    function = FunctionId(UUID(mine.function_id))

    async def asked(body: dict[str, object]) -> EventId:
        answer = await client.post(path, headers=mine.bearer, json=body)
        assert (answer.status_code, answer.json()["data"]["runId"]) == (202, None)
        event_id = parse_ulid(answer.json()["data"]["eventId"])
        assert event_id is not None
        return EventId(event_id)

    async def became(event_id: EventId, key: str | None = None) -> Started | None:
        async with pool.acquire() as connection:
            return await find_started(connection, mine.scope, function, event_id, key)

    async def answered(event_id: EventId, outcome: str) -> None:
        async with pool.acquire() as connection:
            await connection.execute(
                "insert into dispositions (environment_id, function_id, account_id, event_id, outcome)"
                " values ($1, $2, $3, $4, $5)",
                mine.scope.environment_id, function, mine.scope.account_id, event_id, outcome,
            )  # fmt: skip

    first = await asked({"data": {"n": 1}, "idempotencyKey": "k"})
    assert await became(first, "k") is None
    run_id = await run_of(pool, mine.scope, first, UUID(mine.app_id), is_ended=True)
    started = await became(first, "k")
    assert started is not None
    assert started.run is not None
    assert (started.run["runId"], started.run["status"]) == (to_ulid(run_id), "COMPLETED")
    assert json.loads(bytes(started.run["result"])) == {"of": str(mine.scope.account_id)}

    again = await asked({"idempotency_key": "k"})
    async with pool.acquire() as connection:
        await connection.execute(
            "insert into dedupe (environment_id, function_id, account_id, key, run_id, expires_at)"
            " values ($1, $2, $3, 'k', $4, clock() + interval '1 hour')",
            mine.scope.environment_id, function, mine.scope.account_id, run_id,
        )  # fmt: skip
    await answered(again, "duplicate")
    assert await became(again, "k") == started
    refused = await asked({})
    await answered(refused, "rate_limited")
    assert await became(refused) == Started(None, "rate_limited")


async def test_an_environment_s_counters_are_read_by_id_slug_or_name_and_only_with_its_key(
    client: Client, mine: LookAlike, pool: Pool
) -> None:
    names = await pool.fetchrow(
        "select id::text, slug, name from environments where id = $1", mine.scope.environment_id
    )
    await pool.execute("delete from usage_minutes where environment_id = $1", mine.scope.environment_id)
    await pool.execute(
        "insert into usage_minutes (environment_id, function_id, minute, shard, account_id, made, completed, failed)"
        " select $1, $2, date_trunc('day', clock() at time zone 'UTC') at time zone 'UTC' + d, s, $3, 2, 1, 1"
        " from (values (interval '0', 0), (interval '0', 1), (interval '-1 minute', 0)) x (d, s)",
        mine.scope.environment_id,
        UUID(mine.function_id),
        mine.scope.account_id,
    )
    day = (await pool.fetchval("select clock()")).astimezone(UTC).date().isoformat()
    for name in names:
        answer = await client.get(f"/v1/prom/{name}", headers=mine.bearer)
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        assert lines == [
            f'stepwell_function_runs_made_total{{fn="shop-order",date="{day}"}} 4',
            f'stepwell_function_runs_ended_total{{fn="shop-order",status="completed",date="{day}"}} 2',
            f'stepwell_function_runs_ended_total{{fn="shop-order",status="failed",date="{day}"}} 2',
            f'stepwell_function_runs_ended_total{{fn="shop-order",status="cancelled",date="{day}"}} 0',
        ]
    assert (await client.get("/v1/prom/another", headers=mine.bearer)).status_code == 404
