"""The table of goals in docs/performance.md comes from a run, and never changes anything else on the page."""

from pathlib import Path
from typing import Any

import pytest

from bench import goals
from bench.run import _PARTS
from bench.table import ROWS, Row, summary

RESULT: dict[str, Any] = {
    "at": "2026-05-04T10:00:00+00:00",
    "is_quick": False,
    "machine": {"cores": 2},
    "runs": {"sent": 1200, "missing": 1, "twice": 0},
    "figures": summary([{"steps_per_s_bench-3": 900.0}, {"steps_per_s_bench-3": 1100.0}])
    | summary([{"checkpoint_ms_p50": 2.5, "memory_idle_mb": 201.0}]),
}


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{goals.BEGIN}\nold\n{goals.END}\nafter\n", encoding="utf-8")
    goals.write(RESULT, page)
    goals.write(RESULT, page)
    assert page.read_text(encoding="utf-8") == f"before\n{goals.BEGIN}\n{goals.block(RESULT)}\n{goals.END}\nafter\n"


def test_a_page_without_marks_is_not_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="no marks"):
        goals.write(RESULT, page)
    assert page.read_text(encoding="utf-8") == "nothing"


def test_a_row_shows_median_and_range_and_says_what_was_missed_not_measured_and_lost() -> None:
    rows = {line.split("|")[1].strip(): line for line in goals.block(RESULT).splitlines() if line.startswith("| ")}
    assert "| 1,000/s | 900 to 1,100 |" in rows["steps at saturation, one call per step (3-step function)"]
    assert "| 2.50 / – ms | once / –" in rows["checkpointed step → next step, p50: by hand / npm SDK v4"]
    assert "| not measured |" in rows["one-step runs"]
    assert "| **201 / – MB, missed** |" in rows["memory without Postgres, idle / loaded"]
    assert "| 1 of 1,200 |" in rows["lost, stuck or twice-finished runs"]


def test_every_goal_names_figures_and_parts_of_the_bench_and_stands_on_the_page() -> None:
    known = {row.figure for row in ROWS if isinstance(row, Row)}
    page = goals.DOCS.read_text(encoding="utf-8")
    for goal in goals.GOALS:
        assert set(goal.figures) <= known
        assert set(goal.parts.split(",")) <= set(_PARTS.split(","))
        assert f"| {goal.work} | {goal.goal} |" in page
