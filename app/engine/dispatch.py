"""Station 4, the call itself: a hot run and a leased item become a signed request, the answer becomes a `Reply`.

No transaction and no connection is held here (G12). The body is spliced from stored canonical pieces, so nothing of a
user's payload is parsed or sorted again (D6).
"""

import os
import time
from dataclasses import dataclass

from app.adapters.http import CallFailed, Caller
from app.domain.ids import to_ulid, ulid_of
from app.domain.limits import MAX_CALL_BODY_BYTES
from app.domain.protocol.call import call_body, call_headers, call_url
from app.domain.protocol.reply import Reply, read_reply, reply_from_transport
from app.domain.protocol.signature import sign
from app.engine.catalogue import KnownFunction
from app.engine.clock import DatabaseClock
from app.engine.hot import HotRun, LeasedItem


@dataclass(frozen=True, slots=True)
class Called:
    """An answered (or failed) call: what it means, its HTTP status (0 when none came), and how long it took."""

    reply: Reply
    status: int
    millis: float
    request_id: str


@dataclass(slots=True)
class Dispatch:
    """Makes calls for a worker. `server_kind` is `dev` or `cloud`; signed when the environment has a key."""

    caller: Caller
    clock: DatabaseClock
    server_kind: str
    is_signed: bool
    timeout_s: float

    async def call(self, hot: HotRun, item: LeasedItem, known: KnownFunction, keys: tuple[str, ...]) -> Called:
        """Make the call of `item` and read the answer; never raises for anything the app or the network does."""
        run, facts = hot.run, hot.facts
        request_id = to_ulid(ulid_of(time.time_ns() // 1_000_000, os.urandom(10)))
        step_id = item.step_key or "step"
        item_text = str(item.id)

        def body_with(*, use_api: bool) -> bytes:
            return call_body(
                run_id=to_ulid(run.id), fn_id=str(facts.function_id), env=facts.environment_name, step_id=step_id,
                attempt=item.attempt, max_attempts=run.retry.max_attempts, stack=tuple(hot.memos),
                disable_immediate_execution=run.is_planned, item_id=item_text, request_id=request_id,
                generation_id=item.fence, event=facts.event, events=facts.events, steps=hot.memos.items(),
                version=run.request_version, use_api=use_api,
            )

        body = body_with(use_api=False)
        # Go apps ignore use_api and need the whole state whatever its size (protocol 10.6).
        if len(body) > MAX_CALL_BODY_BYTES and not known.function.sdk.startswith("go"):
            body = body_with(use_api=True)
        headers = call_headers(
            run_id=to_ulid(run.id), request_version=run.request_version, step_id=step_id, request_id=request_id,
            generation_id=item.fence, job_id=item_text, server_kind=self.server_kind,
        )
        if self.is_signed and keys:
            headers["x-inngest-signature"] = sign(keys[0], body, int(time.time()))
        started = time.perf_counter()
        try:
            answer = await self.caller.call(
                "POST", call_url(known.url, facts.function_slug, step_id), headers=headers, body=body, timeout_s=self.timeout_s
            )
        except CallFailed as failure:
            reply: Reply = reply_from_transport(failure.kind, failure.message)
            return Called(reply, 0, (time.perf_counter() - started) * 1000, request_id)
        reply = read_reply(answer.status, answer.headers, answer.body, now=self.clock.now())
        return Called(reply, answer.status, answer.millis, request_id)
