"""The load generator: raw keep-alive connections, because a client library would cost more than what is measured.

Every event carries a `tag`; who sent which tag when is kept here and joined with what the app noted, on one clock.
"""

# ruff: noqa: D102 - asyncio and httptools name the callbacks; the rest is said by their classes

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

#: Bytes that make an event about as large as an ordinary one (some 300 bytes with its envelope).
_FILLER = "x" * 180


@dataclass(frozen=True, slots=True)
class Address:
    """Where a plain HTTP server listens."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Address":
        """Raises ValueError for anything but plain `http` with a host."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the bench speaks plain http only, not {url!r}")
        return cls(parts.hostname, parts.port or 80)


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time; reconnects when it was closed in between."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []

    async def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, within_s: float
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError or TimeoutError; the connection is then closed."""
        try:
            async with asyncio.timeout(within_s):
                if self._transport is None or self._transport.is_closing():
                    await asyncio.get_running_loop().create_connection(lambda: self, *_pair(self._address))
                assert self._transport is not None
                self._body = []
                self._parser = httptools.HttpResponseParser(self)
                self._answer = asyncio.get_running_loop().create_future()
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                head = f"{method} {path} HTTP/1.1\r\nhost: {self._address.host}:{self._address.port}\r\n{lines}"
                self._transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                return await self._answer
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))


def _pair(address: Address) -> tuple[str, int]:
    return address.host, address.port


@dataclass(slots=True)
class Sent:
    """What was sent: tag → (sent, accepted) in monotonic nanoseconds, and how many requests were refused or failed."""

    times: dict[str, tuple[int, int]] = field(default_factory=dict)
    accepted: int = 0
    refused: int = 0
    last_refusal: str = ""


class Sender:
    """Sends events to `/e/{key}` over a fixed number of connections."""

    def __init__(self, server: str, event_key: str, connections: int) -> None:
        self._path = f"/e/{event_key}"
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        self._all = [Connection(Address.of(server)) for _ in range(connections)]
        for connection in self._all:
            self._free.put_nowait(connection)

    async def send(self, name: str, tags: list[str], sent: Sent, *, within_s: float = 30) -> bool:
        """Send one event per tag in one request, and note the times; false if it was not accepted."""
        events = [{"name": name, "data": {"tag": tag, "filler": _FILLER}} for tag in tags]
        body = json.dumps(events if len(events) > 1 else events[0], separators=(",", ":")).encode()
        connection = await self._free.get()
        began = time.monotonic_ns()
        try:
            status, answer = await connection.request("POST", self._path, body, _JSON, within_s=within_s)
        except (OSError, TimeoutError) as error:
            sent.refused += 1
            sent.last_refusal = type(error).__name__
            return False
        finally:
            self._free.put_nowait(connection)
        if status != 200:
            sent.refused += 1
            sent.last_refusal = f"{status} {answer[:200].decode(errors='replace')}"
            return False
        ended = time.monotonic_ns()
        sent.accepted += len(tags)
        sent.times.update(dict.fromkeys(tags, (began, ended)))
        return True

    def close(self) -> None:
        for connection in self._all:
            connection.close()


_JSON = {"content-type": "application/json"}


class Control:
    """Asks the bench app what it saw."""

    def __init__(self, app_url: str) -> None:
        self.address = Address.of(app_url)
        self._connection = Connection(self.address)

    async def counts(self) -> dict[str, dict[str, int]]:
        """Calls, steps and ended runs by function."""
        found: dict[str, dict[str, int]] = await self._ask("GET", "counts")
        return found

    async def report(self) -> list[dict[str, Any]]:
        """All runs since the reset, with their times."""
        rows: list[dict[str, Any]] = await self._ask("GET", "report")
        return rows

    async def reset(self) -> None:
        await self._ask("POST", "reset")

    async def wait(self, fn: str, done: int, *, within_s: float) -> bool:
        """Wait until so many runs of a function have ended; false if they have not in time."""
        with contextlib.suppress(TimeoutError):
            await self._ask("GET", f"wait?fn={fn}&done={done}", within_s=within_s)
            return True
        return False

    def close(self) -> None:
        self._connection.close()

    async def _ask(self, method: str, what: str, *, within_s: float = 30) -> Any:
        status, body = await self._connection.request(method, f"/bench/{what}", b"", {}, within_s=within_s)
        if status != 200:
            raise RuntimeError(f"the bench app answered {status}")
        return json.loads(body)


@asynccontextmanager
async def sending(server: str, event_key: str, connections: int) -> AsyncIterator[Sender]:
    """A sender that hangs up at the end."""
    sender = Sender(server, event_key, connections)
    try:
        yield sender
    finally:
        sender.close()
