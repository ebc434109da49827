"""Points at which a test's process ends itself: only when told to, once for all, at the right count."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.engine import pause_points

PROGRAM = """
import asyncio, sys
from pathlib import Path
from app.engine import pause_points
pause_points.arm(dict(arg.split("=", 1) for arg in sys.argv[2:]), Path(sys.argv[1]))
async def main():
    for name in ("a", "b", "a", "b", "b"):
        await pause_points.reached(name)
        print(name, flush=True)
asyncio.run(main())
"""


def run(folder: Path, *settings: str) -> tuple[int, list[str]]:
    """Give how the program ended and the points it lived through."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *settings],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    return done.returncode, done.stdout.split()


def test_the_process_is_killed_at_the_wanted_time_it_comes_to_the_point(tmp_path: Path) -> None:
    assert run(tmp_path, "STEPWELL_TEST_HOOKS=1", "STEPWELL_KILL_AT=b:2") == (-signal.SIGKILL, ["a", "b", "a"])


def test_it_happens_once_for_all_processes_of_a_folder(tmp_path: Path) -> None:
    run(tmp_path, "STEPWELL_TEST_HOOKS=1", "STEPWELL_KILL_AT=a")

    assert run(tmp_path, "STEPWELL_TEST_HOOKS=1", "STEPWELL_KILL_AT=a") == (0, ["a", "b", "a", "b", "b"])


@pytest.mark.parametrize("settings", [["STEPWELL_KILL_AT=a:1"], ["STEPWELL_TEST_HOOKS=1"], []])
def test_nobody_is_killed_without_both_settings(tmp_path: Path, settings: list[str]) -> None:
    assert run(tmp_path, *settings) == (0, ["a", "b", "a", "b", "b"])


@pytest.mark.parametrize("wanted", ["a:0", "a:x", ":1", "a:-1"])
def test_a_wish_that_cannot_be_read_is_refused(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(ValueError, match=r"KILL_AT|invalid literal"):
        pause_points.arm({"STEPWELL_TEST_HOOKS": "1", "STEPWELL_KILL_AT": wanted}, tmp_path)
