"""The door bell: hints between processes through Redis, which may be absent, emptied or restarted at any second.

Nothing here is the truth and nothing here raises: a ring or a message that is lost costs a sweep's interval, never work
(G1, I25). While Redis is away, rings wake the waiters of this process directly, attempts to reconnect back off, and
`wait` turns into a pause, so that its caller's loop becomes the sweep. Values are bytes or JSON, never pickles.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from redis.asyncio import Redis as _Redis
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

#: The list that workers block on. Elements are lane ids, or `EVERYTHING`.
BELL_KEY: Final = "stepwell:bell"
#: The element that names no lane: look everywhere.
EVERYTHING: Final = b""
#: Longest list. Beyond it the oldest rings fall out; whoever wakes up looks for all due work anyway.
BELL_LENGTH: Final = 1024
#: Rings popped by one waiter at once.
_AT_ONCE: Final = 64
#: Messages kept for sending; beyond it the oldest are dropped.
_OUTBOX: Final = 4096

#: Messages of one channel that travel as one: under load a process says hundreds of things at once, and everybody who
#: listens pays for each message it is sent.
_TOGETHER: Final = 256

#: Channels. What stands after the colon is filled in by the publisher, so that a subscriber can choose by pattern.
RUN_CHANGED: Final = "stepwell:run:"
KEY_FREED: Final = "stepwell:key:"
CONFIG_CHANGED: Final = "stepwell:config:"
STOP: Final = "stepwell:stop:"

#: Seconds. An answer of Redis, the first and the longest pause after a failure, and the silence after which a
#: subscription asks whether the connection still lives.
_COMMAND_S: Final = 2.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_SILENCE_S: Final = 15.0

#: What an absent, full, loading, read-only or half-dead Redis looks like.
OUTSIDE: Final = (RedisError, OSError, TimeoutError)

#: redis-py's own annotations mix its blocking and its asyncio client.
Redis: Any = _Redis

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """A message on a channel; or, with an empty `channel`, the news that from now on nothing is missed.

    The latter comes once at the start and again after every interruption: look again at what you watch (G6).
    """

    channel: str
    message: Any


def redis_options(url: str) -> dict[str, Any]:
    """Arguments for a connection pool of a `redis://`, `rediss://` or `unix://` URL.

    User and password may be percent-encoded; options in the query are honoured (`db`, `ssl_ca_certs`, `ssl_cert_reqs`,
    …). The server's name is checked over TLS unless `ssl_check_hostname=false` or `ssl_cert_reqs=none` say otherwise.
    Raises ValueError for anything else.
    """
    options = dict(parse_url(url))
    if options.get("connection_class") is SSLConnection:
        checked = str(options.get("ssl_check_hostname", "true")).lower() not in ("false", "0", "no")
        options["ssl_check_hostname"] = checked and options.get("ssl_cert_reqs", "required") == "required"
    return options


class Bell:
    """Rings, waits, publishes and listens; one per process. Connects when first used."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that is none; nothing is connected yet."""
        options = redis_options(url) | {
            "socket_connect_timeout": _COMMAND_S,
            "socket_keepalive": True,
            "retry": Retry(NoBackoff(), 0),
        }
        self._redis = Redis(connection_pool=ConnectionPool(**(options | {"socket_timeout": _COMMAND_S})))
        # Blocking pops and subscriptions are silent for long; their limits are set per use.
        self._patient = Redis(connection_pool=ConnectionPool(**options))
        self._lanes: set[bytes] = set()
        self._outbox: deque[tuple[str, bytes]] = deque(maxlen=_OUTBOX)
        self._sender: asyncio.Task[None] | None = None
        self._rung = asyncio.Event()
        self._is_up = False
        self._has_blmpop = True
        self._pause_s = _FIRST_PAUSE_S
        self._down_until = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the latest attempt to use Redis succeeded; false before the first."""
        return self._is_up

    def ring(self, lanes: Iterable[bytes] | None = None) -> None:
        """Wake someone for these lanes (None: for anything due). Returns at once; rings of one moment become one."""
        if lanes is None:
            self._lanes.add(EVERYTHING)
        else:
            self._lanes.update(lanes)
        if len(self._lanes) > BELL_LENGTH:
            self._lanes = {EVERYTHING}
        if self._lanes:
            self._send_soon()

    def publish(self, channel: str, message: object) -> None:
        """Tell whoever listens, as JSON. Returns at once; lost if nobody listens or Redis is away."""
        self._outbox.append((channel, msgspec.json.encode(message)))
        self._send_soon()

    async def wait(self, timeout: float, *, count: int = _AT_ONCE) -> list[bytes]:
        """Up to `count` rung lanes, in order and without doubles; empty after `timeout` seconds.

        While Redis is away it returns early and empty after a growing pause (never longer than `timeout`), or at once
        with the lanes rung in this process.
        """
        until = time.monotonic() + timeout
        if not self._is_resting():
            try:
                async with asyncio.timeout(timeout + _COMMAND_S):
                    lanes = await self._pop(max(timeout, 0.01), count)
            except OUTSIDE as error:
                self._failed(error)
            else:
                self._succeeded()
                return list(dict.fromkeys(lanes))
        return await self._wait_here(max(0.0, min(until, self._down_until) - time.monotonic()))

    async def subscribe(self, pattern: str) -> AsyncIterator[Heard]:
        """Messages of all channels that match a glob pattern, for ever; survives interruptions (see `Heard`).

        Close it (`aclose`) or cancel the task that iterates it to end. Use one per process, not one per reader.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            listener = self._patient.pubsub()
            try:
                async with asyncio.timeout(_COMMAND_S * 2):
                    await listener.psubscribe(pattern)
                is_asked = False
                while True:
                    async with asyncio.timeout(_SILENCE_S + _COMMAND_S):
                        heard = await listener.get_message(ignore_subscribe_messages=False, timeout=_SILENCE_S)
                        if heard is None:
                            if is_asked:
                                raise TimeoutError
                            await listener.ping()
                    is_asked = heard is None
                    if heard is None:
                        continue
                    if heard["type"] == "psubscribe":
                        pause_s = _FIRST_PAUSE_S
                        yield Heard("", None)
                    elif heard["type"] == "pmessage":
                        try:
                            message = msgspec.json.decode(heard["data"])
                        except msgspec.DecodeError:
                            continue  # Not ours.
                        channel = heard["channel"].decode("utf-8", "replace")
                        for one in message if isinstance(message, list) else (message,):
                            yield Heard(channel, one)
            except OUTSIDE:
                pass  # Told in the log by those who ring and wait.
            finally:
                await _quietly(listener.aclose())
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Send what is still waiting if Redis is there, then hang up."""
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=_COMMAND_S)
            self._sender.cancel()
        for client in (self._redis, self._patient):
            await _quietly(client.aclose())

    def _send_soon(self) -> None:
        if self._is_resting():
            # Someone in this process may be waiting; the others sweep.
            self._outbox.clear()
            if self._lanes:
                self._rung.set()
        elif self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())

    async def _send(self) -> None:
        """Send until nothing is left: what arrives while one round trip is under way goes with the next."""
        while self._lanes or self._outbox:
            lanes, self._lanes = self._lanes, set()
            messages = [self._outbox.popleft() for _ in range(len(self._outbox))]
            try:
                async with asyncio.timeout(_COMMAND_S * 2):
                    await self._send_once(lanes, messages)
            except OUTSIDE as error:
                self._failed(error)
                self._lanes |= lanes
                if self._lanes:
                    self._rung.set()
                return
            self._succeeded()

    async def _send_once(self, lanes: set[bytes], messages: list[tuple[str, bytes]]) -> None:
        if not messages:
            length = await self._redis.lpush(BELL_KEY, *lanes)
        else:
            pipe = self._redis.pipeline(transaction=False)
            for channel, message in _joined(messages):
                pipe.publish(channel, message)
            if lanes:
                pipe.lpush(BELL_KEY, *lanes)
            answers = await pipe.execute()
            length = answers[-1] if lanes else 0
        if length > BELL_LENGTH:
            await self._redis.ltrim(BELL_KEY, 0, BELL_LENGTH - 1)

    async def _pop(self, timeout_s: float, count: int) -> list[bytes]:
        if self._has_blmpop:
            try:
                many = await self._patient.blmpop(timeout_s, 1, BELL_KEY, direction="RIGHT", count=count)
            except ResponseError as error:
                if "unknown command" not in str(error).lower():
                    raise
                self._has_blmpop = False  # Redis before 7.
            else:
                return list(many[1]) if many else []
        first = await self._patient.brpop([BELL_KEY], timeout=timeout_s)
        if not first:
            return []
        more = await self._patient.rpop(BELL_KEY, count - 1) if count > 1 else None
        return [first[1], *(more or [])]

    async def _wait_here(self, timeout_s: float) -> list[bytes]:
        try:
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        except TimeoutError:
            return []
        self._rung.clear()
        lanes, self._lanes = self._lanes, set()
        return list(lanes)

    def _is_resting(self) -> bool:
        return time.monotonic() < self._down_until

    def _succeeded(self) -> None:
        if not self._is_up:
            _log.info("redis is reachable")
        self._is_up = True
        self._pause_s = _FIRST_PAUSE_S
        self._down_until = 0.0
        self._rung.clear()
        if self._lanes:
            self._send_soon()  # Rung in the meantime.

    def _failed(self, error: BaseException) -> None:
        if self._is_up or self._down_until == 0.0:
            _log.warning("redis is away, going on without it: %s", type(error).__name__)
        self._is_up = False
        self._down_until = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)


def _joined(messages: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """What is said on one channel at one moment, as a list; a single message goes as it is, unless it is a list itself."""
    by_channel: dict[str, list[bytes]] = {}
    for channel, message in messages:
        by_channel.setdefault(channel, []).append(message)
    for channel, said in by_channel.items():
        for start in range(0, len(said), _TOGETHER):
            some = said[start : start + _TOGETHER]
            is_alone = len(some) == 1 and not some[0].startswith(b"[")
            yield channel, some[0] if is_alone else b"[%b]" % b",".join(some)


async def _quietly(closing: Any) -> None:
    with contextlib.suppress(*OUTSIDE):
        await closing
