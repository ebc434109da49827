"""`stepwell web` and `stepwell worker`: one process each, against given servers. `up` starts these as its children."""

import importlib
import os

import click

from app.config import load
from app.engine import pause_points


@click.command()
@click.option("--host", help="Address to listen on (STEPWELL_HOST).")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (STEPWELL_PORT).")
def web(host: str | None, port: int | None) -> None:
    """Run one web process: the API for apps, the pages for people. Needs DATABASE_URL, REDIS_URL and a secret key."""
    if host is not None:
        os.environ["STEPWELL_HOST"] = host
    if port is not None:
        os.environ["STEPWELL_PORT"] = str(port)
    settings = load(os.environ)
    pause_points.arm(os.environ, settings.data_dir)
    uvicorn = importlib.import_module("uvicorn")
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        # Our own structured log lines say everything; a line per request would cost more than the request.
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=75,
        # Streams of pages stay open for ever, so a stop does not wait for them longer than this (seconds).
        timeout_graceful_shutdown=3,
    )


@click.command()
def worker() -> None:
    """Run one worker process: it leases due work and calls apps. Needs DATABASE_URL, REDIS_URL and a secret key."""
    load(os.environ)
    importlib.import_module("workers.main").main()
