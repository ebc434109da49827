"""Composition root of the worker process: settings become pools, an engine and an arq worker around it.

The engine starts before arq and apart from it, so that runs go on while Redis is away; arq is a supervised task that
comes back by itself. On SIGTERM or SIGINT the engine stops leasing, lets calls end for a while, and hands back the rest.
"""

import asyncio
import logging
import os
import signal
from urllib.parse import urlsplit

import uvloop

from app.accounts.resolve import SigningKeys
from app.adapters.arq import BellWorker, redis_settings, run_supervised
from app.adapters.http import AiohttpCaller
from app.adapters.redis import Bell
from app.adapters.sealing import Sealer
from app.config import Mode, Settings, load
from app.domain.addresses import Gate
from app.engine.catalogue import Catalogue
from app.engine.engine import Engine, EngineSettings
from app.logs import configure
from app.store.db import open_engine_pool
from app.store.late_pool import LatePool
from workers.jobs import ENGINE, JOBS

log = logging.getLogger(__name__)

#: Connections of a worker (architecture 6, row "pools").
_ENGINE_CONNECTIONS, _COLD_CONNECTIONS = 4, 3
#: Seconds calls in flight may still take after a stop was asked for (F5: 30 s in all).
_GRACE_S = 25.0


def gate_of(settings: Settings) -> Gate:
    """What may be called: private addresses only where the settings say so, our own services never."""
    own = {(settings.host, settings.port)}
    for url, default in ((settings.database_url, 5432), (settings.redis_url, 6379), (settings.base_url, 443)):
        parts = urlsplit(url)
        if parts.hostname:
            own.add((parts.hostname, parts.port or (80 if parts.scheme == "http" else default)))
    return Gate(allow_private=settings.allow_private_apps or settings.mode is Mode.DEV, own_addresses=frozenset(own))


async def run(settings: Settings) -> None:
    """Work until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pool = LatePool(lambda: open_engine_pool(settings.database_url, size=_ENGINE_CONNECTIONS))
    cold = LatePool(lambda: open_engine_pool(settings.database_url, size=_COLD_CONNECTIONS))
    await pool.start()
    await cold.start()
    bell = Bell(settings.redis_url)
    caller = AiohttpCaller(gate_of(settings))
    is_dev = settings.mode is Mode.DEV
    sealer = Sealer(settings.secret_key)
    catalogue = Catalogue(pool, SigningKeys(cold, sealer).of)
    engine = Engine(
        pool,
        cold,
        caller,
        bell,
        catalogue,
        EngineSettings(
            name=settings.worker_name or "",
            lease_s=settings.lease.total_seconds(),
            renew_s=settings.lease_renewal.total_seconds(),
            max_calls=settings.max_calls,
            call_timeout_s=settings.call_timeout.total_seconds(),
            server_kind="dev" if is_dev else "cloud",
            is_signed=not is_dev,
            retry_delay=settings.retry_delay,
        ),
        sealer,
    )
    await engine.start()
    arq = asyncio.create_task(
        run_supervised(
            lambda: BellWorker(JOBS, redis_settings=redis_settings(settings.redis_url), ctx={ENGINE: engine})
        )
    )
    log.info("worker ready", extra={"worker_id": str(engine.worker_id), "pid": os.getpid()})
    await stop.wait()
    log.info("worker stops", extra={"in_flight": engine.execute.in_flight})
    arq.cancel()
    await engine.stop(_GRACE_S)
    await asyncio.gather(arq, return_exceptions=True)
    await caller.close()
    await bell.close()
    await cold.stop()
    await pool.stop()


def main() -> None:
    """Entry of `stepwell worker` and of the supervisor's children."""
    settings = load(os.environ)
    configure(settings)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
