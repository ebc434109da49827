"""Connections to apps: made through the gate, kept for a while, used again, never more than `PER_HOST` for one origin.

    take ──► an idle one ──────────────────────────┐
        └──► name → addresses ─► gate ─► socket ─► TLS ──► exchange ──► give_back ──► idle for IDLE_S, or closed

**The gate is asked in `_open_socket`**, at the moment a socket is made for an address, whatever was asked for and whatever
is remembered of names: nothing else in this process makes a socket for an address a tenant chose. An idle connection leads
to an address that passed it.
"""

import asyncio
import functools
import socket
import ssl
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import aiohappyeyeballs

from app.adapters.wire import Wire
from app.domain.addresses import Gate, parse_address

#: Limits of reliability-security L3. Seconds; connecting over TLS includes the handshake.
RESOLVE_S = 5.0
CONNECT_S = 10.0
TLS_S = 15.0
#: Connections to one host and port at the same time. The engine's capacity is the real limit; this one keeps a single
#: target from taking all file descriptors of a process.
PER_HOST = 500
#: Sooner than the 5 s after which Node and uvicorn close theirs.
IDLE_S = 4.0
#: Seconds for which the addresses of a name are remembered, and of how many names.
_NAME_S = 10.0
_REMEMBERED = 2048
#: Threads that wait for the name service: a tenant's dead name server holds one of them for `RESOLVE_S`, not the loop's
#: own four.
_RESOLVER_THREADS = 16
#: Seconds after which the next address of a name is tried too (RFC 8305).
_NEXT_ADDRESS_S = 0.25
#: Seconds between two looks for connections that were idle for too long.
_SWEEP_S = 1.0

AddressInfo = tuple[int, int, int, str, Any]


class Blocked(OSError):
    """An address was refused. An OSError because that is what whoever connects expects of a socket that cannot be made."""


class Unreachable(OSError):
    """No connection was made in the time that connecting may take."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a connection leads to: `host` as a name or an address without brackets."""

    host: str
    port: int
    is_tls: bool


@dataclass(slots=True)
class _Kept:
    """Connections of one origin: idle ones, newest last; those in use, and how many are being made; who waits for one."""

    idle: deque[Wire] = field(default_factory=deque)
    used: set[Wire] = field(default_factory=set)
    made: int = 0
    line: "deque[asyncio.Future[None]]" = field(default_factory=deque)


class Connections:
    """All connections of one caller; made inside the running loop."""

    def __init__(self, gate: Gate, tls: ssl.SSLContext | None) -> None:
        """`tls` replaces the trust of the system (tests)."""
        self._gate = gate
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._kept: dict[Origin, _Kept] = {}
        self._names: dict[tuple[str, int], tuple[float, list[AddressInfo]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[list[AddressInfo]]] = {}
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, "resolve")
        self._sweep_at: asyncio.TimerHandle | None = None
        self._is_closed = False

    def idle(self, origin: Origin) -> Wire | None:
        """An idle connection, now in use; none where there is none, or `is_closed`."""
        kept = self._kept.get(origin)
        if kept is None:
            return None
        oldest = self._loop.time() - IDLE_S
        while kept.idle:
            wire = kept.idle.pop()
            if wire.is_open and wire.idle_since > oldest:
                kept.used.add(wire)
                return wire
            wire.close()
        return None

    async def take(self, origin: Origin) -> Wire:
        """A connection, idle or new, now in use. The caller brings the limit of time.

        Raises `Blocked`, `Unreachable`, ssl.SSLError or OSError.
        """
        while True:
            wire = self.idle(origin)
            if wire is not None:
                return wire
            kept = self._kept.setdefault(origin, _Kept())
            if len(kept.used) + kept.made < PER_HOST:
                return await self._make(origin, kept)
            turn: asyncio.Future[None] = self._loop.create_future()
            kept.line.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next(kept)
                raise

    def give_back(self, origin: Origin, wire: Wire) -> None:
        """A connection is not in use any more: it is kept if its last answer left it in order, else closed."""
        kept = self._kept[origin]
        kept.used.discard(wire)
        wire.forget()
        if wire.is_reusable and not self._is_closed:
            wire.idle_since = self._loop.time()
            kept.idle.append(wire)
            if self._sweep_at is None:
                self._sweep_at = self._loop.call_later(_SWEEP_S, self._sweep)
        else:
            wire.close()
        self._next(kept)

    def close(self) -> None:
        """Close all of them; whoever waits for an answer is told."""
        self._is_closed = True
        if self._sweep_at is not None:
            self._sweep_at.cancel()
        for kept in self._kept.values():
            for wire in (*kept.idle, *kept.used):
                wire.close()
            kept.idle.clear()
        for task in self._asked.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _next(self, kept: _Kept) -> None:
        """Let the first in line try."""
        while kept.line:
            turn = kept.line.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _sweep(self) -> None:
        """Close what was idle for too long, and forget origins that have nothing."""
        self._sweep_at = None
        oldest = self._loop.time() - IDLE_S
        for origin, kept in list(self._kept.items()):
            while kept.idle and (kept.idle[0].idle_since <= oldest or not kept.idle[0].is_open):
                kept.idle.popleft().close()
            if not (kept.idle or kept.used or kept.made or kept.line):
                del self._kept[origin]
        if any(kept.idle for kept in self._kept.values()):
            self._sweep_at = self._loop.call_later(_SWEEP_S, self._sweep)

    async def _make(self, origin: Origin, kept: _Kept) -> Wire:
        kept.made += 1
        try:
            addresses = await self._addresses(origin.host, origin.port)
            async with asyncio.timeout(TLS_S if origin.is_tls else CONNECT_S):
                wire = await self._connect(origin, addresses)
            kept.used.add(wire)
            return wire
        except TimeoutError as error:
            self._next(kept)
            raise Unreachable("not connected in time") from error
        except BaseException:
            self._next(kept)
            raise
        finally:
            kept.made -= 1

    async def _connect(self, origin: Origin, addresses: list[AddressInfo]) -> Wire:
        made = await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=_NEXT_ADDRESS_S,
            interleave=1,
            loop=self._loop,
            socket_factory=functools.partial(_open_socket, self._gate),
        )
        try:
            _, wire = await self._loop.create_connection(
                Wire,
                sock=made,
                ssl=self._trust() if origin.is_tls else None,
                server_hostname=origin.host.removesuffix(".") if origin.is_tls else None,
            )
        except BaseException:
            made.close()
            raise
        return wire

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def _addresses(self, host: str, port: int) -> list[AddressInfo]:
        """Where a host may be reached. A name is asked for once at a time, and remembered for a moment."""
        literal = parse_address(host)
        if literal is not None:
            family = socket.AF_INET6 if literal.version == 6 else socket.AF_INET
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", _pair(family, host, port))]
        key = (host, port)
        until, found = self._names.get(key, (0.0, []))
        if self._loop.time() < until:
            return found
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = self._loop.create_task(self._resolve(host, port))
            task.add_done_callback(functools.partial(self._answered, key))
        # Who gives up leaves the question to the others that wait for its answer.
        return await asyncio.shield(task)

    def _answered(self, key: tuple[str, int], task: "asyncio.Task[list[AddressInfo]]") -> None:
        self._asked.pop(key, None)
        if not task.cancelled():
            task.exception()  # Everybody may have given up meanwhile.

    async def _resolve(self, host: str, port: int) -> list[AddressInfo]:
        """Ask the name service, in threads of our own, within `RESOLVE_S` seconds.

        Refused addresses are left out rather than refusing the name: networks that translate IPv4 add a wrapped address
        to every name. The socket factory judges again, so nothing depends on what is remembered here.
        """
        # Both families, whatever addresses this machine has: development servers like to listen on ::1 alone.
        look_up = functools.partial(socket.getaddrinfo, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
        async with asyncio.timeout(RESOLVE_S):
            try:
                entries = await self._loop.run_in_executor(self._threads, look_up)
            except UnicodeError as error:
                raise OSError("name cannot be encoded") from error
        found = {str(entry[4][0]): entry[0] for entry in entries if parse_address(str(entry[4][0])) is not None}
        admitted: list[AddressInfo] = [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", _pair(family, ip, port))
            for ip, family in found.items()
            if self._gate.admits(ip, port)
        ]
        if found and not admitted:
            raise Blocked("address refused")
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        self._names[host, port] = (self._loop.time() + _NAME_S, admitted)
        return admitted


def _pair(family: int, ip: str, port: int) -> Any:
    return (ip, port, 0, 0) if family == socket.AF_INET6 else (ip, port)


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
