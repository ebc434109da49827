"""Web, stores, app and two workers in network namespaces of their own; one worker is cut off and comes back, one is killed.

`make machines` is the full trial with the rate of one and of two workers; what is done and what must hold is in
tests/chaos/machines.
"""

import json
from pathlib import Path

import pytest

from tests.chaos.conftest import IS_FULL
from tests.chaos.machines.judge import Strike, judge
from tests.chaos.machines.network import what_is_missing
from tests.processes import await_so, environ, our_command, running


def test_runs_of_a_worker_that_is_cut_off_go_on_at_the_other_and_it_recovers_by_itself(open_folder: Path) -> None:
    missing = what_is_missing()
    if missing:
        pytest.skip(missing)
    result = open_folder / "result.json"
    words = ["--rate-seconds", "5" if IS_FULL else "0", *([] if IS_FULL else ["--only-cut"]), "--json", str(result)]
    with running("machines", our_command("tests.chaos.machines", *words), environ(), open_folder) as trial:
        await_so(lambda: trial.popen.poll() is not None, "the trial ends", within=300)
        assert trial.popen.returncode == 0, trial.said()

    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["wrong"] == []
    assert found["figures"]["steps taken over from a struck worker"] > 0


STORED = {("r", "a"): ("t1", 10.0)}
BEGAN = {"k": "began", "run": "r", "step": "a", "by": "w1", "gen": 1, "token": "t1", "sent": 8.0, "at": 8.5}
AGAIN = BEGAN | {"by": "w2", "gen": 2, "token": "t2", "sent": 9.0, "at": 9.5}


def test_an_execution_repeated_by_a_strike_is_no_fault_and_one_without_is() -> None:
    assert judge(set(), [], STORED, [BEGAN, AGAIN], [Strike("w1", 9.0, 9.9)]).wrong == []
    assert "no worker that did was struck" in judge(set(), [], STORED, [BEGAN, AGAIN], []).wrong[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (AGAIN | {"sent": 11.0}, "after its result was stored"),
        (AGAIN | {"gen": 1}, "twice under one lease"),
        ({"k": "told", "run": "r", "steps": {"a": "t2"}, "by": "w2", "at": 9.0}, "not what is stored"),
    ],
)
def test_the_judge_finds(line: dict[str, object], said: str) -> None:
    wrong = judge(set(), [], STORED, [BEGAN, line], [Strike("w1", 9.0, 9.9)]).wrong
    assert any(said in found for found in wrong), wrong


def test_the_judge_finds_an_event_without_a_run_a_second_run_and_a_result_that_was_never_made() -> None:
    runs = [{"id": x, "event_id": "e2", "status": "completed", "output": [""] * 5} for x in ("r1", "r2")]
    wrong = judge({"e1", "e2"}, runs, {("r", "a"): ("t9", 1.0)}, [BEGAN], []).wrong
    assert [x for x in wrong if "e1 has 0 runs" in x]
    assert [x for x in wrong if "e2 has 2 runs" in x]
    assert [x for x in wrong if "was never made" in x]
