"""The table a person decides by."""

from bench.table import summary, table


def test_the_table_shows_median_range_and_goal_and_says_what_was_missed() -> None:
    lines = table(summary([{"step_ms_p50": 9.0}, {"step_ms_p50": 2.0}, {"step_ms_p50": 3.0}])).splitlines()
    row = next(line for line in lines if "step → next step, p50" in line)
    assert row.split()[-8:] == ["3.00", "2.00", "–", "9.00", "ms", "≤", "3.5", "holds"]
    missed = table(summary([{"steps_per_s_bench-3": 799.0}]))
    assert missed.splitlines()[-1].endswith("≥ 800 (2,000)  MISSED")


def test_a_figure_that_was_not_measured_is_left_out_with_its_heading() -> None:
    assert "Ingest" not in table(summary([{"step_ms_p50": 1.0}]))


def test_a_figure_missing_from_one_repetition_is_summed_up_over_the_others() -> None:
    assert summary([{"a": 1.0, "b": 5.0}, {"a": 3.0}]) == {
        "a": {"median": 2.0, "low": 1.0, "high": 3.0, "values": [1.0, 3.0]},
        "b": {"median": 5.0, "low": 5.0, "high": 5.0, "values": [5.0]},
    }
