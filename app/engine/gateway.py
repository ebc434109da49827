"""Makes the requests of `step.fetch` and `step.ai.infer` (protocol 30.5), through the one door for outgoing calls.

The app is not called meanwhile and no slot of its function is held. A request lies sealed in `gateway_calls` from the
answer that asked for it until its step is settled: it is opened here and nowhere else. Nothing of it is logged; what
the history keeps is the status, the time and, of models, their name and the tokens used.
"""

import time
from dataclasses import dataclass

import msgspec

from app.adapters.http import Caller, CallFailed
from app.adapters.sealing import CannotOpen, Sealer
from app.domain.protocol.gateway import Outcome, lost, read_answer, read_request
from app.domain.protocol.opcodes import OpCode
from app.domain.protocol.reply import parse_retry_after
from app.domain.run.happenings import Fetched
from app.domain.run.state import StepKind
from app.engine.apply import Told
from app.engine.clock import DatabaseClock
from app.engine.hot import HotRun, LeasedItem
from app.store.db import Pool
from app.store.named import fetch, named

#: Sentences for tenants in place of the caller's, which speak of apps.
_SENTENCES = {
    "app_unreachable": "The address could not be reached, or closed the connection before it answered.",
    "app_tls_failed": "No secure connection to the address could be made.",
    "app_timeout": "The address did not answer in time.",
    "app_address_blocked": "The address may not be called from here.",
    "app_redirect_blocked": "The address answered with a redirect that is not followed.",
    "app_response_too_large": "The answer is larger than allowed.",
    "app_url_invalid": "The URL is not valid, or not one that may be called.",
}


@dataclass(slots=True)
class Gateway:
    """Makes requests for a worker."""

    pool: Pool
    caller: Caller
    sealer: Sealer
    clock: DatabaseClock
    timeout_s: float

    async def perform(self, hot: HotRun, item: LeasedItem) -> tuple[Fetched, Told]:
        """Make the request of `item` and say what became of it; never raises for anything the other side does."""
        started_at, began = self.clock.now(), time.perf_counter()
        is_ai = hot.run.steps[item.step_key or ""].kind is StepKind.AI
        status, retry_after = 0, None
        try:
            opts = await self._opts(hot, item)
        except CannotOpen:
            # Another secret key may be put back; the request stays, and so do the attempts.
            opts, outcome = None, lost(is_ai, "The stored request cannot be opened.", is_final=False)
        else:
            outcome = lost(is_ai, "The request is not there any more.", is_final=True)
        sent = read_request(OpCode.AI_GATEWAY if is_ai else OpCode.GATEWAY, opts)
        if sent is not None:
            try:
                answer = await self.caller.call(
                    sent.method, sent.address, headers=sent.headers, body=sent.body, timeout_s=self.timeout_s
                )
            except CallFailed as failure:
                outcome = lost(is_ai, _SENTENCES[failure.kind], is_final=not failure.retryable)
            else:
                status = answer.status
                outcome = read_answer(sent, status, answer.headers, answer.body)
                if outcome.memo is None and "retry-after" in answer.headers:
                    retry_after = parse_retry_after(answer.headers["retry-after"], self.clock.now())
        happening = Fetched(item.key, outcome.memo, outcome.error, retry_after, outcome.is_final)
        millis = (time.perf_counter() - began) * 1000
        told = Told(
            "gateway", item.step_key, item.key, item.attempt, started_at, _detail(status, millis, outcome, item)
        )
        return happening, told

    async def _opts(self, hot: HotRun, item: LeasedItem) -> bytes | None:
        async with self.pool.acquire(timeout=10) as connection:
            rows = await fetch(connection, named("lease", "gateway_call"), run_id=hot.run.id, step_key=item.step_key)
        return self.sealer.open(rows[0]["sealed"], hot.facts.scope).encode() if rows else None


def _detail(status: int, millis: float, outcome: Outcome, item: LeasedItem) -> bytes:
    """The journal's line of a request."""
    return msgspec.json.encode(
        {
            "status": status,
            "ms": round(millis, 2),
            "outcome": "ok" if outcome.memo is not None else "error",
            "error": msgspec.Raw(outcome.error) if outcome.error else None,
            "redeliveries": item.redeliveries,
            "ai": _usage(outcome),
        }
    )


def _usage(outcome: Outcome) -> dict[str, object] | None:
    usage = outcome.usage
    if usage is None:
        return None
    return {
        "provider": usage.provider,
        "model": usage.model,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
