"""Station 4, the call itself: a hot run and a leased item become a signed request, the answer becomes a `Reply`.

No transaction and no connection is held here (G12). The body is spliced from stored canonical pieces, so nothing of a
user's payload is parsed or sorted again (D6).
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.adapters.http import Answer, Caller, CallFailed
from app.domain.ids import FunctionId, to_ulid, ulid_of
from app.domain.limits import MAX_CALL_BYTES
from app.domain.protocol.addresses import call_url
from app.domain.protocol.call import DISCOVERY, ServerKind, call_body, call_headers, can_fetch, must_fetch
from app.domain.protocol.reply import Reply, read_reply, reply_from_transport
from app.domain.protocol.signature import refuses_signature, sign
from app.domain.run.state import Defer
from app.engine.catalogue import KnownFunction
from app.engine.clock import DatabaseClock
from app.engine.hot import HotRun, LeasedItem
from app.engine.measured import called, trace_header

_TOO_LARGE = 413
_REMEMBERED = 2048


@dataclass(frozen=True, slots=True)
class Called:
    """An answered (or failed) call: what it means, its HTTP status (0 when none came), and how long it took.

    `answer` is the raw answer, if one came: history keeps a part of those that failed.
    """

    reply: Reply
    status: int
    millis: float
    request_id: str
    answer: Answer | None = None


@dataclass(slots=True)
class Dispatch:
    """Makes calls for a worker. `server_kind` is `dev` or `cloud`; signed when the environment has a key."""

    caller: Caller
    clock: DatabaseClock
    server_kind: ServerKind
    is_signed: bool
    timeout_s: float
    #: Functions whose endpoint takes less than the protocol allows, and how much it may be.
    _largest: dict[FunctionId, int] = field(default_factory=dict)

    async def call(self, hot: HotRun, item: LeasedItem, known: KnownFunction, keys: tuple[str, ...]) -> Called:
        """Make the call of `item` and read the answer; never raises for anything the app or the network does."""
        run, facts = hot.run, hot.facts
        request_id = to_ulid(ulid_of(time.time_ns() // 1_000_000, os.urandom(10)))
        step_id = item.step_key or DISCOVERY
        item_text, run_text = str(item.id), to_ulid(run.id)

        def body_with(*, use_api: bool) -> bytes:
            return call_body(
                run_id=run_text,
                function_id=str(facts.function_id),
                item_id=item_text,
                request_id=request_id,
                generation_id=item.fence,
                step_id=step_id,
                attempt=item.attempt,
                max_attempts=run.retry.max_attempts,
                is_planned=run.is_planned,
                environment=facts.environment_name,
                stack=tuple(hot.memos),
                event=facts.event,
                events=facts.events,
                steps=hot.told_steps(),
                version=run.request_version,
                use_api=use_api,
                defers=_defers(run.defers) if run.defers else b"{}",
            )

        body = body_with(use_api=False)
        largest = self._largest.get(facts.function_id, MAX_CALL_BYTES)
        is_whole = not must_fetch(len(body), known.function.sdk, largest)
        if not is_whole:
            body = body_with(use_api=True)
        url = call_url(known.function.url, facts.function_slug, step_id)
        started = time.perf_counter()
        trace = trace_header(hot, item)
        while True:
            headers = call_headers(
                run_id=run_text,
                request_id=request_id,
                item_id=item_text,
                generation_id=item.fence,
                step_id=step_id,
                version=run.request_version,
                server_kind=self.server_kind,
                traceparent=trace,
            )
            try:
                answer = await self._signed(url, headers, body, keys if self.is_signed else ())
            except CallFailed as failure:
                reply: Reply = reply_from_transport(
                    "app_unreachable" if failure.kind == "app_url_invalid" else failure.kind, failure.message
                )
                millis = (time.perf_counter() - started) * 1000
                called(hot, item, 0, millis, request_id)
                return Called(reply, 0, millis, request_id)
            if answer.status != _TOO_LARGE or not is_whole or not can_fetch(known.function.sdk):
                break
            # Refused for its size before the function ran (protocol 28, 26): the same call again, for the app to fetch.
            is_whole = False
            self._remember(facts.function_id, len(body) - 1)
            body = body_with(use_api=True)
        reply = read_reply(answer.status, answer.headers, answer.body, now=self.clock.now())
        called(hot, item, answer.status, answer.millis, request_id)
        return Called(reply, answer.status, answer.millis, request_id, answer)

    def _remember(self, function_id: FunctionId, largest: int) -> None:
        if len(self._largest) >= _REMEMBERED:
            self._largest.clear()
        self._largest[function_id] = largest

    async def _signed(self, url: str, headers: dict[str, str], body: bytes, keys: tuple[str, ...]) -> Answer:
        """Call with the first key the app accepts: during a rotation it may know the next one only (protocol 4.5)."""

        async def ask() -> Answer:
            return await self.caller.call("POST", url, headers=headers, body=body, timeout_s=self.timeout_s)

        for key in keys[:-1]:
            headers["x-inngest-signature"] = sign(key, body, int(time.time()))
            answer = await ask()
            if not refuses_signature(answer.status, answer.headers):
                return answer
        if keys:
            headers["x-inngest-signature"] = sign(keys[-1], body, int(time.time()))
        return await ask()


def _defers(defers: Mapping[str, Defer]) -> bytes:
    """What a call says of defers: known ones are not said again, and pending ones may be aborted."""
    parts = [
        b'"%s":{"abortable":%s}' % (k.encode(), b"true" if defers[k].is_pending else b"false") for k in sorted(defers)
    ]
    return b"{" + b",".join(parts) + b"}"
