"""One kept-alive connection to an app: a request goes out in one write, the answer is read as it comes, one at a time.

    idle ──send──► busy ──whole answer──► idle
                    └──anything else────► closed

It knows HTTP/1.1 and nothing else: where to connect is decided in `connections.py`, what an answer means in `http.py`. The
parser is that of node (llhttp); it is as strict as there, so an answer has one meaning or none. Nothing is ever read ahead
without a bound: 64 KiB of headers, and of a large body no more than one piece until its reader has room for it.
"""

import asyncio
from typing import cast

import httptools

from app.adapters.answer_room import SMALL

#: Octets of all headers of an answer, and of anything that is neither header nor body as yet.
_MAX_HEAD = 64 * 1024


class Disconnected(ConnectionError):
    """The connection ended, or what came was no answer. `is_stale`: it was a kept one, and not a byte had come."""

    def __init__(self, *, is_stale: bool) -> None:
        super().__init__("no whole answer")
        self.is_stale = is_stale


class TooLarge(Exception):
    """The answer's body announces or has more octets than its reader allowed."""


class Wire(asyncio.Protocol):
    """A connection. `send` may be called again when `is_reusable`."""

    status: int
    headers: dict[str, str]
    #: Octets of the body, where the headers say it.
    announced: int | None
    #: What has come of the body; most are one piece, of which no copy is made.
    _body: bytes | bytearray
    _is_whole: bool
    _is_paused: bool
    _failure: Exception | None

    def __init__(self) -> None:
        """Made for the loop's `create_connection`."""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._is_whole = True
        self._is_reusable = True
        self._is_broken = False
        #: When it was put aside, in seconds of the loop's clock.
        self.idle_since = 0.0
        #: Whether it has carried an exchange before.
        self._is_used = False
        self._start(0, is_head=False)

    @property
    def is_open(self) -> bool:
        """Whether a request may be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether the last exchange ended so that another may follow."""
        return (
            self._is_whole
            and self._is_reusable
            and not self._is_broken
            and self._transport is not None
            and not self._transport.is_closing()
            # An answer may come before its request has gone out.
            and self._transport.get_write_buffer_size() == 0
        )

    def close(self) -> None:
        """Hang up: at once when an answer is under way, whose reader is told, and politely otherwise."""
        if self._transport is None:
            return
        if self._is_whole:
            self._transport.close()
        else:
            self._transport.abort()

    async def send(self, request: bytes, max_body: int, *, is_head: bool, within_s: float) -> bool:
        """Write a request and wait for its answer: the whole of a small one, or the begin of a large one.

        Gives whether it is whole; if not, `rest` reads on. An answer to `is_head`, and a redirect, is done with its
        headers. Raises `Disconnected`, `TooLarge` or TimeoutError; the connection is of no more use then.
        """
        self._start(max_body, is_head=is_head)
        if self._transport is None:
            # It was lost before anybody came to use it.
            raise Disconnected(is_stale=False)
        self._is_whole = False
        self._transport.write(request)
        await self._wait(within_s)
        self._is_used = True
        return self._is_whole

    async def rest(self, within_s: float) -> None:
        """Read what is left of a large body. Raises as `send`."""
        self._pauses_at = self._max_body
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        if not self._is_whole:
            await self._wait(within_s)

    @property
    def body(self) -> bytes:
        """What has come of the body."""
        return bytes(self._body)

    def forget(self) -> None:
        """Drop the answer: who keeps the connection need not keep that."""
        self._body, self.headers = b"", {}

    def _start(self, max_body: int, *, is_head: bool) -> None:
        self.status = 0
        self.headers = {}
        self.announced = None
        self._body = b""
        self._size = 0
        self._head_size = 0
        self._silent = 0
        self._max_body = max_body
        self._pauses_at = SMALL
        self._is_paused = False
        self._is_head = is_head
        self._is_body = False
        self._ends_with_connection = False
        self._has_begun = False
        self._is_moving = False
        self._failure = None
        self._parser = httptools.HttpResponseParser(self)
        # As lenient as browsers and common clients are with lines that end without a carriage return.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)

    async def _wait(self, within_s: float) -> None:
        """Wait until there is something to say."""
        if self._failure is not None:
            raise self._failure
        self._waiter = waiter = self._loop.create_future()
        timer = self._loop.call_later(max(0.0, within_s), self._expire, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _is_awaited(self) -> bool:
        """Whether more of an answer is to come."""
        return not self._is_whole and self._failure is None

    def _expire(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_exception(TimeoutError())

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, failure: Exception) -> None:
        """Nothing that comes is of use any more."""
        self._is_reusable = False
        if self._failure is None:
            self._failure = failure
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_exception(failure)
        self.close()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if not self._is_awaited():
            # Nobody asked for this.
            self._is_broken = True
            self.close()
            return
        self._has_begun = True
        self._is_moving = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_broken = True
        except httptools.HttpParserError:
            self._is_broken = True
            if self._is_awaited():
                self._fail(Disconnected(is_stale=False))
        if not self._is_awaited():
            return
        # The parser keeps what is not complete yet, as a header without end.
        self._silent = 0 if self._is_moving else self._silent + len(data)
        if self._head_size + self._silent > _MAX_HEAD:
            self._fail(Disconnected(is_stale=False))
        elif self._size > self._pauses_at and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
            self._wake()

    def eof_received(self) -> None:
        """Close our side too; a body without a length ends here."""
        if self._ends_with_connection and self._is_awaited():
            self._is_broken = True
            self._is_whole = True
            self._wake()

    def connection_lost(self, _error: Exception | None) -> None:
        """Say so to whoever waits."""
        self._transport = None
        if not self._is_whole:
            self._fail(Disconnected(is_stale=self._is_used and not self._has_begun))

    # What the parser calls, as its names demand.

    def on_message_begin(self) -> None:
        """A second answer in one breath is nobody's."""
        if self._is_whole:
            self._is_broken = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which is dropped. latin-1 never fails and leaves nothing UTF-8 could not store."""
        self._is_moving = True
        self._head_size += len(name) + len(value)
        if not self._is_body and not self._is_whole:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Know how the body will end, and whether it may come at all."""
        if self._is_whole:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        self.status, self._is_body = status, True
        length = self.headers.get("content-length", "")
        self.announced = int(length[:18]) if length.isdecimal() else None
        if self._is_head or 300 <= status < 400:
            self._is_reusable = False
            self._end()
        elif self.announced is not None:
            if self.announced > self._max_body:
                self._fail(TooLarge())
        elif not self.headers.get("transfer-encoding", "").lower().endswith("chunked"):
            self._ends_with_connection = status not in (101, 204, 304)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._is_moving = True
        if self._is_whole:
            return
        self._size += len(body)
        if self._size > self._max_body:
            self._fail(TooLarge())
        elif not self._body:
            self._body = body
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            # Not a list of pieces: of two octets each they would take thirty times the room.
            self._body += body

    def on_message_complete(self) -> None:
        """The answer is whole; one that only says to go on is forgotten."""
        self._is_moving = True
        if self._is_whole:
            if self._is_head or 300 <= self.status < 400:
                self._is_reusable = self._parser.should_keep_alive()
            return
        if not self._is_body:
            self.headers = {}
            return
        self._is_reusable = self._is_reusable and self._parser.should_keep_alive() and self._failure is None
        self._end()

    def _end(self) -> None:
        if self._failure is None:
            self._is_whole = True
            self._wake()
