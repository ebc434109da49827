"""A worker process that is told to stop in the middle of a call hands the call back, and nothing is counted (F5)."""

import asyncio
import json
import signal
from pathlib import Path

import asyncpg

from app.domain.event import NewEvent
from app.domain.protocol.registration import read_registration
from app.engine.ingest import Ingest
from app.engine.sync import checks, register
from app.store.db import open_engine_pool
from tests.integration.accounts.world import SECRET_KEY, new_tenant, scope_of
from tests.integration.engine.world import PATIENCE_S
from tests.processes import environ, our_command, running

STOP_S = 8
CONFIG = {
    "id": "order",
    "name": "order",
    "triggers": [{"event": "order/sent"}],
    "steps": {"step": {"id": "step", "name": "step", "retries": {"attempts": 3}}},
}


async def test_f5_a_call_in_flight_is_handed_back_in_time_and_costs_no_attempt(database: str, tmp_path: Path) -> None:
    called = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An app that takes the call and works on it for ever."""
        await reader.readuntil(b"\r\n\r\n")
        called.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api/inngest"
    scope = scope_of(await new_tenant(database))
    pool = await open_engine_pool(database, size=2)
    ingest = Ingest(pool)
    ingest.start()
    config = {**CONFIG, "steps": {"step": {**CONFIG["steps"]["step"], "runtime": {"type": "http", "url": url}}}}  # type: ignore[index]
    body = {"appname": "shop", "url": url, "sdk": "js:v4.24.0", "framework": "", "functions": [config], "v": "0.1"}
    await register(pool, scope, read_registration(json.dumps(body).encode(), checks=checks()), kind="out_of_band")
    await ingest.add(scope, [NewEvent("order/sent", b"{}", 1_700_000_000_000)])
    settings = environ(
        DATABASE_URL=database,
        REDIS_URL="redis://127.0.0.1:1",
        STEPWELL_SECRET_KEY=SECRET_KEY,
        STEPWELL_ALLOW_PRIVATE_APPS="1",
        STEPWELL_STOP_SECONDS=str(STOP_S),
        STEPWELL_DATA_DIR=str(tmp_path),
    )
    with running("worker", our_command("workers.main"), settings, tmp_path) as worker:
        await asyncio.wait_for(called.wait(), PATIENCE_S * 3)
        worker.popen.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(worker.popen.wait, STOP_S * 10)
        assert code == 0, worker.said()
    owner = await asyncpg.connect(database)
    item = await owner.fetchrow("select worker_id, lease_id, attempt, redeliveries from items where kind = 'discover'")
    assert item is not None
    assert tuple(item) == (None, None, 0, 0)
    assert await owner.fetchval("select count(*) from workers") == 0
    assert await owner.fetchval("select count(*) from slots") == 0
    await owner.close()
    await ingest.stop()
    await pool.close()
    listener.close()
