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

`Caller` is the port; `AiohttpCaller` the implementation. A leaner client may replace it when the same tests pass.
"""

import asyncio
import functools
import socket
import ssl
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict, istr
from yarl import URL

from app.adapters.answer_room import SMALL, AnswerRoom, Taken, this_call
from app.domain.addresses import Gate, gate_host, gate_port, parse_address

#: Limits of reliability-security L3 and L6. Seconds, bytes.
RESOLVE_S = 5.0
CONNECT_S = 10.0
TLS_S = 15.0
MAX_CALL_S = 7200.0
MAX_BODY = 8 * 1024 * 1024
MAX_URL = 4096
#: Seconds a large answer may take to arrive once there is room for it.
LARGE_S = 60.0
MAX_REDIRECTS = 3
#: Connections to one host and port at the same time. The engine's capacity is the real limit; this one keeps a single
#: target from taking all file descriptors of a process.
PER_HOST = 500
IDLE_S = 4.0
#: Threads that wait for the name service: a tenant's dead name server holds one of them for `RESOLVE_S`, not the loop's
#: own four.
_RESOLVER_THREADS = 16
#: How many names, and how many parsed URLs, are remembered.
_REMEMBERED = 2048

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


class Blocked(OSError):
    """An address was refused. An OSError because that is what the connector expects of a socket that cannot be made."""


class AiohttpCaller:
    """`Caller` on aiohttp; make one per process, inside the running loop.

    `gate` is asked at every connect. `tls` replaces the trust of the system (tests). `room` bounds what large answers take.
    """

    def __init__(self, gate: Gate, *, tls: ssl.SSLContext | None = None, room: AnswerRoom | None = None) -> None:
        self._gate = gate
        self._room = room or AnswerRoom()
        self._targets: dict[str, URL] = {}
        self._resolver = _Resolver(gate)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver,
                socket_factory=functools.partial(_open_socket, gate),
                ssl=tls if tls is not None else True,
                limit=0,
                limit_per_host=PER_HOST,
                keepalive_timeout=IDLE_S,
                dns_cache_max_size=_REMEMBERED,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
            auto_decompress=False,
            raise_for_status=False,
            trust_env=False,
        )

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
        sent = CIMultiDict(headers)
        # A compressed answer is still understood; asking for a plain one saves both sides the work.
        sent[_ACCEPT_ENCODING] = "identity"
        until = started + min(timeout_s, MAX_CALL_S)
        try:
            with this_call() as taken:
                for _ in range(MAX_REDIRECTS + 1):
                    limits = (until, max_body)
                    found = await self._once(method, target, sent, body, limits, taken)
                    if isinstance(found, URL):
                        target = self._same_origin(target, found)
                        continue
                    status, received, content = found
                    content = await self._whole(target.authority, content, received, limits, taken)
                    return Answer(status, received, content, (time.perf_counter() - started) * 1000)
        except aiohttp.ClientSSLError as error:
            raise CallFailed("app_tls_failed") from error
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientError, OSError) as error:
            # A plain TimeoutError is an OSError too, and means that our own limit for the whole call was reached;
            # aiohttp's timeout while connecting is a refusal in all but name.
            raise CallFailed(_kind_of(error)) from error
        raise CallFailed("app_redirect_blocked")

    async def close(self) -> None:
        """See `Caller.close`."""
        await self._session.close()
        self._resolver.stop()

    async def _once(
        self,
        method: str,
        target: URL,
        headers: CIMultiDict[str],
        body: bytes,
        limits: _Limits,
        taken: Taken,
    ) -> tuple[int, dict[str, str], bytes] | URL:
        """One request: an answer, or where a 307 or 308 points to. `limits`: until when, and octets of the body."""
        timeout_s = limits[0] - time.perf_counter()
        if timeout_s <= 0:
            raise TimeoutError
        patience = aiohttp.ClientTimeout(
            total=timeout_s, sock_connect=CONNECT_S if target.scheme == "http" else TLS_S, sock_read=None
        )
        response = await self._session.request(
            method, target, headers=headers, data=body or None, timeout=patience, allow_redirects=False
        )
        try:
            status = response.status
            if 300 <= status < 400:
                location = response.headers.get("location")
                if status not in (307, 308) or not location:
                    raise CallFailed("app_redirect_blocked")
                try:
                    return target.join(URL(location))
                except ValueError as error:
                    raise CallFailed("app_redirect_blocked") from error
            # latin-1 never fails and leaves nothing that UTF-8 could not store.
            received = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.raw_headers}
            content = await self._read(target.authority, response.content, received, limits, taken)
            return status, received, content
        finally:
            # After a complete answer the connection is back in the pool already; otherwise this cuts it.
            response.close()

    async def _read(
        self, target: str, content: aiohttp.StreamReader, headers: Mapping[str, str], limits: _Limits, taken: Taken
    ) -> bytes:
        """The whole body, cut as soon as it exceeds what is allowed; a large one takes room before it is read on."""
        until, max_body = limits
        length = headers.get("content-length", "")
        announced = int(length[:18]) if length.isdecimal() else None
        if announced is not None and announced > max_body:
            raise CallFailed("app_response_too_large")
        piece = await content.readany()
        if content.at_eof() and len(piece) <= max_body:
            return piece
        pieces, size = [piece], len(piece)
        patience = asyncio.timeout(None)
        async with patience:
            while size <= max_body and not content.at_eof():
                if size > SMALL and patience.when() is None:
                    loop = asyncio.get_running_loop()
                    patience.reschedule(loop.time() + until - time.perf_counter())
                    # Room for what it is inflated to comes with it: nobody waits for room while having some.
                    inflated = max_body if _is_packed(headers) else 0
                    await self._room.take(target, (max_body if announced is None else announced) + inflated, taken)
                    # Who drips must not keep the room from others.
                    patience.reschedule(loop.time() + min(LARGE_S, until - time.perf_counter()))
                piece = await content.readany()
                pieces.append(piece)
                size += len(piece)
        if size > max_body:
            raise CallFailed("app_response_too_large")
        return b"".join(pieces)

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

    def _parse(self, url: str) -> URL:
        target = parse_url(url, allow_plain=self._gate.allow_private)
        if not self._gate.admits_name(target.raw_host or "", target.port or 0):
            raise CallFailed("app_address_blocked")
        if len(self._targets) >= _REMEMBERED:
            self._targets.clear()
        self._targets[url] = target
        return target

    def _same_origin(self, old: URL, new: URL) -> URL:
        if "@" in new.raw_authority or (new.scheme, new.raw_host, new.port) != (old.scheme, old.raw_host, old.port):
            raise CallFailed("app_redirect_blocked")
        return new.with_fragment(None)


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
_ACCEPT_ENCODING = istr("accept-encoding")


def _kind_of(error: Exception) -> Kind:
    if isinstance(error, aiohttp.InvalidURL):
        return "app_url_invalid"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Blocked):
            return "app_address_blocked"
        cause = cause.__cause__
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        return "app_timeout"
    return "app_unreachable"


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


def _open_socket(gate: Gate, info: tuple[Any, ...]) -> socket.socket:
    """The gate itself: called with each address that is about to be connected, names and literal addresses alike."""
    family, kind, protocol, _, address = info
    if not gate.admits(str(address[0]), int(address[1])):
        raise Blocked("address refused")
    made = socket.socket(family, kind, protocol)
    try:
        # A call may last two hours without a byte. A peer that vanished without a word is noticed within 70 s, while
        # one that is merely slow is left alone: the kernel asks, not the app.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        made.close()
        raise
    return made


#: First question after 30 s of silence, then every 10 s, dead after four. Not every system has every option.
_KEEPALIVE = tuple(
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 70_000))
    if hasattr(socket, name)
)


class _Resolver(AbstractResolver):
    """Names to addresses that the gate admits, in threads of its own and within `RESOLVE_S` seconds.

    Refused addresses are left out rather than refusing the name: networks that translate IPv4 add a wrapped address
    to every name. The socket factory judges again, so nothing depends on what is cached here.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, "resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        # Both families, whatever addresses this machine has: development servers like to listen on ::1 alone.
        look_up = functools.partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        async with asyncio.timeout(RESOLVE_S):
            try:
                entries = await loop.run_in_executor(self._threads, look_up)
            except UnicodeError as error:
                raise OSError("name cannot be encoded") from error
        found = {str(entry[4][0]): entry[0] for entry in entries if parse_address(str(entry[4][0])) is not None}
        admitted = {ip: kind for ip, kind in found.items() if self._gate.admits(ip, port)}
        if found and not admitted:
            raise Blocked("address refused")
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for ip, kind in admitted.items()
        ]

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
