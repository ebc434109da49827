"""What is measured: one table of names, documented, used, and rendered as Prometheus reads it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import telemetry
from app.telemetry import METRICS, Span

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_measured() -> Iterator[None]:
    telemetry.reset()
    yield
    telemetry.reset()
    telemetry.end_spans()


def used_in_the_code() -> set[str]:
    found: set[str] = set()
    for folder in ("app", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "telemetry.py" or path.parent.name != "app":
                found |= set(re.findall(r"\"(stepwell_[a-z_]+)\"", path.read_text(encoding="utf-8")))
    # Roles of the database, and the meter of Stripe.
    others = {"stepwell_app", "stepwell_engine", "stepwell_executions"}
    return found - others | {"stepwell_spans_dropped_total"}


def test_every_metric_is_measured_somewhere_and_nothing_else_is() -> None:
    assert used_in_the_code() == {metric.name for metric in METRICS}


def test_every_metric_is_documented_with_type_labels_and_meaning() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels) or '–'} | {m.help} |"
        for m in METRICS
    ]
    assert [row for row in rows if row not in text] == []
    assert len(re.findall(r"^\| `stepwell_", text, re.MULTILINE)) == len(rows)


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name


def test_a_counter_and_a_gauge_carry_the_labels_of_their_process() -> None:
    telemetry.count("stepwell_calls_total", 2, "ok")
    telemetry.count("stepwell_calls_total", 1, "ok")
    telemetry.gauge("stepwell_items_held", 7)
    text = telemetry.render([({"process": 'a"b\\c\n'}, telemetry.snapshot())])
    assert '# TYPE stepwell_calls_total counter\nstepwell_calls_total{process="a\\"b\\\\c\\n",outcome="ok"} 3\n' in text
    assert 'stepwell_items_held{process="a\\"b\\\\c\\n"} 7\n' in text


def test_a_histogram_counts_upwards_to_infinity() -> None:
    for seconds in (0.0005, 0.001, 0.3, 10_000):
        telemetry.observe("stepwell_commit_seconds", seconds)
    lines = telemetry.render([({}, telemetry.snapshot())]).splitlines()
    assert lines[1] == "# TYPE stepwell_commit_seconds histogram"
    assert 'stepwell_commit_seconds_bucket{le="0.001"} 2' in lines
    assert 'stepwell_commit_seconds_bucket{le="0.5"} 3' in lines
    assert 'stepwell_commit_seconds_bucket{le="7200"} 3' in lines
    assert 'stepwell_commit_seconds_bucket{le="+Inf"} 4' in lines
    assert lines[-1] == "stepwell_commit_seconds_count 4"


def test_a_snapshot_of_another_version_is_shown_as_far_as_it_is_known() -> None:
    strange = {
        "values": [["stepwell_gone_total", 1], ["stepwell_calls_total", 1], ["stepwell_items_held", 1]],
        "histograms": {"stepwell_commit_seconds": [1.0, 2.0], "stepwell_gone": [1.0]},
    }
    lines = telemetry.render([({}, strange)]).splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["stepwell_items_held 1"]


def span(n: int) -> Span:
    return Span(bytes(15) + bytes([1 + n % 255]), telemetry.span_id(str(n)), None, f"run {n}", 1.0, 2.0, {})


def test_nobody_pays_for_spans_that_nobody_collects() -> None:
    telemetry.add_span(span(1))
    assert telemetry.spans is None


def test_the_oldest_spans_are_dropped_and_counted_when_too_many_wait() -> None:
    queue = telemetry.collect_spans()
    for n in range(telemetry.LONGEST_QUEUE + 3):
        telemetry.add_span(span(n))
    assert len(queue) == telemetry.LONGEST_QUEUE
    assert queue[0].name == "run 3"
    assert telemetry.snapshot()["values"] == [["stepwell_spans_dropped_total", 3.0]]


def test_the_header_of_a_trace_has_the_form_of_the_standard() -> None:
    assert re.fullmatch(
        r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", telemetry.traceparent(bytes(16), telemetry.span_id("a", "b"))
    )
