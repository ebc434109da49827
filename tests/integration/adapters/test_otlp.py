"""Spans on their way to a collector: as the standard has them, in batches, and never in anybody's way."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import telemetry
from app.adapters.otlp import SpanExporter
from app.telemetry import Span

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def nothing_measured() -> Iterator[None]:
    telemetry.reset()
    yield
    telemetry.reset()
    telemetry.end_spans()


def span(name: str) -> Span:
    return Span(
        bytes(range(16)), bytes(range(8)), bytes(8), name, 1.5, 2.5, {"a": "x", "n": 3}, is_error=name == "call b"
    )


class Collector:
    """A collector that answers with the statuses it was told, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        status = self.statuses.pop(0) if self.statuses else 200
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        await writer.drain()
        writer.close()
        await self.heard.put((head.partition("\r\n")[0], body))


@asynccontextmanager
async def collecting(collector: Collector) -> AsyncIterator[str]:
    server = await asyncio.start_server(collector.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/base"
    finally:
        server.close()
        await server.wait_closed()


async def test_spans_go_out_as_the_standard_has_them() -> None:
    collector = Collector()
    async with collecting(collector) as address:
        exporter = SpanExporter(address, "stepwell-worker", "worker-1", every_s=0.01)
        exporter.start()
        telemetry.add_span(span("run a"))
        telemetry.add_span(span("call b"))
        line, body = await asyncio.wait_for(collector.heard.get(), PATIENCE_S)
        await exporter.stop()
    assert line == "POST /base/v1/traces HTTP/1.1"
    (resource,) = body["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "stepwell-worker"}} in resource["resource"]["attributes"]
    run, call = resource["scopeSpans"][0]["spans"]
    assert run == {
        "traceId": bytes(range(16)).hex(),
        "spanId": bytes(range(8)).hex(),
        "parentSpanId": "00" * 8,
        "name": "run a",
        "kind": 1,
        "startTimeUnixNano": "1500000000",
        "endTimeUnixNano": "2500000000",
        "attributes": [{"key": "a", "value": {"stringValue": "x"}}, {"key": "n", "value": {"intValue": "3"}}],
        "status": {"code": 1},
    }
    assert (call["kind"], call["status"]) == (3, {"code": 2})


async def test_a_batch_the_collector_will_take_later_is_sent_again() -> None:
    collector = Collector(503)
    async with collecting(collector) as address:
        exporter = SpanExporter(address, "s", every_s=0.01)
        exporter.start()
        telemetry.add_span(span("run a"))
        first = (await asyncio.wait_for(collector.heard.get(), PATIENCE_S))[1]
        again = (await asyncio.wait_for(collector.heard.get(), PATIENCE_S))[1]
        await exporter.stop()
    assert first == again


async def test_spans_are_kept_while_the_collector_is_away_and_the_end_does_not_wait_for_it() -> None:
    exporter = SpanExporter("http://127.0.0.1:1", "s", every_s=0.01)
    exporter.start()
    telemetry.add_span(span("run a"))
    assert telemetry.spans is not None
    assert not await exporter._send()
    assert [s.name for s in telemetry.spans] == ["run a"]
    await asyncio.wait_for(exporter.stop(), PATIENCE_S)
    assert telemetry.spans is None
