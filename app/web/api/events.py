"""The door for events: `POST /e/{key}`, one event or many, all or nothing (protocol 5, reliability-security 4 A).

A bare ASGI application, because the framework would cost more than the work: it reads the key, bounds and reads the
body, and hands over to `engine.ingest`. A refusal must be cheap too, since SDKs repeat every failed send about five
times.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from app.accounts.resolve import EventKeys
from app.domain.errors import Outside, Refused
from app.domain.event import read_events
from app.domain.ids import to_ulid
from app.domain.limits import MAX_BODY_BYTES
from app.domain.scope import Scope
from app.engine.ingest import Ingest

type_of_scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: A body slower than this much per window is cut (L1 row "slower than 1 KB/s for 30 s").
_SLOW_S = 30.0
_SLOW_BYTES = 30 * 1024
_ALLOW = b"POST, OPTIONS"
_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, DELETE, OPTIONS"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"3600"),
)


class _Answer(Exception):
    """An answer decided early: status, text, code."""

    def __init__(
        self, status: int, error: str, code: str, details: dict[str, object] | None = None, *, close: bool = False
    ) -> None:
        self.status, self.error, self.code, self.details, self.close = status, error, code, details, close


@dataclass(frozen=True, slots=True)
class EventsDoor:
    """Serves `/e/{key}`. `max_event_bytes` of a tenant comes with its plan."""

    ingest: Ingest
    keys: EventKeys
    server_kind: str
    max_event_bytes: Callable[[Scope], int]

    async def __call__(self, scope: type_of_scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope["method"]
        if method == "OPTIONS":
            await self._send(send, 204, b"", ())
            return
        try:
            if method != "POST":
                raise _Answer(405, "Only POST and OPTIONS are answered here.", "method_not_allowed")
            ids = await self._accept(scope, receive)
        except _Answer as answer:
            await self._refuse(send, answer)
        except Refused as refused:
            status = 413 if refused.code == "event_too_large" else 400
            await self._refuse(send, _Answer(status, refused.message, refused.code, refused.details or None))
        except Outside as outside:
            await self._refuse(send, _Answer(503, outside.message, outside.code))
        else:
            body = b'{"ids":["' + b'","'.join(i.encode() for i in ids) + b'"],"status":200}'
            await self._send(send, 200, body, ())

    async def _accept(self, scope: type_of_scope, receive: Receive) -> list[str]:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        key = unquote(scope["path"][len("/e/") :])
        tenant = await self.keys.find(key)
        if tenant is None:
            raise _Answer(401, "Event key not found", "event_key_invalid")
        if headers.get(b"content-encoding", b"identity") not in (b"identity", b""):
            raise _Answer(415, "Send the body without content-encoding.", "content_encoding_unsupported")
        body = await _read_body(headers, receive)
        events = read_events(
            body, max_event_bytes=self.max_event_bytes(tenant), received_ms=time.time_ns() // 1_000_000
        )
        seed = headers.get(b"x-inngest-event-id-seed")
        ids = await self.ingest.add(tenant, events, seed=seed.decode("latin-1") if seed else None, body=body)
        return [to_ulid(i) for i in ids]

    async def _refuse(self, send: Send, answer: _Answer) -> None:
        body: dict[str, object] = {"ids": [], "status": answer.status, "error": answer.error, "code": answer.code}
        if answer.details:
            body["details"] = answer.details
        more: list[tuple[bytes, bytes]] = []
        if answer.status == 405:
            more.append((b"allow", _ALLOW))
        if answer.status in (429, 503):
            # Spread out, so that refused senders do not come back together.
            more.append((b"retry-after", str(random.randint(1, 5)).encode()))  # noqa: S311 - not a secret
        if answer.close:
            more.append((b"connection", b"close"))
        await self._send(send, answer.status, msgspec.json.encode(body), more)

    async def _send(self, send: Send, status: int, body: bytes, more: Any) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-inngest-server-kind", self.server_kind.encode()),
            *_CORS,
            *more,
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _read_body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The whole body, refused by its announced length or cut while reading; slow senders are cut as well."""
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _Answer(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", "body_too_large", close=True)
    first = await receive()
    chunks: list[bytes] = [first.get("body", b"")]
    if not first.get("more_body"):
        return chunks[0]
    size = len(chunks[0])
    deadline, floor = time.monotonic() + _SLOW_S, size
    while True:
        try:
            message = await asyncio.wait_for(receive(), max(0.01, deadline - time.monotonic()))
        except TimeoutError:
            if size - floor < _SLOW_BYTES:
                raise _Answer(408, "The body came too slowly.", "request_timeout", close=True) from None
            deadline, floor = time.monotonic() + _SLOW_S, size
            continue
        if message["type"] == "http.disconnect":
            raise _Answer(408, "The body did not arrive whole.", "request_timeout", close=True)
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise _Answer(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", "body_too_large", close=True)
        if not message.get("more_body"):
            return b"".join(chunks)
