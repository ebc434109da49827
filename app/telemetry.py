"""What a process measures of itself: one table of names, counters in memory, and spans on their way out.

Anybody may count; nobody here reads the database or opens a connection. `engine/vitals.py` writes a snapshot to the database
every few seconds, `web/metrics.py` renders the snapshots of all processes for Prometheus, `adapters/otlp.py` takes the
spans away. Counting costs a microsecond and never fails: a name that is not in the table is a KeyError in tests, because
every place that counts is walked by them.
"""

import hashlib
import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
#: Seconds; from a commit on a good disk to the longest call.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 7200.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured thing. `of` is whether each process measures it, or the database knows it for all."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    of: Literal["process", "database"] = "process"


METRICS: Final[tuple[Metric, ...]] = (
    Metric("stepwell_events_received_total", "counter", "Events stored and acknowledged.", ("source",)),
    Metric("stepwell_ingest_batch_events", "histogram", "Events in one commit of the ingest.", (), _SIZES),
    Metric("stepwell_ingest_commit_seconds", "histogram", "Time of one commit of the ingest.", (), _SECONDS),
    Metric("stepwell_events_reacted_total", "counter", "Events taken from the inbox."),
    Metric("stepwell_runs_started_total", "counter", "Runs made by events and schedules."),
    Metric("stepwell_runs_ended_total", "counter", "Runs that ended, by status.", ("status",)),
    Metric("stepwell_steps_settled_total", "counter", "Steps that got their outcome, by state.", ("state",)),
    Metric("stepwell_calls_total", "counter", "Calls to apps, by outcome.", ("outcome",)),
    Metric("stepwell_call_seconds", "histogram", "Time of one call to an app.", (), _SECONDS),
    Metric("stepwell_commit_batch_runs", "histogram", "Runs in one commit of the engine.", (), _SIZES),
    Metric("stepwell_commit_seconds", "histogram", "Time of one commit of the engine.", (), _SECONDS),
    Metric("stepwell_commit_losers_total", "counter", "Entries that did not win at once and went the slow path."),
    Metric("stepwell_leases_taken_total", "counter", "Items leased from the queue; hot successors are not among them."),
    Metric("stepwell_poison_work_total", "counter", "Runs failed because their call took its worker down too often."),
    Metric("stepwell_repairs_total", "counter", "What keepers of this process put right, by kind.", ("kind",)),
    Metric("stepwell_items_held", "gauge", "Items this worker holds a lease of."),
    Metric("stepwell_items_limit", "gauge", "Items this worker takes at most at its present pace."),
    Metric("stepwell_pool_connections", "gauge", "Database connections by pool and state.", ("pool", "state")),
    Metric("stepwell_loop_lag_seconds", "gauge", "Longest delay of the event loop since the last snapshot."),
    Metric("stepwell_memory_bytes", "gauge", "Resident memory of the process."),
    Metric("stepwell_cpu_seconds_total", "counter", "Processor time the process has used."),
    Metric("stepwell_spans_dropped_total", "counter", "Spans that were dropped because the collector did not keep up."),
    Metric("stepwell_queue_items", "gauge", "Queue items by what they wait for.", ("gate",), of="database"),
    Metric("stepwell_inbox_events", "gauge", "Events nobody has reacted to yet.", of="database"),
    Metric("stepwell_oldest_due_seconds", "gauge", "Age of the oldest item that is due and free to go.", of="database"),
    Metric("stepwell_oldest_inbox_seconds", "gauge", "Age of the oldest event in the inbox.", of="database"),
    Metric("stepwell_workers", "gauge", "Workers by the state of their lease.", ("state",), of="database"),
    Metric("stepwell_runs_stuck", "gauge", "Unfinished runs with nothing that moves them; must be 0.", of="database"),
    Metric("stepwell_partition_days_ahead", "gauge", "Days for which partitions stand ready.", of="database"),
    Metric("stepwell_partition_bytes", "gauge", "Size of the day partitions.", ("table",), of="database"),
    Metric("stepwell_default_rows", "gauge", "Rows outside of any day's partition.", ("table",), of="database"),
    Metric("stepwell_repaired_total", "counter", "What all keepers ever put right, by kind.", ("kind",), of="database"),
)
"""Every metric there is; `docs/metrics.md` and a test follow this table."""

_BY_NAME: Final = {metric.name: metric for metric in METRICS}

#: Values of counters and gauges by name and label values.
_values: dict[tuple[str, ...], float] = {}
#: Histograms: counts per bucket (the last is beyond all), then the sum.
_histograms: dict[str, list[float]] = {m.name: [0.0] * (len(m.buckets) + 2) for m in METRICS if m.kind == "histogram"}


def count(name: str, by: float = 1.0, *labels: str) -> None:
    """Add to a counter; `labels` are the values of its labels, in order."""
    key = (name, *labels)
    _values[key] = _values.get(key, 0.0) + by


def gauge(name: str, value: float, *labels: str) -> None:
    """Set a gauge, or a counter that somebody else counts."""
    _values[(name, *labels)] = value


def observe(name: str, value: float) -> None:
    """Add one value to a histogram."""
    kept = _histograms[name]
    kept[bisect_left(_BY_NAME[name].buckets, value)] += 1
    kept[-1] += value


def snapshot() -> dict[str, Any]:
    """Everything measured so far, as JSON can carry it: `{"values": [[name, label…, number]], "histograms": {…}}`."""
    return {
        "values": [[*key, value] for key, value in _values.items()],
        "histograms": {name: kept for name, kept in _histograms.items() if any(kept)},
    }


def reset() -> None:
    """Begin anew; for tests."""
    _values.clear()
    for kept in _histograms.values():
        kept[:] = [0.0] * len(kept)


def render(snapshots: Iterable[tuple[Mapping[str, str], Mapping[str, Any]]]) -> str:
    """The text form of Prometheus 0.0.4: labels of the process, then what it measured."""
    lines: dict[str, list[str]] = {metric.name: [] for metric in METRICS}
    for common, measured in snapshots:
        for name, *labels, value in measured.get("values", ()):
            metric = _BY_NAME.get(name)
            if metric is not None and len(labels) == len(metric.labels):
                given = {**common, **dict(zip(metric.labels, labels, strict=True))}
                lines[name].append(f"{name}{label_text(given)} {_number(value)}")
        for name, kept in measured.get("histograms", {}).items():
            metric = _BY_NAME.get(name)
            if metric is not None and len(kept) == len(metric.buckets) + 2:
                lines[name] += _histogram(metric, common, kept)
    text: list[str] = []
    for metric in METRICS:
        if lines[metric.name]:
            text += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *lines[metric.name]]
    return "\n".join(text) + "\n" if text else ""


def _histogram(metric: Metric, common: Mapping[str, str], kept: list[float]) -> list[str]:
    lines, total = [], 0.0
    for bound, found in zip((*metric.buckets, float("inf")), kept[:-1], strict=True):
        total += found
        le = {**common, "le": "+Inf" if bound == float("inf") else _number(bound)}
        lines.append(f"{metric.name}_bucket{label_text(le)} {_number(total)}")
    lines.append(f"{metric.name}_sum{label_text(common)} {_number(kept[-1])}")
    lines.append(f"{metric.name}_count{label_text(common)} {_number(total)}")
    return lines


def label_text(given: Mapping[str, str]) -> str:
    """Names and values as they stand behind a metric's name; nothing for none."""
    if not given:
        return ""
    escaped = (
        (name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in given.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def memory_bytes() -> int:
    """Resident memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def cpu_seconds() -> float:
    """Processor time of the process, all threads."""
    return time.process_time()


# ---------------------------------------------------------------- spans

#: Spans that wait for the collector; the oldest go first when it does not keep up.
LONGEST_QUEUE: Final = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in a trace. Ids are bytes (16 of a trace, 8 of a span), times Unix seconds."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    name: str
    started: float
    ended: float
    attributes: Mapping[str, str | int]
    is_error: bool = False


spans: deque[Span] | None = None
"""Where spans are put for the exporter; None while nobody collects, so that nobody pays."""


def collect_spans() -> "deque[Span]":
    """Begin to keep spans; the exporter calls it at its start."""
    global spans  # noqa: PLW0603 - one process, one queue
    if spans is None:
        spans = deque()
    return spans


def end_spans() -> None:
    """Keep no spans any more."""
    global spans  # noqa: PLW0603
    spans = None


def add_span(span: Span) -> None:
    """Hand a span to the exporter; never blocks, drops the oldest when too many wait."""
    if spans is None:
        return
    if len(spans) >= LONGEST_QUEUE:
        spans.popleft()
        count("stepwell_spans_dropped_total")
    spans.append(span)


def span_id(*parts: str) -> bytes:
    """The span of a thing with a known id: whoever needs it as a parent works it out, nothing is stored."""
    return hashlib.blake2b("|".join(parts).encode(), digest_size=8).digest()


def traceparent(trace_id: bytes, parent: bytes) -> str:
    """The W3C header that makes what an app does a part of the trace."""
    return f"00-{trace_id.hex()}-{parent.hex()}-01"
