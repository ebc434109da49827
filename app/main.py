"""Composition root of the web process: settings become pools, keys and a Litestar application.

Whoever adds a page or an endpoint adds its router to `ROUTERS`. The process starts without Postgres and without Redis;
until the database is there, what needs it answers 503 `storage_unavailable` with `Retry-After`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.types import ASGIApp, ControllerRouterHandler

from app.accounts import outbox
from app.accounts.bootstrap import DEV_SCOPE, ensure_dev_tenant
from app.accounts.branches import Branches
from app.accounts.passwords import Passwords
from app.accounts.plans import Plans
from app.accounts.providers import Asker
from app.accounts.resolve import Bearers, EventKeys, SigningKeys
from app.adapters.arq import open_pool as open_jobs
from app.adapters.otlp import SpanExporter
from app.adapters.outgoing import Outgoing
from app.adapters.redis import Bell
from app.adapters.sealing import Sealer
from app.billing.standing import House
from app.config import Mode, Settings, load
from app.domain.addresses import gate_around
from app.domain.subscription import Payments
from app.engine.catalogue import Catalogue
from app.engine.changes import Changes
from app.engine.clock import DatabaseClock
from app.engine.discovery import Discovery
from app.engine.ingest import Ingest
from app.engine.vitals import Vitals
from app.logs import configure
from app.store.db import Pool, open_engine_pool, open_page_pool
from app.store.late_pool import LatePool
from app.web import errors, health, metrics
from app.web.api import cancellations, checkpoint, invoke, openapi, prom, register, runs, signals, stripe_webhook, v2
from app.web.api.events import EventsDoor
from app.web.app_calls import AppCalls
from app.web.assets import Assets, serve_asset
from app.web.guards import DEPENDENCIES
from app.web.headers import Headers
from app.web.live import Signals, listening
from app.web.load import Load
from app.web.pages import (
    apps,
    auth,
    billing,
    bulk,
    components,
    environments,
    error_groups,
    event_keys,
    event_types,
    events,
    functions,
    go,
    operator,
    overrides,
    overview,
    providers,
    recovery,
    run_actions,
    sign_up,
    signing_keys,
    start,
)
from app.web.pages import runs as run_pages
from app.web.pages import settings as settings_pages
from app.web.site import Site, provide_site
from app.web.templates import template_config

INGEST_CONNECTIONS, PAGE_CONNECTIONS, OPERATIONS_CONNECTIONS = 4, 6, 2
POOL_WAIT_S = 2.0
"""Seconds anybody waits for a free connection of these (L15); then the answer is 503."""

ROUTERS: tuple[ControllerRouterHandler, ...] = (
    # Probes.
    health.health,
    health.ready,
    metrics.metrics,
    # Machines: events have their own door (`_with_events`); registration, runs, checkpoints.
    register.ROUTER,
    register.dev,
    runs.ROUTER,
    checkpoint.ROUTER,
    signals.ROUTER,
    invoke.ROUTER,
    cancellations.ROUTER,
    prom.ROUTER,
    v2.ROUTER,
    v2.LONG_ROUTER,
    *openapi.HANDLERS,
    stripe_webhook.receive,
    # People.
    auth.ROUTER,
    sign_up.ROUTER,
    providers.ROUTER,
    recovery.ROUTER,
    settings_pages.ROUTER,
    environments.ROUTER,
    event_keys.ROUTER,
    signing_keys.ROUTER,
    start.ROUTER,
    run_pages.ROUTER,
    overview.ROUTER,
    go.ROUTER,
    events.ROUTER,
    event_types.ROUTER,
    functions.ROUTER,
    error_groups.ROUTER,
    overrides.ROUTER,
    apps.ROUTER,
    components.ROUTER,
    run_actions.ROUTER,
    bulk.ROUTER,
    operator.ROUTER,
    billing.ROUTER,
    serve_asset,
)


def create_app(settings: Settings | None = None, *, routers: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    """Make the application; `uvicorn --factory app.main:create_app`. `routers` are added to `ROUTERS` (tests do)."""
    settings = settings or load(os.environ)
    configure(settings)
    site = make_site(settings)
    assets = Assets(watches=site.is_dev)
    application = Litestar(
        route_handlers=[*ROUTERS, *routers],
        dependencies={"site": Provide(provide_site), **DEPENDENCIES},
        exception_handlers=errors.HANDLERS,
        lifespan=[_lifespan],
        template_config=template_config(assets, auto_reload=site.is_dev),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    application.state.site = site
    application.state.assets = assets
    application.state.signals = Signals(site.bell.subscribe)
    application.state.openapi = openapi.text(application)
    application.state.app_calls = AppCalls(site.ingest, site.outgoing, site.signing_keys.of, site.server_kind)
    application.state.settings = settings
    bodies = Load()
    application.state.bodies = bodies
    # Around everything, so that answers to unknown paths have the headers too.
    headed = Headers(application.asgi_handler, is_dev=site.is_dev, is_https=site.is_https)
    application.asgi_handler = _with_events(
        bodies.bounded(headed),
        EventsDoor(site.events, site.event_keys, site.branches, site.plans, site.server_kind, bodies),
    )
    return application


def _with_events(rest: ASGIApp, door: EventsDoor) -> ASGIApp:
    """Events go past the framework: it would cost more than storing them."""

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/e/"):
            await door(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return handle


def make_site(settings: Settings) -> Site:
    """Make what handlers share. Nothing is opened yet."""
    is_dev = settings.mode is Mode.DEV
    sealer = Sealer(settings.secret_key)

    async def open_ingest() -> Pool:
        pool = await open_engine_pool(settings.database_url, size=INGEST_CONNECTIONS)
        if is_dev:
            async with pool.acquire() as conn, conn.transaction():
                await ensure_dev_tenant(conn, sealer)
        return pool

    async def open_pages() -> Pool:
        return await open_page_pool(settings.database_url, size=PAGE_CONNECTIONS)

    ingest = LatePool(open_ingest, longest_wait=POOL_WAIT_S)
    pages = LatePool(open_pages, longest_wait=POOL_WAIT_S)
    operations = LatePool(lambda: open_engine_pool(settings.database_url, size=OPERATIONS_CONNECTIONS))
    clock = DatabaseClock()
    bell = Bell(settings.redis_url)
    signing_keys = SigningKeys(ingest, sealer)
    asker = _asker(settings)
    anyone = DEV_SCOPE if is_dev else None
    return Site(
        base_url=settings.base_url,
        is_dev=is_dev,
        ingest=ingest,
        pages=pages,
        operations=operations,
        sealer=sealer,
        passwords=Passwords(),
        event_keys=EventKeys(ingest, anyone=anyone),
        bearers=Bearers(ingest, anyone=anyone),
        signing_keys=signing_keys,
        events=Ingest(ingest, bell.ring),
        bell=bell,
        jobs=open_jobs(settings.redis_url),
        changes=Changes(ingest, clock, settings.retry_delay),
        clock=clock,
        catalogue=Catalogue(ingest, signing_keys.of),
        branches=Branches(ingest),
        plans=Plans(ingest),
        outgoing=Outgoing(
            gate_around(
                listens_at=(settings.host, settings.port),
                services=(settings.database_url, settings.redis_url, settings.base_url),
                allow_private=settings.allow_private_apps or is_dev,
            )
        ),
        sign_up=settings.sign_up,
        sends_mail=settings.smtp_url is not None and not is_dev,
        login_providers=settings.login_providers,
        asker=asker,
        metrics=settings.metrics,
        house=House(
            settings.base_url,
            outbox.putter(sealer, is_wanted=settings.smtp_url is not None and not is_dev),
            is_hosted=settings.hosted and not is_dev,
        ),
        stripe=_stripe(settings),
        operators=settings.operators or (() if settings.hosted or settings.sign_up == "open" else None),
    )


def _asker(settings: Settings) -> Asker | None:
    """The door to login providers, where there are any: what it loads takes 7 MB and half a second."""
    if not settings.login_providers:
        return None
    from app.adapters.oauth import door_to

    return door_to(
        settings.login_providers,
        listens_at=(settings.host, settings.port),
        services=(settings.database_url, settings.redis_url, settings.base_url),
        is_hosted=settings.hosted,
    )


def _stripe(settings: Settings) -> Payments | None:
    """The client of these settings; the large library is loaded only where something is sold."""
    if settings.stripe is None:
        return None
    from app.adapters.stripe import Stripe  # See above.

    s = settings.stripe
    return Stripe.of(s.key, s.webhook_secret, s.prices, s.meter, s.url)


@asynccontextmanager
async def _lifespan(application: Litestar) -> AsyncIterator[None]:
    site: Site = application.state.site
    settings: Settings = application.state.settings
    vitals = Vitals(site.operations, "web", pools={"ingest": site.ingest, "pages": site.pages})
    spans = SpanExporter(settings.otlp_endpoint, "stepwell-web", str(os.getpid()))
    try:
        await asyncio.gather(site.ingest.start(), site.pages.start(), site.operations.start())
        site.events.start()
        site.changes.start()
        vitals.start()
        if settings.otlp_endpoint:
            spans.start()
        async with _discovery(site, settings), listening(application.state.signals):
            yield
    finally:
        await vitals.stop()
        if settings.otlp_endpoint:
            await spans.stop()
        await application.state.app_calls.stop()
        await site.outgoing.close()
        if site.asker is not None:
            await site.asker.close()
        if site.stripe is not None:
            await site.stripe.close()
        await site.events.stop()
        await site.changes.stop()
        await site.bell.close()
        await site.jobs.aclose(close_connection_pool=True)
        await site.pages.stop()
        await site.operations.stop()
        await site.ingest.stop()
        site.passwords.close()


@asynccontextmanager
async def _discovery(site: Site, settings: Settings) -> AsyncIterator[None]:
    """In dev, look for apps on this machine while the process lives."""
    if not site.is_dev or not (settings.discovery or settings.app_urls):
        yield
        return
    discovery = Discovery(site.ingest, site.outgoing, DEV_SCOPE, settings.app_urls, settings.discovery, settings.port)
    task = asyncio.create_task(discovery.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
