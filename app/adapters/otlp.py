"""Sends spans to a collector: OTLP over HTTP with JSON, in batches, beside everything else.

The queue is bounded (`telemetry.LONGEST_QUEUE`); while the collector is away spans are dropped, oldest first, and counted.
One request at a time, each with a limit, and a pause that grows when it fails. Nothing in the engine waits for this.
The collector's address is the operator's own setting, so the gate for apps' addresses does not apply.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from app import telemetry
from app.telemetry import Span

log = logging.getLogger(__name__)

_BATCH = 512
_EVERY_S = 1.0
_LIMIT_S = 5.0
_LONGEST_PAUSE_S = 60.0
_LARGEST_ANSWER = 64 * 1024
#: What a collector may say that means "later": everything else that is no success loses the batch (OTLP specification).
_AGAIN = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class SpanExporter:
    """The task that empties the queue. `endpoint` is the collector's base address, as `http://collector:4318`."""

    endpoint: str
    service: str
    instance: str = ""
    every_s: float = _EVERY_S
    _task: "asyncio.Task[None] | None" = field(default=None, init=False)

    def start(self) -> None:
        """Begin to collect spans and to send them."""
        telemetry.collect_spans()
        self._task = asyncio.create_task(self._run(), name="otlp")

    async def stop(self) -> None:
        """Send what waits, once, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if telemetry.spans:
            await self._send()
        telemetry.end_spans()

    async def _run(self) -> None:
        pause = self.every_s
        while True:
            await asyncio.sleep(pause)
            while telemetry.spans:
                if not await self._send():
                    pause = min(max(pause * 2, 1.0), _LONGEST_PAUSE_S)
                    break
                pause = self.every_s

    async def _send(self) -> bool:
        """Send one batch; a batch the collector may take later stays in front of the queue."""
        queue = telemetry.spans
        if not queue:
            return True
        batch = [queue.popleft() for _ in range(min(_BATCH, len(queue)))]
        try:
            async with asyncio.timeout(_LIMIT_S):
                status = await self._post(body_of(batch, self.service, self.instance))
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            log.debug("the collector is away", extra={"error": repr(error)})
            status = 503
        if status not in _AGAIN:
            return True
        room = telemetry.LONGEST_QUEUE - len(queue)
        if room < len(batch):
            telemetry.count("stepwell_spans_dropped_total", len(batch) - max(room, 0))
        queue.extendleft(reversed(batch[len(batch) - max(room, 0) :] if room < len(batch) else batch))
        return False

    async def _post(self, body: bytes) -> int:
        parts = urlsplit(self.endpoint)
        is_tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if is_tls else 80)
        path = parts.path.rstrip("/") + "/v1/traces"
        reader, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context() if is_tls else None)
        try:
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            line = await reader.readline()
            words = line.split()
            if len(words) < 2 or not words[1].isdigit():
                raise ValueError("not an HTTP answer")
            await reader.read(_LARGEST_ANSWER)
            return int(words[1])
        finally:
            writer.close()


def body_of(batch: Sequence[Span], service: str, instance: str) -> bytes:
    """An `ExportTraceServiceRequest` as JSON: ids in hexadecimal, times in nanoseconds as text."""
    resource = {"service.name": service} | ({"service.instance.id": instance} if instance else {})
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource)},
                    "scopeSpans": [{"scope": {"name": "stepwell"}, "spans": [_span(span) for span in batch]}],
                }
            ]
        }
    ).encode()


def _span(span: Span) -> dict[str, Any]:
    told: dict[str, Any] = {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "name": span.name,
        "kind": 3 if span.name.startswith("call ") else 1,
        "startTimeUnixNano": str(int(span.started * 1e9)),
        "endTimeUnixNano": str(int(span.ended * 1e9)),
        "attributes": _attributes(span.attributes),
        "status": {"code": 2 if span.is_error else 1},
    }
    if span.parent_id is not None:
        told["parentSpanId"] = span.parent_id.hex()
    return told


def _attributes(given: Any) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in given.items()
    ]
