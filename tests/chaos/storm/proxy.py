"""A TCP proxy that can be told to misbehave, one before each road between two parts of Stepwell.

    client ──► Proxy(port) ──► target          Proxy.fault = how bytes pass from now on, on old and new connections

Everything it does is counted in `struck` when it really happened to a connection, not when it was ordered.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field

_CHUNK = 65_536
_READY = b"Z\x00\x00\x00\x05I"
"""The end of Postgres' answer to a statement that is no longer inside a transaction: whatever it wrote is committed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How bytes pass. The default lets them."""

    refuse: bool = False
    """New connections are reset."""
    delay_s: float = 0.0
    """Before each chunk, both ways."""
    swallow: str = ""
    """`up` (requests), `down` (answers) or `both` disappear, and the connection stays open: half-open, as a firewall does."""
    bytes_per_s: int = 0
    cut_after: int = 0
    """Bytes of answers after which the connection is reset."""
    cut_commits: float = 0.0
    """Share of answers "it is committed" that are lost with their connection, the n-th of every 1/share."""


@dataclass(eq=False, slots=True)
class _Link:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    down_bytes: int = 0

    def reset(self) -> None:
        """End both sides without a goodbye."""
        for writer in (self.client, self.server):
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@dataclass(slots=True)
class Proxy:
    """One road. `start` it, then set `fault`, or `cut` it."""

    name: str
    target: tuple[str, int]
    port: int
    fault: Fault = field(default_factory=Fault)
    struck: Counter[str] = field(default_factory=Counter)
    passed_bytes: int = 0
    _links: set[_Link] = field(default_factory=set)
    _commits: float = 0.0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_CHUNK)

    async def stop(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Connections now."""
        return len(self._links)

    def cut(self) -> int:
        """Reset every connection; gives how many there were."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault.refuse:
            self.struck["refused"] += 1
            _Link(writer, writer).reset()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target, limit=_CHUNK)
        except OSError:
            _Link(writer, writer).reset()
            return
        link = _Link(writer, up_writer)
        self._links.add(link)
        both = [
            asyncio.create_task(self._pump(link, reader, up_writer, is_answer=False)),
            asyncio.create_task(self._pump(link, up_reader, writer, is_answer=True)),
        ]
        self._tasks.update(both)
        try:
            await asyncio.wait(both)
        finally:
            self._tasks.difference_update(both)
            self._links.discard(link)
            for task in both:
                task.cancel()
            link.client.close()
            link.server.close()

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while chunk := await reader.read(_CHUNK):
                if not await self._pass(link, chunk, is_answer=is_answer):
                    link.reset()
                    return
                if self.fault.swallow in ("both", "down" if is_answer else "up"):
                    self.struck["swallowed"] += 1
                    continue
                writer.write(chunk)
                self.passed_bytes += len(chunk)
                await writer.drain()
            writer.write_eof()

    async def _pass(self, link: _Link, chunk: bytes, *, is_answer: bool) -> bool:
        """Wait as the fault wants; false when the connection is to be reset instead."""
        fault = self.fault
        if fault.delay_s:
            self.struck["delayed"] += 1
            await asyncio.sleep(fault.delay_s)
        if fault.bytes_per_s:
            self.struck["throttled"] += 1
            await asyncio.sleep(len(chunk) / fault.bytes_per_s)
        if not is_answer:
            return True
        if (
            fault.cut_commits
            and chunk.endswith(_READY)
            and (b"COMMIT\x00" in chunk or b"INSERT" in chunk or b"SELECT" in chunk)
        ):
            self._commits += fault.cut_commits
            if self._commits >= 1:
                self._commits -= 1
                self.struck["lost commit answers"] += 1
                return False
        link.down_bytes += len(chunk)
        if fault.cut_after and link.down_bytes > fault.cut_after:
            self.struck["cut after bytes"] += 1
            link.down_bytes = 0
            return False
        return True
