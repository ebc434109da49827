"""arq on our terms: short jobs that carry a hint, a bell instead of its poll delay, JSON instead of pickles.

A job holds no work of its own: lost, doubled or late it changes nothing, because whoever runs it reads Postgres. So no
result is kept, no job id is chosen (an id in use or remembered swallows the next nudge), and nothing is scheduled here.
`run_supervised` keeps the loop alive through everything that happens to Redis; the engine starts before and beside it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, cast

import msgspec
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Function, Worker, func
from redis.asyncio.connection import ConnectionPool, SSLConnection

from app.adapters.redis import OUTSIDE, redis_options

#: What `open_pool` gives and `enqueue` takes.
JobQueue = ArqRedis

QUEUE: Final = "stepwell:arq"
BELL_KEY: Final = "stepwell:arq:bell"
#: Longest list of rings; one is enough to wake a worker.
_BELL_LENGTH: Final = 64
#: Seconds. How long an idle worker may overlook a lost ring; how long one look into the queue may take before the
#: connection is taken for dead; the first and the longest pause between two lives of the loop.
_LOOK_S: Final = 1.0
_STUCK_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
#: Seconds a job may take. A killed worker's job is stuck for this long plus ten, so it is short.
JOB_S: Final = 60.0

_log = logging.getLogger(__name__)


class JobName(StrEnum):
    """What can be asked of a worker. Everyone who enqueues and everyone who registers uses these."""

    DRAIN = "drain"
    KEEPER = "keeper"
    MAIL = "mail"
    USAGE = "usage"
    BULK = "bulk"


def redis_settings(url: str) -> RedisSettings:
    """Arq's settings of a Redis URL, with everything arq's own reading loses: percent-decoding, TLS options.

    arq cannot be told other options of the query; they are ignored here. Raises ValueError for a URL that is none.
    """
    options = redis_options(url)
    return RedisSettings(
        host=options.get("host", "localhost"),
        port=options.get("port", 6379),
        unix_socket_path=options.get("path"),
        database=options.get("db", 0),
        username=options.get("username"),
        password=options.get("password"),
        ssl=options.get("connection_class") is SSLConnection,
        ssl_keyfile=options.get("ssl_keyfile"),
        ssl_certfile=options.get("ssl_certfile"),
        ssl_cert_reqs=options.get("ssl_cert_reqs", "required"),
        ssl_ca_certs=options.get("ssl_ca_certs"),
        ssl_ca_data=options.get("ssl_ca_data"),
        ssl_check_hostname=options.get("ssl_check_hostname", False),
        conn_timeout=2,
        conn_retries=0,
    )


def open_pool(url: str) -> JobQueue:
    """A client for `enqueue`; connects when first used, so Redis may be absent. Close with `aclose()`."""
    options = redis_options(url) | {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
    return ArqRedis(
        ConnectionPool(**options),
        job_serializer=to_json,
        job_deserializer=from_json,
        default_queue_name=QUEUE,
    )


async def enqueue(pool: JobQueue, name: JobName, **kwargs: Any) -> bool:
    """Ask a worker to run job `name` soon, with JSON arguments. False when Redis is away: then a sweep will do it.

    Arguments that begin with an underscore would be arq's own and are refused.
    """
    if any(key.startswith("_") for key in kwargs):
        raise ValueError("job arguments may not begin with an underscore")
    try:
        await pool.enqueue_job(name.value, **kwargs)
        client: Any = pool  # redis-py leaves this method untyped.
        if await client.execute_command("LPUSH", BELL_KEY, b"1") > _BELL_LENGTH:
            await client.execute_command("LTRIM", BELL_KEY, 0, _BELL_LENGTH - 1)
    except OUTSIDE:
        return False
    return True


def job(name: JobName, run: Callable[..., Awaitable[Any]], *, timeout_s: float = JOB_S) -> Function:
    """A coroutine `run(ctx, **kwargs)` registered under a name; one try, no result kept, cut after `timeout_s`."""
    return func(cast("Any", run), name=name.value, keep_result=0, timeout=timeout_s, max_tries=1)


class BellWorker(Worker):
    """arq's worker without the poll delay: between two looks into the queue it blocks on the bell."""

    def __init__(
        self,
        functions: Sequence[Function],
        *,
        redis_settings: RedisSettings,
        ctx: Mapping[str, Any] | None = None,
        max_jobs: int = 10,
    ) -> None:
        """`ctx` is what every job gets, beside arq's `redis`; `max_jobs` run at the same time."""
        super().__init__(
            functions,
            queue_name=QUEUE,
            redis_settings=redis_settings,
            ctx=dict(ctx or {}),
            max_jobs=max_jobs,
            handle_signals=False,
            job_timeout=JOB_S,
            keep_result=0,
            poll_delay=_LOOK_S,
            max_tries=1,
            job_serializer=to_json,
            job_deserializer=from_json,
            log_results=False,
        )

    async def main(self) -> None:
        """Run until cancelled or until Redis fails. Does not ask for INFO, which managed servers forbid."""
        self._pool = await create_pool(
            self.redis_settings,
            job_serializer=self.job_serializer,
            job_deserializer=self.job_deserializer,
            default_queue_name=self.queue_name,
            expires_extra_ms=self.expires_extra_ms,
        )
        self.ctx["redis"] = client = cast("Any", self.pool)
        while True:
            async with asyncio.timeout(_STUCK_S):
                await self._poll_iteration()
                await client.execute_command("BLPOP", BELL_KEY, self.poll_delay_s)

    async def shut(self, grace_s: float) -> None:
        """Let running jobs finish for `grace_s` seconds, cancel the rest, hang up. Never raises for Redis' sake."""
        running = [task for task in self.tasks.values() if not task.done()]
        if running and grace_s > 0:
            await asyncio.wait(running, timeout=grace_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        if self._pool is not None:
            with contextlib.suppress(*OUTSIDE):
                await self._pool.aclose(close_connection_pool=True)
            self._pool = None


async def run_supervised(make_worker: Callable[[], BellWorker], *, grace_s: float = 5.0) -> None:
    """Run worker after worker until cancelled: whenever Redis goes away, wait a little longer and start anew.

    Cancelling stops picking jobs at once and gives running ones `grace_s` seconds. Faults of ours are raised.
    """
    loop = asyncio.get_running_loop()
    pause_s = _FIRST_PAUSE_S
    is_told = False
    while True:
        worker = make_worker()
        began = loop.time()
        try:
            await worker.main()
        except OUTSIDE as error:
            if not is_told:
                _log.warning("redis is away, nudges pause: %s", type(error).__name__)
        finally:
            await worker.shut(grace_s)
        if loop.time() - began > _STUCK_S:
            pause_s, is_told = _FIRST_PAUSE_S, False
        else:
            is_told = True
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def to_json(value: Mapping[str, Any]) -> bytes:
    """Arq's job description as JSON; what JSON cannot say (an exception of a failed job) as its text."""
    return msgspec.json.encode(value, enc_hook=repr)


def from_json(text: bytes) -> dict[str, Any]:
    """The inverse of `to_json`; raises for anything that is not a JSON object."""
    return msgspec.json.decode(text, type=dict[str, Any])
