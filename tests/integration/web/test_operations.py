"""`/metrics` and `/operator`: for those who run the installation, and nothing there for anybody else."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog

from app import telemetry
from app.engine.vitals import Vitals
from app.reads.operations import check_invariants, load_house
from app.store.db import Pool, open_engine_pool
from app.web import errors
from tests.integration.accounts.world import new_tenant
from tests.integration.web.site import log_in, running, settings_for

TOKEN = "a-token-of-the-operators"


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Any]:
    """Give a connection that may do anything."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.execute("truncate workers, process_metrics, repairs, inbox")
    await connection.close()


async def test_metrics_that_are_off_are_not_there(database: str) -> None:
    async with running(settings_for(database)) as client:
        assert (await client.get("/metrics")).status_code == 404


async def test_metrics_for_this_machine_are_not_there_for_others(database: str) -> None:
    # The client of the tests has no address, as one behind a proxy that says none.
    async with running(settings_for(database, STEPWELL_METRICS="loopback")) as client:
        assert (await client.get("/metrics")).status_code == 404


async def test_metrics_need_the_token_and_show_every_process_and_the_queue(database: str, owner: Any) -> None:
    async with running(settings_for(database, STEPWELL_METRICS=TOKEN)) as client:
        for header in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Basic {TOKEN}"}):
            assert (await client.get("/metrics", headers=header)).status_code == 401
        await owner.execute("insert into repairs (kind, count) values ('rescue', 5)")
        pool = await open_engine_pool(database, size=2)
        vitals = Vitals(pool, "worker", 'odd"name', {"engine": pool}, lambda: telemetry.gauge("stepwell_items_held", 4))
        await vitals.publish()
        answer = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        await vitals.stop()
        await pool.close()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    assert 'stepwell_items_held{process="odd\\"name",kind="worker"} 4' in text
    assert 'stepwell_repaired_total{kind="rescue"} 5' in text
    assert 'stepwell_queue_items{gate="ready"} 0' in text
    assert re.search(r"stepwell_partition_days_ahead [67]\n", text)
    assert re.search(r'stepwell_memory_bytes\{process="web@[^"]+",kind="web"\} \d{7,}', text)
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {m.name for m in telemetry.METRICS if m.of == "database"} <= names
    assert await owner.fetchval("select count(*) from process_metrics where name = 'odd\"name'") == 0


async def test_the_page_shows_a_house_that_is_well_and_one_that_is_not(database: str, owner: Any) -> None:
    tenant = await new_tenant(database)
    async with running(settings_for(database)) as client:
        await log_in(client, tenant)
        await owner.execute(
            "insert into workers (id, name, host, pid, lease_until) values ($1, 'worker-1', 'one', 1, clock() + '30 s')",
            uuid4(),
        )
        answer = await client.get("/operator")
        assert answer.status_code == 200
        assert "nothing is stuck" in answer.text
        assert "worker-1" in answer.text
        await owner.execute("update workers set lease_until = clock() - interval '1 minute'")
        part = await client.get(
            "/operator", headers={"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "div#house"}
        )
        assert "<html" not in part.text
        assert "No worker is alive" in part.text
        assert "Expired" in part.text


async def test_the_page_is_not_there_for_people_who_do_not_run_the_installation(database: str) -> None:
    tenant = await new_tenant(database)
    for more, status in (
        ({"STEPWELL_SIGN_UP": "open"}, 404),
        ({"STEPWELL_HOSTED": "1", "STEPWELL_BASE_URL": "http://testserver"}, 404),
        ({"STEPWELL_SIGN_UP": "open", "STEPWELL_OPERATORS": "somebody@else.example"}, 404),
        ({"STEPWELL_SIGN_UP": "open", "STEPWELL_OPERATORS": f"x@y.example, {tenant['user'].upper()}"}, 200),
    ):
        async with running(settings_for(database, **more)) as client:
            token = await log_in(client, tenant)
            assert (await client.get("/operator")).status_code == status, more
            checked = await client.post("/operator/check", data={"csrf_token": token})
            assert checked.status_code == status, more


async def test_the_invariants_are_asked_of_the_live_database(database: str, owner: Any) -> None:
    tenant = await new_tenant(database)
    async with running(settings_for(database)) as client:
        token = await log_in(client, tenant)
        answer = await client.post("/operator/check", data={"csrf_token": token})
        assert "hold.</p>" in answer.text
        assert "Broken" not in answer.text
        await owner.execute(
            "insert into inbox (environment_id, event_id, received_at, account_id) values ($1, $2, clock(), $3)",
            uuid4(), uuid4(), uuid4(),
        )  # fmt: skip
        answer = await client.post("/operator/check", data={"csrf_token": token})
        assert "1 of " in answer.text
        assert "I23-inbox" in answer.text
        assert (await client.post("/operator/check")).status_code == 403


async def test_what_is_not_checked_in_time_is_said_so(engine_pool: Pool) -> None:
    checked = await check_invariants(engine_pool, within_s=-1)
    assert len(checked) > 30
    assert {c.rows for c in checked} == {None}
    assert await engine_pool.fetchval("show enable_seqscan") == "off"


async def test_the_queue_is_counted_by_what_it_waits_for(database: str, owner: Any, engine_pool: Pool) -> None:
    ids = [uuid4() for _ in range(6)]
    limit, key, free, held = ids[:4]
    await owner.execute(
        "insert into flow_limits (id, account_id, environment_id, kind, cap) values ($1, $1, $1, 'throttle', 1)", limit
    )
    for lane, by in ((free, None), (held, key)):
        await owner.execute(
            "insert into lanes (id, account_id, environment_id, function_id, key, flow_key_ids, limit_ids, blocked_by)"
            " values ($1, $1, $1, $1, '', array[$2::uuid], array[$3::uuid], $4)",
            lane, key, limit, by,
        )  # fmt: skip
    for lane, due, is_held in ((free, "-5 s", False), (held, "-9 s", False), (held, "-9 s", False), (free, "1 h", False), (free, "1 h", True)):  # fmt: skip
        await owner.execute(
            "insert into items (id, account_id, environment_id, function_id, run_id, lane_id, key, kind, due_at, held_due)"
            " values ($1, $1, $1, $1, $1, $2, '', 'discover', clock() + $3::text::interval, case when $4 then clock() end)",
            uuid4(), lane, due, is_held,
        )  # fmt: skip
    async with engine_pool.acquire() as connection:
        house = await load_house(connection)
    assert {gate: n for gate, n in house.queue.items() if n} == {"ready": 1, "throttle": 2, "later": 1, "paused": 1}
    assert 5 <= house.oldest_due_s < 600
    await owner.execute("truncate items, lanes, flow_limits")
    json.dumps(house.measured())


async def test_lines_about_a_request_carry_its_id(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A logger keeps the stream of its first line, which may have been another test's.
    monkeypatch.setattr(errors, "log", structlog.get_logger())
    async with running(settings_for(database)) as client:
        answer = await client.get("/v1/fail/crash")
    assert answer.status_code == 500
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "request.failed" in line]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"]]
