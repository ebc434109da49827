"""The goals of the architecture beside the figures of a run, as the table of docs/performance.md.

`python -m bench --write-docs` ends with it; `python -m bench.goals [RESULT.json]` writes it from a result that is there
already (none named: the newest). Only what stands between the two marks is replaced; what limits each figure is said here
by hand, because no measurement says it by itself.
"""

import datetime as dt
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.product import ROOT
from bench.table import is_missed

DOCS = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures of a run: begin -->", "<!-- figures of a run: end -->"


@dataclass(frozen=True, slots=True)
class Goal:
    """One row: the work, its goal in words, the figures that show it, and what limits it."""

    work: str
    goal: str
    figures: Sequence[str]
    unit: str
    limit: str
    parts: str


_WORKER = "the worker's Python (its share of the CPU is in the rows of `make bench`), then Postgres; both share the cores with the app"
_COMMIT = "one durable commit and one call; beyond that the loops of web and worker waiting for a core"

GOALS: Sequence[Goal] = (
    Goal(
        "steps at saturation, one call per step (3-step function)",
        "≥ 800/s, stretch 2,000",
        ["steps_per_s_bench-3"],
        "/s",
        _WORKER,
        "saturation",
    ),
    Goal("one-step runs", "≥ 430/s, stretch 1,000", ["runs_per_s_bench-1"], "/s", _WORKER, "saturation"),
    Goal(
        "CPU per 1,000 steps, stores included",
        "≤ 1.5 s, stretch 0.6",
        ["cpu_per_1000_bench-3"],
        "s",
        "see *Where the CPU goes* below",
        "saturation",
    ),
    Goal(
        "event accepted → first call, idle, p50 / p95",
        "≤ 6 / 15 ms",
        ["first_call_ms_p50", "first_call_ms_p95"],
        "ms",
        "the reaction's commit, then the lease's; after floods of events the claim of the inbox",
        "idle",
    ),
    Goal(
        "step → next step, idle, p50 / p95 / p99",
        "≤ 3.5 / 7 / 12 ms",
        ["step_ms_p50", "step_ms_p95", "step_ms_p99"],
        "ms",
        _COMMIT,
        "idle",
    ),
    Goal(
        "10 steps, event → done, p50", "≤ 45 ms", ["done_bench-10_ms_p50"], "ms", "eleven calls, each as above", "idle"
    ),
    Goal(
        "checkpointed step → next step, p50: by hand / npm SDK v4",
        "≤ 3 ms",
        ["checkpoint_ms_p50", "npm_checkpoint_ms_p50"],
        "ms",
        "one durable commit; with the npm SDK its own work in node",
        "idle,npm",
    ),
    Goal(
        "steps of 10-step runs, checkpointed: by hand / npm SDK v4 in one node process",
        "≥ 1,500/s",
        ["steps_per_s_bench-cp10", "steps_per_s_npm-cp10"],
        "/s",
        "web's Python; with the npm SDK the one node process, whose CPU per step is in the rows of `make bench`",
        "saturation,npm",
    ),
    Goal(
        "ingest, one event / 100 events per request",
        "≥ 1,400 / 13,000 events/s",
        ["ingest_single_per_s", "ingest_batch_per_s"],
        "/s",
        "web's Python; in batches Postgres",
        "ingest",
    ),
    Goal(
        "another function's wait during a backlog, p95",
        "≤ 300 ms",
        ["other_function_ms_p95"],
        "ms",
        "the calls already leased before its own, and a full worker's loop",
        "backlog",
    ),
    Goal(
        "another tenant's event → first call during a backlog, p50: grew by",
        "≤ 50 ms",
        ["neighbour_growth_ms"],
        "ms",
        "two rounds of a full worker's loop",
        "backlog",
    ),
    Goal(
        "rate with 100,000 sleeping runs to without; last tenth of a backlog of 20,000 to the second",
        "≥ 0.9",
        ["with_sleepers_to_before", "backlog_last_to_second"],
        "",
        "indices that hold only what is due",
        "backlog,sleepers",
    ),
    Goal(
        "memory without Postgres, idle / loaded",
        "≤ 200 / 350 MB",
        ["memory_idle_mb", "memory_loaded_mb_bench-3"],
        "MB",
        "a Python process each for web, worker and supervisor",
        "saturation",
    ),
    Goal(
        "`stepwell up` to first answer, second start",
        "≤ 5 s, stretch 3 s",
        ["start_again_s"],
        "s",
        "imports of web and worker, which start together",
        "idle",
    ),
)


def block(result: Mapping[str, Any]) -> str:
    """What stands between the marks: the machine in a sentence, the table, and the runs that were lost or doubled."""
    figures, machine, runs = result["figures"], result["machine"], result["runs"]
    size = "`make bench ARGS=--quick`, sizes for a first look" if result["is_quick"] else "`make bench`"
    at = dt.datetime.fromisoformat(result["at"])
    factor = ""
    if "commits_per_s_1" in figures:
        one, eight, cpu = (
            _number(figures[x]["median"]) for x in ("commits_per_s_1", "commits_per_s_8", "cpu_us_per_statement")
        )
        factor = f" Machine factor: {one} and {eight} durable commits/s from one and eight connections, {cpu} µs of CPU a statement."
    lines = [
        f"{size} on {at:%d %B %Y}, {machine['cores']} cores that also carried the stores, the app and the load generator.{factor}",
        "",
        "| Work | Goal | Median | Range | What limits it | Command |",
        "|---|---|---|---|---|---|",
    ]
    for goal in GOALS:
        found = [figures.get(name) for name in goal.figures]
        medians = " / ".join("–" if x is None else _number(x["median"]) for x in found)
        ranges = " / ".join(_range(x) for x in found)
        if all(x is None for x in found):
            medians, ranges = "not measured", ""
        elif goal.unit:
            medians += goal.unit if goal.unit.startswith("/") else f" {goal.unit}"
        if any(is_missed(name, x["median"]) for name, x in zip(goal.figures, found, strict=True) if x is not None):
            medians = f"**{medians}, missed**"
        command = f'`make bench ARGS="--parts {goal.parts}"`'
        lines.append(f"| {goal.work} | {goal.goal} | {medians} | {ranges} | {goal.limit} | {command} |")
    lost = runs["missing"] + runs["twice"]
    lines.append(
        f"| lost, stuck or twice-finished runs | 0 | {lost} of {runs['sent']:,} | | checked after every part | all of them; `make chaos` |"
    )
    return "\n".join(lines)


def write(result: Mapping[str, Any], file: Path = DOCS) -> None:
    """Replace what stands between the marks of a page. Raises ValueError when the page has no marks."""
    before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{file.name} has no marks for the figures")
    file.write_text(f"{before}{BEGIN}\n{block(result)}\n{END}{after}", encoding="utf-8")


def _range(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    return f"{_number(figure['low'])} to {_number(figure['high'])}" if len(figure["values"]) > 1 else "once"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def main() -> int:
    """Write the table from a result that is there already."""
    named = sys.argv[1:] or [str(ROOT / "bench" / "results" / "latest.json")]
    write(json.loads(Path(named[0]).read_text(encoding="utf-8")))
    print(f"wrote the figures of {Path(named[0]).name} into {DOCS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
