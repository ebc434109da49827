"""Backup and restore, rehearsed: a dump of a house at work, put into a fresh server, where everything goes on (F25)."""

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import click
import pytest

from app.accounts.bootstrap import bootstrap
from app.accounts.resolve import SigningKeys
from app.adapters.sealing import Sealer
from app.cli.backup import back_up, count_closed, put_back
from app.domain.ids import EnvironmentId
from app.engine.catalogue import Catalogue
from app.engine.engine import Engine, EngineSettings
from app.engine.ingest import Ingest
from app.store.db import open_engine_pool
from app.supervise.children import Supervisor
from app.supervise.servers import await_postgres, prepare_postgres
from app.supervise.state import State
from tests.integration.engine.world import Gate, World, new_world, ops, result, sleeps, waits
from tests.invariants import violations

SECRET_KEY = "0123456789abcdef" * 4
_FAST = (("fsync", "off"), ("synchronous_commit", "off"), ("shared_buffers", "32MB"))


@pytest.fixture
def fresh_server(open_folder: Path) -> Iterator[str]:
    """Give the address of an empty database on a server that has never seen Stepwell."""
    state = State(open_folder / "fresh", "up")
    state.lock()
    supervisor = Supervisor(lambda _name, _line: None)
    postgres = prepare_postgres(state, _FAST)
    await_postgres(supervisor, postgres)
    yield postgres.url
    supervisor.stop()
    state.release()


def nap(call: Any) -> Any:
    return result("rested") if "nap" in call.steps else ops(sleeps("nap", "1h"))


def patient(call: Any) -> Any:
    return result(call.steps["wait"]) if "wait" in call.steps else ops(waits("wait", "answer/sent"))


async def test_runs_go_on_in_a_fresh_server(database: str, fresh_server: str, open_folder: Path) -> None:
    async with new_world(database) as world:
        made = await bootstrap(
            database_url=database, secret_key=SECRET_KEY, base_url="http://x", email="a@example.com",
            password="correct horse battery staple", organization="Shop", environment="production",
        )  # fmt: skip
        gate = Gate()
        await world.function("nap", nap)
        await world.function("patient", patient)
        await world.function("busy", gate)
        first = await world.engine()
        asleep, waiting = await world.begin("nap"), await world.begin("patient")
        await world.quiet(asleep, "sleeping")
        await world.quiet(waiting)
        busy = await world.begin("busy")
        _, answer = await gate.next()
        await asyncio.to_thread(back_up, database, open_folder / "backup")
        answer.set_result(result())
        await world.ended(busy)
        await world.kill(first)
        calls = len(world.apps.calls)

        with pytest.raises(click.ClickException, match="no Stepwell in this database"):
            await asyncio.to_thread(back_up, fresh_server, open_folder / "nothing")
        assert "nothing" not in await asyncio.to_thread(os.listdir, open_folder)
        with pytest.raises(click.ClickException, match="restore into an empty one"):
            await asyncio.to_thread(put_back, database, open_folder / "backup")
        await asyncio.to_thread(put_back, fresh_server, open_folder / "backup")
        # An hour and more goes by before somebody starts Stepwell there: leases ran out, timers are overdue.
        name = "alter database stepwell set stepwell.clock_offset = '2 hours'"
        owner = await asyncpg.connect(fresh_server)
        await owner.execute(name)
        await owner.close()
        world.apps.scripts["busy" if "busy" in world.apps.scripts else "shop-busy"] = lambda _call: result("again")
        await _goes_on(world, fresh_server, {asleep, waiting, busy}, calls)

    assert await count_closed(fresh_server, SECRET_KEY) == 0
    assert await count_closed(fresh_server, SECRET_KEY[::-1]) > 0
    pool = await open_engine_pool(fresh_server, size=1)
    environment = await pool.fetchval("select environment_id from signing_keys limit 1")
    assert list(await SigningKeys(pool, Sealer(SECRET_KEY)).of(EnvironmentId(environment))) == [made["signing_key"]]
    await pool.close()


async def _goes_on(world: World, url: str, runs: set[Any], calls: int) -> None:
    """A worker in the restored house ends what was asleep, waiting or with a worker that is no more; each once."""
    pool, cold = await open_engine_pool(url, size=4), await open_engine_pool(url, size=3)

    async def keys(_environment: EnvironmentId) -> list[str]:
        return []

    settings = EngineSettings(is_signed=False, retry_delay=timedelta(0))
    engine = Engine(pool, cold, world.apps, world.bell, Catalogue(pool, keys), settings)
    ingest = Ingest(pool, world.bell.ring)
    ingest.start()
    await engine.start()
    before, world.ingest = world.ingest, ingest
    await world.send("answer/sent", {"n": 1})
    await world.until(
        lambda: pool.fetchval("select count(*) = 0 from runs where id = any($1) and ended_at is null", list(runs))
    )
    world.ingest = before
    later = world.apps.calls[calls:]
    assert {call.run_id for call in later} == runs
    assert len(later) == len(runs), "what was done before the backup is not done again"
    found = await pool.fetch("select id, status from runs where id = any($1)", list(runs))
    assert {row["status"] for row in found} == {"completed"}
    await engine.stop(1.0)
    await ingest.stop()
    owner = await asyncpg.connect(url)
    assert await violations(owner) == []
    await owner.close()
    await pool.close()
    await cold.close()
