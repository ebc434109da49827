"""The bell against a real server that is absent, killed, restarted and emptied (F6, I25)."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection

from app.adapters.redis import BELL_KEY, BELL_LENGTH, EVERYTHING, RUN_CHANGED, Bell, Heard, _joined, redis_options

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

RedisServer = Any


@asynccontextmanager
async def bell_of(server: RedisServer) -> AsyncIterator[Bell]:
    bell = Bell(server.url)
    try:
        yield bell
    finally:
        await bell.close()


async def waited(bell: Bell, *, within: float = 20) -> list[bytes]:
    """What the next successful wait hears, however many empty ones come before it."""
    async with asyncio.timeout(within):
        while not (lanes := await bell.wait(1)):
            pass
        return lanes


async def test_a_ring_wakes_a_waiter_in_another_process_with_its_lanes(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as here, bell_of(redis_server) as there:
        waiting = asyncio.create_task(there.wait(10))
        here.ring([b"a", b"b"])
        heard = set(await waiting)
        heard |= set(await there.wait(10)) if len(heard) < 2 else set()
        assert heard == {b"a", b"b"}
        assert here.is_up
        assert there.is_up


async def test_a_ring_without_lanes_means_everything(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        bell.ring()
        assert await waited(bell) == [EVERYTHING]


async def test_rings_of_one_moment_become_one_and_doubles_fall_together(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        for _ in range(500):
            bell.ring([b"a"])
        assert await waited(bell) == [b"a"]
        assert await bell.wait(0.05) == []


async def test_the_list_stays_bounded_however_often_it_is_rung(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        for start in range(0, 5000, 500):
            bell.ring(b"%d" % n for n in range(start, start + 500))
            bell.publish("x", start)  # Goes with the same round trip.
        while bell._lanes or (bell._sender is not None and not bell._sender.done()):
            assert bell._sender is not None
            await bell._sender
        assert int((await redis_server.ask("LLEN", BELL_KEY))[1:]) <= BELL_LENGTH
        assert len(await bell.wait(1, count=7)) <= 7


async def test_a_wait_without_a_ring_ends_at_its_timeout_and_empty(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        began = time.monotonic()
        assert await bell.wait(0.3) == []
        assert 0.25 < time.monotonic() - began < 5
        assert bell.is_up


async def test_without_redis_nothing_raises_and_a_wait_is_a_growing_pause(redis_server: RedisServer) -> None:
    async with bell_of(redis_server) as bell:
        bell.publish("x", {"a": 1})
        pauses = []
        for _ in range(5):
            began = time.monotonic()
            assert await bell.wait(0.4) == []
            pauses.append(time.monotonic() - began)
        assert not bell.is_up
        assert all(pause > 0.02 for pause in pauses)
        assert pauses[-1] > pauses[0]


async def test_without_redis_a_ring_wakes_the_waiter_of_the_same_process(redis_server: RedisServer) -> None:
    async with bell_of(redis_server) as bell:
        while bell._pause_s < 1:
            await bell.wait(1)
        waiting = asyncio.create_task(bell.wait(30))
        await asyncio.sleep(0)
        bell.ring([b"a"])
        assert await asyncio.wait_for(waiting, 10) == [b"a"]


async def test_redis_that_comes_later_is_found_and_what_was_rung_before_is_heard(redis_server: RedisServer) -> None:
    async with bell_of(redis_server) as bell, bell_of(redis_server) as other:
        bell.ring([b"early"])
        assert bell._sender is not None
        await bell._sender
        await redis_server.start()
        heard: set[bytes] = set()
        async with asyncio.timeout(20):
            while not (heard >= {b"early", b"late"} and bell.is_up):
                bell.ring([b"late"])
                heard.update(await other.wait(0.1))
        assert bell.is_up


async def test_a_killed_and_restarted_redis_is_found_again_by_waiters_ringers_and_listeners(
    redis_server: RedisServer,
) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell, bell_of(redis_server) as other:
        listening = other.subscribe(RUN_CHANGED + "*")
        assert await anext(listening) == Heard("", None)
        bell.ring([b"before"])
        assert await waited(other) == [b"before"]
        for _ in range(2):
            waiting = asyncio.create_task(other.wait(30))
            await asyncio.sleep(0.05)
            redis_server.kill()
            assert await asyncio.wait_for(waiting, 10) == []
            bell.ring([b"lost"])
            await redis_server.start()
            assert await asyncio.wait_for(anext(listening), 20) == Heard("", None)
            async with asyncio.timeout(20):
                while not (lanes := await other.wait(0.1)):
                    bell.ring([b"after"])
            assert set(lanes) <= {b"lost", b"after"}
            bell.publish(RUN_CHANGED + "r1", {"n": 1})
            assert await asyncio.wait_for(anext(listening), 20) == Heard(RUN_CHANGED + "r1", {"n": 1})
        await listening.aclose()  # type: ignore[attr-defined]


async def test_an_emptied_redis_changes_nothing_but_what_was_in_it(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        waiting = asyncio.create_task(bell.wait(20))
        for _ in range(20):
            await redis_server.ask("FLUSHALL")
        bell.ring([b"a"])
        assert await waiting == [b"a"]
        assert bell.is_up


async def test_a_frozen_redis_costs_seconds_and_not_for_ever(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        assert await bell.wait(0.05) == []
        redis_server.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            bell.ring([b"a"])
            assert await bell.wait(0.2) in ([], [b"a"])
            assert time.monotonic() - began < 5
            assert not bell.is_up
        finally:
            redis_server.process.send_signal(signal.SIGCONT)
        bell.ring([b"a"])
        assert await waited(bell) == [b"a"]
        async with asyncio.timeout(20):
            while not bell.is_up:
                await bell.wait(0.05)


async def test_an_old_server_without_blmpop_is_served_with_brpop(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        bell._has_blmpop = False
        bell.ring([b"a", b"b", b"c"])
        assert set(await waited(bell)) == {b"a", b"b", b"c"}
        assert await bell.wait(0.05) == []


async def test_a_wrong_password_is_an_absent_redis(redis_server: RedisServer) -> None:
    await redis_server.start()
    bell = Bell(f"redis://:wrong@127.0.0.1:{redis_server.port}")
    bell.ring([b"a"])
    assert await bell.wait(0.1) in ([], [b"a"])
    assert not bell.is_up
    await bell.close()


async def test_messages_reach_only_matching_listeners_and_foreign_bytes_are_skipped(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        listening = bell.subscribe(RUN_CHANGED + "*")
        assert await anext(listening) == Heard("", None)
        bell.publish("other:1", "no")
        await redis_server.ask("PUBLISH", RUN_CHANGED + "1", "not json \x80")
        bell.publish(RUN_CHANGED + "2", ["yes", None, 1.5])
        assert await anext(listening) == Heard(RUN_CHANGED + "2", ["yes", None, 1.5])
        await listening.aclose()  # type: ignore[attr-defined]


async def test_a_cancelled_wait_leaves_the_bell_usable(redis_server: RedisServer) -> None:
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        for _ in range(10):
            waiting = asyncio.create_task(bell.wait(30))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        while int((await redis_server.ask("LLEN", BELL_KEY))[1:]) == 0:
            bell.ring([b"a"])  # A server that has not noticed the cancelled ones yet may hand them a ring.
            await asyncio.sleep(0.01)
        assert await waited(bell) == [b"a"]


async def test_a_url_is_read_with_percent_encoding_and_options() -> None:
    options = redis_options("rediss://us%40er:p%3Aw%2F@h.example:7000/3?ssl_cert_reqs=required&ssl_ca_certs=ca.pem")
    assert (options["username"], options["password"], options["host"]) == ("us@er", "p:w/", "h.example")
    assert (options["port"], options["db"], options["ssl_ca_certs"]) == (7000, 3, "ca.pem")
    assert options["connection_class"] is SSLConnection
    assert options["ssl_check_hostname"] is True
    assert redis_options("rediss://h?ssl_cert_reqs=none")["ssl_check_hostname"] is False
    assert redis_options("rediss://h?ssl_check_hostname=false")["ssl_check_hostname"] is False
    assert redis_options("unix:///run/redis.sock?db=2")["path"] == "/run/redis.sock"
    with pytest.raises(ValueError, match="schemes"):
        Bell("http://h")


async def test_what_is_said_at_one_moment_travels_together_and_is_heard_one_by_one_in_order(
    redis_server: RedisServer,
) -> None:
    said = [*(str(n) for n in range(600)), ["a", "list"], []]
    await redis_server.start()
    async with bell_of(redis_server) as bell:
        listening = bell.subscribe(RUN_CHANGED + "*")
        assert (await anext(listening)).channel == ""
        bell.publish(RUN_CHANGED + "2", ["a list alone"])
        for message in said:
            bell.publish(RUN_CHANGED + "1", message)
        heard = [await anext(listening) for _ in range(len(said) + 1)]
        assert heard[0] == Heard(RUN_CHANGED + "2", ["a list alone"])
        assert [each.message for each in heard[1:]] == said
        await listening.aclose()  # type: ignore[attr-defined]
    assert len(list(_joined([("x", b"1")] * 600))) == 3
