"""The door for events: `POST /e/{key}`, one event or many, all or nothing (protocol 5, reliability-security 4 A).

A bare ASGI application, because the framework would cost more than the work: it reads the key, bounds and reads the
body, and hands over to `engine.ingest`. A refusal must be cheap too, since SDKs repeat every failed send about five
times: what can be known without the body is checked before it is read. The order is that of docs/overload.md:

    405 method · 401 key · 415 encoding · 413 announced size · 429 rate · 503 back-pressure ┊ body ┊ 503 memory ·
    408 too slow · 413 size · 400 and 413 events · 503 storage
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec

from app.accounts.branches import Branches
from app.accounts.plans import Plans
from app.accounts.resolve import EventKeys
from app.domain.errors import Refused
from app.domain.event import read_events
from app.domain.ids import EnvironmentId, to_ulid, ulid_of
from app.domain.limits import MAX_BODY_BYTES, PlanLimits
from app.engine.ingest import Ingest
from app.web.api.event_rate import EventRate
from app.web.audience import Audience
from app.web.errors import body_of, fault_of
from app.web.load import Body, Load, Overloaded

log = logging.getLogger(__name__)

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
    (b"access-control-expose-headers", b"retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"),
    (b"access-control-max-age", b"3600"),
)


class _Cut(Refused):
    """The body was not read to its end, so the connection cannot be used again."""


@dataclass(frozen=True, slots=True)
class EventsDoor:
    """Serves `/e/{key}`. What a tenant may send comes with its plan; `load` is what the process holds of bodies."""

    ingest: Ingest
    keys: EventKeys
    branches: Branches
    plans: Plans
    server_kind: str
    load: Load
    rate: EventRate = field(default_factory=EventRate)

    async def __call__(self, scope: type_of_scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] == "OPTIONS":
            await self._send(send, 204, b"", ())
            return
        usage: list[tuple[bytes, bytes]] = []
        try:
            with self.load.body() as held:
                ids = await self._accept(scope, receive, held, usage)
        except Exception as error:  # noqa: BLE001 - the door is outside the framework, which would catch it
            await self._refuse(send, error, usage)
        else:
            body = b'{"ids":["' + b'","'.join(i.encode() for i in ids) + b'"],"status":200}'
            await self._send(send, 200, body, usage)

    async def _accept(
        self, scope: type_of_scope, receive: Receive, held: Body, usage: list[tuple[bytes, bytes]]
    ) -> list[str]:
        """The ids of stored events. `usage` gets the headers that tell what the environment may still send."""
        if scope["method"] != "POST":
            raise Refused("method_not_allowed", "Only POST and OPTIONS are answered here.")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        key = unquote(scope["path"][len("/e/") :])
        tenant = await self.keys.find(key)
        if tenant is None:
            raise Refused("event_key_invalid", "Event key not found")
        branch = headers.get(b"x-inngest-env")
        if branch:
            tenant = await self.branches.for_event(tenant, branch.decode("latin-1"))
        if headers.get(b"content-encoding", b"identity") not in (b"identity", b""):
            raise Refused("content_encoding_unsupported", "Send the body without content-encoding.")
        _check_announced(headers)
        plan = await self.plans.of(tenant.account_id)
        self._tell(tenant.environment_id, plan, usage)
        self.rate.ask(tenant.environment_id, plan)
        self.ingest.refuse_when_full()
        body = await _read_body(receive, held)
        events = read_events(body, max_event_bytes=plan.event_bytes, received_ms=time.time_ns() // 1_000_000)
        self.rate.count(tenant.environment_id, plan, len(events))
        self._tell(tenant.environment_id, plan, usage)
        seed = headers.get(b"x-inngest-event-id-seed")
        ids = await self.ingest.add(tenant, events, seed=seed.decode("latin-1") if seed else None, body=body)
        return [to_ulid(i) for i in ids]

    def _tell(self, environment_id: EnvironmentId, plan: PlanLimits, usage: list[tuple[bytes, bytes]]) -> None:
        found = self.rate.usage(environment_id, plan)
        if found is not None:
            usage[:] = found.headers

    async def _refuse(self, send: Send, error: Exception, usage: list[tuple[bytes, bytes]]) -> None:
        fault = fault_of(error)
        request_id = to_ulid(ulid_of(time.time_ns() // 1_000_000, os.urandom(10)))
        if fault.status == 500:
            log.error("event request failed", extra={"request_id": request_id}, exc_info=error)
        more = [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
        more += [(b"x-request-id", request_id.encode()), *usage]
        if fault.status == 405:
            more.append((b"allow", _ALLOW))
        if isinstance(error, _Cut | Overloaded):
            more.append((b"connection", b"close"))
        await self._send(send, fault.status, msgspec.json.encode(body_of(Audience.EVENTS, fault, request_id)), more)

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


def _check_announced(headers: dict[bytes, bytes]) -> None:
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _Cut("body_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.")


async def _read_body(receive: Receive, held: Body) -> bytes:
    """The whole body, cut while reading when it is too large, too slow, or too much with all the others."""
    first = await receive()
    chunks: list[bytes] = [first.get("body", b"")]
    held.grows(len(chunks[0]))
    if not first.get("more_body"):
        return chunks[0]
    size = len(chunks[0])
    deadline, floor = time.monotonic() + _SLOW_S, size
    while True:
        try:
            message = await asyncio.wait_for(receive(), max(0.01, deadline - time.monotonic()))
        except TimeoutError:
            if size - floor < _SLOW_BYTES:
                raise _Cut("request_timeout", "The body came too slowly.") from None
            deadline, floor = time.monotonic() + _SLOW_S, size
            continue
        if message["type"] == "http.disconnect":
            raise _Cut("request_timeout", "The body did not arrive whole.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        held.grows(len(chunks[-1]))
        if size > MAX_BODY_BYTES:
            raise _Cut("body_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.")
        if not message.get("more_body"):
            return b"".join(chunks)
