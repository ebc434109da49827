"""One trace from the event over its run to each call, and the app is told its place in it."""

from collections.abc import Iterator

import pytest

from app import telemetry
from app.domain.ids import to_ulid
from tests.integration.engine.stage import done, ops, ran, staged


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    telemetry.reset()
    yield
    telemetry.end_spans()
    telemetry.reset()


async def test_event_run_and_calls_are_one_trace(database: str) -> None:
    telemetry.collect_spans()
    async with staged(database) as stage:
        stage.plays("pay", lambda asked: done() if "a" in asked.steps else ops(ran("a", 1)), event="order/made")
        await stage.sync()
        await stage.start()
        event_id = await stage.send("order/made")
        run = await stage.ended(event_id)
        headers = [asked.headers.get("traceparent", "") for asked in stage.apps.asked["pay"]]
    spans = [s for s in telemetry.spans or () if s.trace_id == event_id.bytes]
    by_name = {name: [s for s in spans if s.name.startswith(name)] for name in ("event", "run", "call")}
    (event,), (whole,), calls = by_name["event"], by_name["run"], by_name["call"]
    assert (event.parent_id, whole.parent_id) == (None, event.span_id)
    assert [call.parent_id for call in calls] == [whole.span_id] * 2
    assert headers == [telemetry.traceparent(event_id.bytes, call.span_id) for call in calls]
    assert {span.attributes["stepwell.run"] for span in (whole, *calls)} == {to_ulid(run["id"])}
    assert all(span.started <= span.ended for span in spans)


async def test_without_a_collector_apps_get_no_header_and_everything_is_still_counted(database: str) -> None:
    async with staged(database) as stage:
        stage.plays("pay", lambda asked: done() if "a" in asked.steps else ops(ran("a", 1)), event="order/made")
        await stage.sync()
        await stage.start()
        await stage.ended(await stage.send("order/made"))
        assert "traceparent" not in stage.apps.asked["pay"][0].headers
    counted = {tuple(v[:-1]): v[-1] for v in telemetry.snapshot()["values"]}
    assert counted["stepwell_events_received_total", "api"] == 1
    assert counted["stepwell_runs_started_total",] == 1
    assert counted["stepwell_runs_ended_total", "completed"] == 1
    assert counted["stepwell_steps_settled_total", "completed"] == 1
    assert counted["stepwell_calls_total", "ok"] == 2
    histograms = telemetry.snapshot()["histograms"]
    assert sum(histograms["stepwell_call_seconds"][:-1]) == 2
    assert sum(histograms["stepwell_commit_batch_runs"][:-1]) >= 2
