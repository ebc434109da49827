"""The result as an aligned table beside the goals of the architecture, and as JSON."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One line: which figure, what it is called, its unit, and its goal (none: only told)."""

    figure: str
    name: str
    unit: str
    goal: float | None = None
    better: Literal["less", "more"] = "less"
    stretch: float | None = None


#: Goals of architecture 4, for two shared cores that also carry the stores, the app and the load generator.
ROWS: Sequence[Row | str] = (
    "Idle",
    Row("first_call_ms_p50", "event accepted → first call, p50", "ms", 6),
    Row("first_call_ms_p95", "event accepted → first call, p95", "ms", 15),
    Row("first_call_from_send_ms_p50", "event sent → first call, p50", "ms"),
    Row("step_ms_p50", "step → next step, p50", "ms", 3.5),
    Row("step_ms_p95", "step → next step, p95", "ms", 7),
    Row("step_ms_p99", "step → next step, p99", "ms", 12),
    Row("done_bench-1_ms_p50", "1 step, event → done, p50", "ms"),
    Row("done_bench-3_ms_p50", "3 steps, event → done, p50", "ms"),
    Row("done_bench-10_ms_p50", "10 steps, event → done, p50", "ms", 45),
    Row("done_bench-par10_ms_p50", "10 parallel steps, event → done, p50", "ms"),
    Row("checkpoint_ms_p50", "checkpointed step → next step, p50", "ms", 3),
    Row("checkpoint_ms_p95", "checkpointed step → next step, p95", "ms"),
    Row("done_bench-cp10_ms_p50", "10 checkpointed steps, event → done, p50", "ms"),
    Row("npm_first_call_ms_p50", "npm SDK v4: event accepted → function, p50", "ms"),
    Row("npm_checkpoint_ms_p50", "npm SDK v4: checkpointed step → next step, p50", "ms", 3),
    Row("npm_checkpoint_ms_p95", "npm SDK v4: checkpointed step → next step, p95", "ms"),
    Row("done_npm-cp10_ms_p50", "npm SDK v4: 10 steps, event → done, p50", "ms"),
    "Saturation",
    Row("runs_per_s_bench-1", "1-step runs", "runs/s", 430, "more", 1000),
    Row("runs_per_s_bench-3", "3-step runs", "runs/s"),
    Row("steps_per_s_bench-3", "steps of 3-step runs", "steps/s", 800, "more", 2000),
    Row("cpu_per_1000_bench-3", "CPU per 1,000 steps, 3-step runs", "s", 1.5, "less", 0.6),
    Row("cpu_per_1000_web_bench-3", "  of it web", "s"),
    Row("cpu_per_1000_worker_bench-3", "  of it workers", "s"),
    Row("cpu_per_1000_postgres_bench-3", "  of it Postgres", "s"),
    Row("cpu_per_1000_valkey_bench-3", "  of it Valkey", "s"),
    Row("cpu_per_1000_bench-1", "CPU per 1,000 one-step runs", "s"),
    Row("steps_per_s_bench-cp10", "steps of 10-step runs, checkpointed", "steps/s", 1500, "more"),
    Row("cpu_per_1000_bench-cp10", "CPU per 1,000 checkpointed steps", "s"),
    Row("steps_per_s_npm-cp10", "steps of 10-step runs, npm SDK v4, one node process", "steps/s"),
    Row("npm_app_cpu_per_1000", "  CPU of that process per 1,000 steps", "s"),
    Row("cpu_per_1000_npm-cp10", "  CPU of Stepwell per 1,000 of them", "s"),
    "Ingest",
    Row("ingest_single_per_s", "one event per request", "events/s", 1400, "more"),
    Row("ingest_batch_per_s", "100 events per request", "events/s", 13000, "more"),
    "Crowds",
    Row("other_function_ms_p50", "another function's wait during a backlog, p50", "ms"),
    Row("other_function_ms_p95", "another function's wait during a backlog, p95", "ms", 300),
    Row("neighbour_alone_ms_p50", "another tenant, event → first call, alone, p50", "ms"),
    Row("neighbour_ms_p50", "another tenant, during the backlog, p50", "ms"),
    Row("neighbour_growth_ms", "  it grew by", "ms", 50),
    Row("neighbour_ms_p95", "another tenant, during the backlog, p95", "ms"),
    Row("backlog_second_per_s", "second tenth of the backlog", "runs/s"),
    Row("backlog_last_per_s", "last tenth of the backlog", "runs/s"),
    Row("backlog_last_to_second", "  last to second", "", 0.9, "more"),
    Row("steps_before_sleepers", "3-step runs before the sleepers", "steps/s"),
    Row("steps_with_sleepers", "3-step runs with the sleepers", "steps/s"),
    Row("with_sleepers_to_before", "  with to before", "", 0.9, "more"),
    "Pages, with all runs of this bench",
    *(
        Row(f"page_{page}_{figure}", f"{page.replace('_', ' ')}, {what}", unit)
        for page in ("overview", "runs", "failed_runs", "run", "events", "functions")
        for figure, what, unit in (("ms_p50", "p50", "ms"), ("ms_p95", "p95", "ms"), ("kb", "size", "kB"))
    ),
    "Memory without Postgres",
    Row("memory_idle_mb", "idle", "MB", 200),
    Row("memory_loaded_mb_bench-3", "loaded", "MB", 350),
    Row("memory_idle_mb_web", "  web, idle", "MB"),
    Row("memory_loaded_mb_web_bench-3", "  web, loaded", "MB"),
    Row("memory_idle_mb_worker", "  workers, idle", "MB"),
    Row("memory_loaded_mb_worker_bench-3", "  workers, loaded", "MB"),
    Row("memory_idle_mb_supervisor", "  supervisor, idle", "MB"),
    Row("memory_idle_mb_valkey", "  Valkey, idle", "MB"),
    Row("memory_loaded_mb_postgres_bench-3", "Postgres, loaded (not in the sums)", "MB"),
    "Start",
    Row("start_s", "first start to first answer, with a new database", "s"),
    Row("start_again_s", "second start to first answer", "s", 5, stretch=3),
    "Machine",
    Row("commits_per_s_1", "durable commits, 1 connection", "1/s"),
    Row("commits_per_s_8", "durable commits, 8 connections", "1/s"),
    Row("cpu_us_per_statement", "CPU of one statement in the driver", "µs"),
)


Summary = dict[str, dict[str, Any]]


def summary(repetitions: Sequence[Mapping[str, float]]) -> Summary:
    """Median and range of every figure over the repetitions that have it."""
    names = dict.fromkeys(name for figures in repetitions for name in figures)
    found = {}
    for name in names:
        values = [figures[name] for figures in repetitions if name in figures]
        found[name] = {"median": statistics.median(values), "low": min(values), "high": max(values), "values": values}
    return found


def table(figures: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Lines of: what, median, range, unit, goal, and whether the median meets it.

    With `other`, the figures of a server that had the same load in turns: its median, and how many times better
    Stepwell's is (below 1: worse).
    """
    against = ("other", "better by") if other is not None else ()
    lines: list[tuple[str, ...]] = [("", "median", "range", "", "goal", "", *against)]
    heading = ""
    for row in ROWS:
        if isinstance(row, str):
            heading = row
            continue
        figure = figures.get(row.figure)
        if figure is None:
            continue
        if heading:
            lines.append((heading, *("" for _ in lines[0][1:])))
            heading = ""
        median = figure["median"]
        spread = f"{_short(figure['low'])} – {_short(figure['high'])}" if len(figure["values"]) > 1 else ""
        compared = _compared(row, median, other.get(row.figure)) if other is not None else ()
        lines.append((f"  {row.name}", _short(median), spread, row.unit, _goal(row), _verdict(row, median), *compared))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    name, median, spread, unit, goal, verdict, *compared = line
    cells = [name.ljust(widths[0]), median.rjust(widths[1]), spread.rjust(widths[2]), unit.ljust(widths[3])]
    cells += [goal.ljust(widths[4]), verdict.ljust(widths[5])]
    return "  ".join([*cells, *(cell.rjust(width) for cell, width in zip(compared, widths[6:], strict=True))]).rstrip()


def _compared(row: Row, median: float, other: Mapping[str, Any] | None) -> tuple[str, str]:
    if other is None:
        return "", ""
    theirs = other["median"]
    ours_is_better = (theirs, median) if row.better == "less" else (median, theirs)
    ratio = f"{_short(ours_is_better[0] / ours_is_better[1])} x" if ours_is_better[1] else ""
    return _short(theirs), ratio


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    sign = "≤" if row.better == "less" else "≥"
    return f"{sign} {row.goal:,g}" + (f" ({row.stretch:,g})" if row.stretch is not None else "")


def _verdict(row: Row, median: float) -> str:
    if row.goal is None:
        return ""
    return "MISSED" if is_missed(row.figure, median) else "holds"


def is_missed(figure: str, median: float) -> bool:
    """Whether a figure has a goal and does not reach it."""
    row = next((row for row in ROWS if isinstance(row, Row) and row.figure == figure), None)
    if row is None or row.goal is None:
        return False
    return median > row.goal if row.better == "less" else median < row.goal


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write_json(folder: Path, name: str, result: Mapping[str, Any]) -> Path:
    """Write the result as `name`.json and as `latest.json`; gives the first path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, sort_keys=True)
    for file in (folder / f"{name}.json", folder / "latest.json"):
        file.write_text(text, encoding="utf-8")
    return folder / f"{name}.json"
