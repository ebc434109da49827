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


def test_beside_another_server_the_table_says_how_many_times_better_each_figure_is() -> None:
    ours = summary([{"step_ms_p50": 2.0, "steps_per_s_bench-3": 300.0, "start_s": 4.0}])
    theirs = summary([{"step_ms_p50": 3.0, "steps_per_s_bench-3": 600.0}])
    lines = table(ours, theirs).splitlines()
    assert lines[0].split()[-3:] == ["other", "better", "by"]
    assert next(line for line in lines if "next step, p50" in line).split()[-3:] == ["3.00", "1.50", "x"]
    assert next(line for line in lines if "steps of 3-step" in line).split()[-3:] == ["600", "0.50", "x"]
    assert next(line for line in lines if "first start" in line).endswith("s")
