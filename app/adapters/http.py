"""The one door for calls to tenants' apps: steps, sync, webhooks, anything that goes to an address a tenant chose.

What it guarantees (reliability-security 4 C and 5 C): every address is judged by the `Gate` at the moment a socket is
made for it, so no spelling, redirect or change of a name's address gets around it; answers are bounded in size, after
decompression too, and in time; proxies and credentials from the environment are ignored; an error's message is one of
a few fixed sentences and does not tell open ports from closed ones. What it does not do: sign, understand answers, or
decide about retries of steps.

**A call is never repeated once a byte of it was handed to the kernel.** A kept-alive connection that the peer has
already closed is dropped before it is used, which is the only moment when it is certain that nothing was processed.
A peer that closes while the request is on its way looks the same whether it read the request or not (load balancers
send resets after the app has worked), so that is reported as `app_unreachable`, retryable, and costs an attempt. To
make it rare, idle connections are given up after 4 s, sooner than the 5 s after which Node and uvicorn close theirs.
GET, PUT and DELETE, idempotent by their definition, are repeated once.

`Caller` is the port, `HttpCaller` the implementation; `connections.py` finds and keeps connections, `wire.py` speaks HTTP over
one. They are ours because a call costs a third of what it costs with a client library made for every purpose, and a step is
little more than a call (docs/performance.md).
"""

import asyncio
import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from yarl import URL

from app.adapters.answer_room import SMALL, AnswerRoom, Taken, this_call
from app.adapters.connections import Blocked, Connections, Origin
from app.adapters.wire import Disconnected, TooLarge, Wire
from app.domain.addresses import Gate, gate_host, gate_port

#: Limits of reliability-security L3 and L6. Seconds, bytes.
MAX_CALL_S = 7200.0
MAX_BODY = 8 * 1024 * 1024
MAX_URL = 4096
#: Seconds a large answer may take to arrive once there is room for it.
LARGE_S = 60.0
MAX_REDIRECTS = 3
#: How many parsed URLs are remembered.
_REMEMBERED = 2048
#: Methods that may be repeated once when a kept connection turns out to be gone (RFC 9110, 9.2.2).
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
#: Methods whose requests say how long their body is even when there is none.
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

#: Until when (monotonic seconds of the performance counter), and octets of the body.
_Limits = tuple[float, int]

Kind = Literal[
    "app_unreachable",
    "app_tls_failed",
    "app_timeout",
    "app_address_blocked",
    "app_redirect_blocked",
    "app_response_too_large",
    "app_url_invalid",
]

#: Kind → (sentence for tenants, may a retry help). Fixed texts, so that nothing of the network leaks through them.
MESSAGES: Final[Mapping[Kind, tuple[str, bool]]] = {
    "app_unreachable": ("The app could not be reached, or closed the connection before it answered.", True),
    "app_tls_failed": ("No secure connection to the app could be made. Check its certificate.", True),
    "app_timeout": ("The app did not answer in time.", True),
    "app_address_blocked": ("The app's address may not be called from here.", False),
    "app_redirect_blocked": ("The app answered with a redirect that is not followed.", False),
    "app_response_too_large": ("The app's answer is larger than allowed.", False),
    "app_url_invalid": ("The app's URL is not valid, or not one that may be called.", False),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever the status: `headers` by lower-case name, `body` inflated, `millis` until its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    millis: float


class CallFailed(Exception):
    """There is no answer. `kind` is a stable code, the message may be shown to tenants, the cause is for our logs."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.message, self.retryable = MESSAGES[kind]
        super().__init__(self.message)


class Caller(Protocol):
    """What the engine needs of an HTTP client."""

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        max_body: int = MAX_BODY,
    ) -> Answer:
        """Send one request and read the whole answer, within `timeout_s` seconds in all (clamped to two hours).

        `max_body` bounds the answer's bytes on the wire and again after decompression. Raises `CallFailed`.
        """
        ...

    async def close(self) -> None:
        """Give up all connections. Calls in flight fail."""
        ...


@dataclass(frozen=True, slots=True)
class _Target:
    """A parsed URL and what every request to it begins with, after the method."""

    url: URL
    origin: Origin
    line: str


class HttpCaller:
    """`Caller` over our own connections; make one per process, inside the running loop.

    `gate` is asked at every connect. `tls` replaces the trust of the system (tests). `room` bounds what large answers take.
    """

    def __init__(self, gate: Gate, *, tls: ssl.SSLContext | None = None, room: AnswerRoom | None = None) -> None:
        self._gate = gate
        self._room = room or AnswerRoom()
        self._targets: dict[str, _Target] = {}
        self._connections = Connections(gate, tls)

    async def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        max_body: int = MAX_BODY,
    ) -> Answer:
        """See `Caller.call`."""
        started = time.perf_counter()
        target = self._targets.get(url) or self._parse(url)
        lines = _lines(method, headers, body)
        limits = (started + min(timeout_s, MAX_CALL_S), max_body)
        try:
            with this_call() as taken:
                for _ in range(MAX_REDIRECTS + 1):
                    request = f"{method} {target.line}{lines}".encode() + body
                    found = await self._once(method, target, request, limits, taken)
                    if isinstance(found, URL):
                        target = _target(self._same_origin(target.url, found))
                        continue
                    status, received, content = found
                    content = await self._whole(target.url.authority, content, received, limits, taken)
                    return Answer(status, received, content, (time.perf_counter() - started) * 1000)
        except TooLarge as error:
            raise CallFailed("app_response_too_large") from error
        except OSError as error:
            # A plain TimeoutError is an OSError too, and means that our own limit for the whole call was reached.
            raise CallFailed(_kind_of(error)) from error
        raise CallFailed("app_redirect_blocked")

    async def close(self) -> None:
        """See `Caller.close`."""
        self._connections.close()

    async def _once(
        self, method: str, target: _Target, request: bytes, limits: _Limits, taken: Taken
    ) -> tuple[int, dict[str, str], bytes] | URL:
        """One request: an answer, or where a 307 or 308 points to. `limits`: until when, and octets of the body."""
        try:
            return await self._exchange(method, target, request, limits, taken)
        except Disconnected as error:
            if not error.is_stale or method not in _REPEATABLE:
                raise
        return await self._exchange(method, target, request, limits, taken)

    async def _exchange(
        self, method: str, target: _Target, request: bytes, limits: _Limits, taken: Taken
    ) -> tuple[int, dict[str, str], bytes] | URL:
        until, max_body = limits
        wire = self._connections.idle(target.origin) or await self._take(target.origin, limits)
        try:
            patience = until - time.perf_counter()
            is_whole = await wire.send(request, max_body, is_head=method == "HEAD", within_s=patience)
            status, received = wire.status, wire.headers
            if 300 <= status < 400:
                return _redirected(target.url, status, received)
            if not is_whole:
                await self._read_on(target.url.authority, wire, limits, taken)
            return status, received, wire.body
        finally:
            self._connections.give_back(target.origin, wire)

    async def _take(self, origin: Origin, limits: _Limits) -> Wire:
        async with asyncio.timeout(limits[0] - time.perf_counter()):
            return await self._connections.take(origin)

    async def _read_on(self, target: str, wire: Wire, limits: _Limits, taken: Taken) -> None:
        """The rest of a large body, when there is room for it."""
        until, max_body = limits
        # Room for what it is inflated to comes with it: nobody waits for room while having some.
        inflated = max_body if _is_packed(wire.headers) else 0
        async with asyncio.timeout(until - time.perf_counter()):
            await self._room.take(target, (max_body if wire.announced is None else wire.announced) + inflated, taken)
        # Who drips must not keep the room from others.
        await wire.rest(min(LARGE_S, until - time.perf_counter()))

    async def _whole(
        self, target: str, content: bytes, headers: Mapping[str, str], limits: _Limits, taken: Taken
    ) -> bytes:
        """What was read, inflated where it is packed; of the room only what it needs is kept."""
        until, max_body = limits
        if content and _is_packed(headers):
            if not taken.of:
                async with asyncio.timeout(until - time.perf_counter()):
                    await self._room.take(target, max_body, taken)
            content = _inflate(headers["content-encoding"], content, max_body)
        taken.shrink(len(content) if len(content) > SMALL else 0)
        return content

    def _parse(self, url: str) -> _Target:
        parsed = parse_url(url, allow_plain=self._gate.allow_private)
        if not self._gate.admits_name(parsed.raw_host or "", parsed.port or 0):
            raise CallFailed("app_address_blocked")
        if len(self._targets) >= _REMEMBERED:
            self._targets.clear()
        target = self._targets[url] = _target(parsed)
        return target

    def _same_origin(self, old: URL, new: URL) -> URL:
        if "@" in new.raw_authority or (new.scheme, new.raw_host, new.port) != (old.scheme, old.raw_host, old.port):
            raise CallFailed("app_redirect_blocked")
        return new.with_fragment(None)


def _target(url: URL) -> _Target:
    origin = Origin(url.raw_host or "", url.port or 0, url.scheme == "https")
    return _Target(url, origin, f"{url.raw_path_qs} HTTP/1.1\r\nhost: {url.host_port_subcomponent}\r\n")


def _lines(method: str, headers: Mapping[str, str], body: bytes) -> str:
    """The headers of a request, to its empty line. Raises ValueError for one that would make two."""
    # A compressed answer is still understood; asking for a plain one saves both sides the work.
    lines = [f"{name}: {value}" for name, value in headers.items() if name.lower() not in _OURS]
    lines.append("accept-encoding: identity")
    if body or method in _WITH_BODY:
        lines.append(f"content-length: {len(body)}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise ValueError("a header holds the end of a line")
    return text + "\r\n\r\n"


def _redirected(old: URL, status: int, headers: Mapping[str, str]) -> URL:
    location = headers.get("location")
    if status not in (307, 308) or not location:
        raise CallFailed("app_redirect_blocked")
    try:
        return old.join(URL(location))
    except ValueError as error:
        raise CallFailed("app_redirect_blocked") from error


def parse_url(url: str, *, allow_plain: bool) -> URL:
    """A URL that may be called, parsed once: the parser that is checked here is the one that connects.

    `allow_plain` admits `http`. Raises `CallFailed("app_url_invalid")`.
    """
    if len(url) > MAX_URL or any(c <= " " or c in "\\\x7f" for c in url):
        raise CallFailed("app_url_invalid")
    try:
        target = URL(url)
        host, port = target.raw_host, target.port
    except ValueError as error:
        raise CallFailed("app_url_invalid") from error
    if (
        target.scheme not in (("http", "https") if allow_plain else ("https",))
        or not host
        or port is None
        or "@"
        in url.partition("://")[2].partition("/")[0].partition("?")[0]  # An empty user-info is dropped by the parser.
        or "#" in url
        or not gate_port(port)
        or not gate_host(host)
    ):
        raise CallFailed("app_url_invalid")
    return target


_PACKED = ("gzip", "x-gzip", "deflate")
#: Headers that a request has once, from here.
_OURS = frozenset({"accept-encoding", "content-length"})


def _kind_of(error: OSError) -> Kind:
    if isinstance(error, Blocked):
        return "app_address_blocked"
    if isinstance(error, ssl.SSLError):
        return "app_tls_failed"
    return "app_timeout" if isinstance(error, TimeoutError) else "app_unreachable"


def _is_packed(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "").strip().lower() in _PACKED


def _inflate(encoding: str, body: bytes, max_body: int) -> bytes:
    """A body without its `gzip` or `deflate`; any other coding is handed on as it came, and read as no SDK's answer."""
    encoding = encoding.strip().lower()
    # `deflate` means zlib by the book, and the bare stream in some servers.
    for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS) if encoding == "deflate" else (zlib.MAX_WBITS | 16,):
        inflater = zlib.decompressobj(window)
        try:
            plain = inflater.decompress(body, max_body + 1)
        except zlib.error:
            continue
        if len(plain) > max_body:
            raise CallFailed("app_response_too_large")
        return plain
    return body
