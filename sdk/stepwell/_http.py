"""Requests to the server over kept-open connections, with the standard library only.

Blocking on purpose: the asynchronous parts call it in a thread. A connection is used by one request at a time.
"""

import http.client
import ssl
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

#: Seconds a request may take. The server answers these requests from its database at once; anything longer is trouble.
TIMEOUT_S = 30.0

#: Idle connections kept per origin.
_KEPT = 16


class UnreachableError(OSError):
    """No HTTP answer came: refused, timed out, or cut off."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes


@dataclass(frozen=True)
class _Message:
    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


class Connections:
    """A pool of open connections, safe for threads."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = defaultdict(list)
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        """Make one request; UnreachableError when no answer comes.

        Every request of the SDK may safely arrive twice, so one that fails on a connection the server had meanwhile
        closed is sent again on a new one.
        """
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        message = _Message(method, path, body, dict(headers))
        with self._lock:
            kept = self._idle[origin].pop() if self._idle[origin] else None
        if kept is not None:
            try:
                return self._exchange(kept, origin, message)
            except UnreachableError as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise
        return self._exchange(self._open(*origin), origin, message)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _open(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(netloc, timeout=TIMEOUT_S)
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return http.client.HTTPSConnection(netloc, timeout=TIMEOUT_S, context=self._tls)

    def _exchange(self, connection: http.client.HTTPConnection, origin: tuple[str, str], message: _Message) -> Reply:
        try:
            connection.request(message.method, message.path, body=message.body, headers=message.headers)
            answer = connection.getresponse()
            reply = Reply(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise UnreachableError(f"{type(error).__name__}: {error}") from error
        with self._lock:
            if answer.will_close or len(self._idle[origin]) >= _KEPT:
                connection.close()
            else:
                self._idle[origin].append(connection)
        return reply
