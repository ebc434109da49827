"""Composition root of the worker process: settings become pools, an engine and an arq worker around it.

The engine starts before arq and apart from it, so that runs go on while Redis is away; arq is a supervised task that
comes back by itself. On SIGTERM or SIGINT the engine stops leasing, lets calls end for a while, and hands back the rest.
"""

import asyncio
import logging
import os
import signal
import socket

import uvloop

from app.accounts import outbox
from app.accounts.outbox import PostOffice
from app.accounts.resolve import SigningKeys
from app.adapters.arq import BellWorker, redis_settings, run_supervised
from app.adapters.http import HttpCaller
from app.adapters.mail import Post
from app.adapters.otlp import SpanExporter
from app.adapters.redis import Bell
from app.adapters.sealing import Sealer
from app.billing.standing import House
from app.config import Mode, Settings, load
from app.domain.addresses import gate_around
from app.domain.subscription import Payments
from app.engine import pause_points
from app.engine.catalogue import Catalogue
from app.engine.engine import Engine, EngineSettings
from app.engine.vitals import Vitals
from app.logs import about, configure
from app.store.db import open_engine_pool
from app.store.late_pool import LatePool
from workers.billing import Billing
from workers.jobs import BILLING, ENGINE, JOBS, POST_OFFICE

log = logging.getLogger(__name__)

#: Connections of a worker (architecture 6, row "pools").
_ENGINE_CONNECTIONS, _COLD_CONNECTIONS = 4, 3
#: Seconds of a stop that are kept for handing back what is left, and for closing connections; calls in flight get the rest.
HAND_BACK_S, CLOSE_S = 4.0, 3.0
#: Seconds; the longest pause of calls to an app that does not answer. On a laptop somebody waits for it.
_DEV_HOLD_S = 5.0


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
    is_dev = settings.mode is Mode.DEV
    caller = HttpCaller(
        gate_around(
            listens_at=(settings.host, settings.port),
            services=(settings.database_url, settings.redis_url, settings.base_url),
            allow_private=settings.allow_private_apps or is_dev,
        )
    )
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
            retention=settings.retention,
            **({"longest_hold_s": _DEV_HOLD_S} if is_dev else {}),
        ),
        sealer,
    )
    post = Post(settings.smtp_url, settings.mail_from) if settings.smtp_url else None
    post_office = PostOffice(cold, sealer, post)
    billing = Billing(
        cold,
        House(
            settings.base_url,
            outbox.putter(sealer, is_wanted=settings.smtp_url is not None),
            is_hosted=settings.hosted and not is_dev,
        ),
        _stripe(settings),
    )
    spans = SpanExporter(settings.otlp_endpoint, "stepwell-worker", settings.worker_name or str(os.getpid()))
    if settings.otlp_endpoint:
        spans.start()
    vitals = Vitals(cold, "worker", settings.worker_name or "", {"engine": pool, "cold": cold}, engine.look)
    vitals.start()
    await engine.start()
    arq = asyncio.create_task(
        run_supervised(
            lambda: BellWorker(
                JOBS,
                redis_settings=redis_settings(settings.redis_url),
                ctx={ENGINE: engine, POST_OFFICE: post_office, BILLING: billing},
            )
        )
    )
    mail = asyncio.create_task(post_office.run())
    accounts = asyncio.create_task(billing.run())
    log.info("worker ready", extra={"worker_id": str(engine.worker_id), "pid": os.getpid()})
    await stop.wait()
    log.info("worker stops", extra={"in_flight": engine.execute.in_flight})
    arq.cancel()
    mail.cancel()
    accounts.cancel()
    await engine.stop(calls_may_take(settings), HAND_BACK_S)
    try:
        async with asyncio.timeout(CLOSE_S):
            await asyncio.gather(arq, mail, accounts, return_exceptions=True)
            await vitals.stop()
            if settings.otlp_endpoint:
                await spans.stop()
            await caller.close()
            await asyncio.gather(bell.close(), cold.stop(), pool.stop())
    except TimeoutError:
        log.warning("connections are left to their end; everything is handed back")


def _stripe(settings: Settings) -> Payments | None:
    """The client of these settings; the large library is loaded only where something is sold."""
    if settings.stripe is None:
        return None
    from app.adapters.stripe import Stripe  # See above.

    s = settings.stripe
    return Stripe.of(s.key, s.webhook_secret, s.prices, s.meter, s.url)


def calls_may_take(settings: Settings) -> float:
    """Give the seconds calls in flight may still take after a stop was asked for (F5)."""
    return max(0.0, settings.stop_within.total_seconds() - HAND_BACK_S - CLOSE_S)


def main() -> None:
    """Entry of `stepwell worker` and of the supervisor's children."""
    settings = load(os.environ)
    configure(settings)
    if settings.worker_name is None:
        about(worker=f"{socket.gethostname()}:{os.getpid()}")
    pause_points.arm(os.environ, settings.data_dir)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
