"""arq's loop on our terms against a real server: woken by the bell, restarted whatever happens to Redis."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arq.connections import ArqRedis

from app.adapters.arq import (
    BellWorker,
    JobName,
    enqueue,
    from_json,
    job,
    open_pool,
    redis_settings,
    run_supervised,
    to_json,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

RedisServer = Any
Run = Callable[..., Awaitable[None]]


class Seen:
    """What ran, in order, and a way to wait for it."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.more = asyncio.Condition()

    async def run(self, _ctx: dict[str, Any], **kwargs: Any) -> None:
        async with self.more:
            self.calls.append(kwargs)
            self.more.notify_all()

    async def until(self, wanted: Callable[[list[dict[str, Any]]], bool], *, within: float = 20) -> None:
        async with asyncio.timeout(within), self.more:
            await self.more.wait_for(lambda: wanted(self.calls))


@asynccontextmanager
async def supervised(server: RedisServer, run: Run, **options: Any) -> AsyncIterator[ArqRedis]:
    """A supervised worker with one job, and a pool to enqueue with."""
    pool = open_pool(server.url)
    settings = redis_settings(server.url)
    task = asyncio.create_task(
        run_supervised(
            lambda: BellWorker([job(JobName.DRAIN, run)], redis_settings=settings, ctx={"who": "w"}), **options
        )
    )
    try:
        yield pool
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await pool.aclose()


async def test_a_job_gets_its_json_arguments_and_nothing_of_it_is_kept(redis_server: RedisServer) -> None:
    await redis_server.start()
    seen = Seen()
    async with supervised(redis_server, seen.run) as pool:
        assert await enqueue(pool, JobName.DRAIN, shard=3, names=["a", None])
        await seen.until(bool)
        assert seen.calls == [{"shard": 3, "names": ["a", None]}]
    for kind in ("arq:result:*", "arq:job:*", "arq:in-progress:*"):
        assert await redis_server.ask("EVAL", f"return #redis.call('keys', '{kind}')", "0") == b":0"


async def test_the_bell_wakes_an_idle_worker_much_sooner_than_its_own_look(redis_server: RedisServer) -> None:
    await redis_server.start()
    seen = Seen()
    async with supervised(redis_server, seen.run) as pool:
        took = []
        for n in range(8):
            began = time.monotonic()
            await enqueue(pool, JobName.DRAIN, n=n)
            await seen.until(lambda calls, n=n: len(calls) > n)  # type: ignore[misc]
            took.append(time.monotonic() - began)
        assert sorted(took)[3] < 0.3


async def test_a_job_that_raises_does_not_stop_the_loop_and_is_not_repeated(redis_server: RedisServer) -> None:
    await redis_server.start()
    seen = Seen()

    async def run(ctx: dict[str, Any], **kwargs: Any) -> None:
        await seen.run(ctx, **kwargs)
        if kwargs["n"] == 0:
            raise RuntimeError("the job's own fault")

    async with supervised(redis_server, run) as pool:
        await enqueue(pool, JobName.DRAIN, n=0)
        await seen.until(lambda calls: len(calls) == 1)
        await enqueue(pool, JobName.DRAIN, n=1)
        await seen.until(lambda calls: len(calls) == 2)
        assert seen.calls == [{"n": 0}, {"n": 1}]


async def test_without_redis_enqueueing_says_so_and_the_loop_waits_for_it(redis_server: RedisServer) -> None:
    seen = Seen()
    async with supervised(redis_server, seen.run) as pool:
        assert await enqueue(pool, JobName.DRAIN, n=0) is False
        await redis_server.start()
        async with asyncio.timeout(20):
            while not await enqueue(pool, JobName.DRAIN, n=1):  # noqa: ASYNC110 - the server's return is not announced
                await asyncio.sleep(0.05)
        await seen.until(lambda calls: {"n": 1} in calls)


async def test_the_loop_survives_kills_and_restarts_of_redis_and_runs_what_comes_after(
    redis_server: RedisServer,
) -> None:
    await redis_server.start()
    seen = Seen()
    async with supervised(redis_server, seen.run) as pool:
        for n in range(3):
            assert await enqueue(pool, JobName.DRAIN, n=n)
            await seen.until(lambda calls, n=n: {"n": n} in calls)  # type: ignore[misc]
            redis_server.kill()
            assert await enqueue(pool, JobName.DRAIN, n=-1) is False
            await redis_server.start()


async def test_an_emptied_redis_loses_nudges_and_nothing_else(redis_server: RedisServer) -> None:
    await redis_server.start()
    seen = Seen()
    async with supervised(redis_server, seen.run) as pool:
        for n in range(10):
            await enqueue(pool, JobName.DRAIN, n=n)
            await redis_server.ask("FLUSHALL")
        await enqueue(pool, JobName.DRAIN, n=99)
        await seen.until(lambda calls: {"n": 99} in calls)


async def test_stopping_lets_a_running_job_finish_within_its_grace(redis_server: RedisServer) -> None:
    await redis_server.start()
    started, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(_ctx: dict[str, Any]) -> None:
        started.set()
        await release.wait()
        ended.set()

    async with supervised(redis_server, run, grace_s=20) as pool:
        await enqueue(pool, JobName.DRAIN)
        await asyncio.wait_for(started.wait(), 20)
        asyncio.get_running_loop().call_later(0.1, release.set)
    assert ended.is_set()


async def test_stopping_cancels_a_job_that_outlives_its_grace(redis_server: RedisServer) -> None:
    await redis_server.start()
    started = asyncio.Event()
    was_cancelled = False

    async def run(_ctx: dict[str, Any]) -> None:
        nonlocal was_cancelled
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    async with supervised(redis_server, run, grace_s=0.05) as pool:
        await enqueue(pool, JobName.DRAIN)
        await asyncio.wait_for(started.wait(), 20)
    assert was_cancelled


async def test_arqs_own_arguments_cannot_be_smuggled_into_a_job(redis_server: RedisServer) -> None:
    pool = open_pool(redis_server.url)
    with pytest.raises(ValueError, match="underscore"):
        await enqueue(pool, JobName.DRAIN, _job_id="x")
    await pool.aclose()


async def test_settings_keep_percent_encoding_and_tls_options_of_the_url() -> None:
    settings = redis_settings("rediss://us%40er:p%3Aw%2F@h.example:7000/3?ssl_ca_certs=ca.pem&ssl_cert_reqs=required")
    assert (settings.username, settings.password, settings.host, settings.port) == ("us@er", "p:w/", "h.example", 7000)
    assert (settings.database, settings.ssl, settings.ssl_ca_certs, settings.ssl_check_hostname) == (
        3,
        True,
        "ca.pem",
        True,
    )
    assert redis_settings("unix:///run/redis.sock?db=2").unix_socket_path == "/run/redis.sock"


async def test_jobs_travel_as_json_and_never_as_pickles() -> None:
    assert from_json(to_json({"f": "drain", "k": {"n": 1}})) == {"f": "drain", "k": {"n": 1}}
    with pytest.raises(ValueError, match="JSON"):
        from_json(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00}\x94.")
    assert b"the text" in to_json({"r": RuntimeError("the text")})
