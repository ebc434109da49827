"""The supervisor with small stand-in children: output, restarts, order of the stop."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.supervise.children import ChildSpec, Supervisor, back_off

WITHIN = 20.0
"""Seconds a loaded machine may take to start a small Python."""


class Watched:
    """A supervisor whose children's lines are kept."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.supervisor = Supervisor(lambda name, line: self.lines.append((name, line)))

    def start(self, name: str, script: str, *, stop_rank: int = 10, grace: float = 5.0) -> None:
        self.supervisor.start(
            ChildSpec(
                name=name,
                command=[sys.executable, "-u", "-S", "-c", script],
                environ={"PATH": os.defpath, "STEPWELL_WORKER_NAME": name},
                stop_rank=stop_rank,
                grace=grace,
            )
        )

    def await_line(self, name: str, line: str, times: int = 1) -> None:
        came = self.supervisor.wait_until(lambda: self.lines.count((name, line)) >= times, WITHIN)
        assert came, self.lines


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.supervisor.stop()


WAITS = "import signal; print('up'); signal.pause()"
TELLS_STOP = """
import signal, sys
def stop(*_):
    print('stopping'); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print('up')
while True: signal.pause()
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up')\nwhile True: signal.pause()"


def test_lines_come_with_the_name_of_the_child_and_the_last_one_without_its_end(watched: Watched) -> None:
    watched.start(
        "teller",
        # In one write, so that what follows a line is in the pipe when the line is read.
        "import os, signal; os.write(1, b'one\\ntwo\\nthree'); signal.pause()",
    )
    watched.await_line("teller", "two")

    pid = watched.supervisor.child("teller").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    watched.await_line("teller", "three")


def test_a_killed_child_is_started_again_at_once_under_its_name(watched: Watched) -> None:
    watched.start("worker-1", "import os, signal; print(os.environ['STEPWELL_WORKER_NAME']); signal.pause()")
    watched.await_line("worker-1", "worker-1")
    first = watched.supervisor.child("worker-1").pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    watched.await_line("worker-1", "worker-1", times=2)

    assert watched.supervisor.child("worker-1").pid != first
    assert ("stepwell", "worker-1 ended with signal 9; starting it again at once") in watched.lines


def test_a_child_that_cannot_live_is_started_less_and_less_often(watched: Watched) -> None:
    watched.start("doomed", "raise SystemExit(3)")
    child = watched.supervisor.child("doomed")
    started = time.monotonic()
    assert watched.supervisor.wait_until(lambda: child.starts == 4, WITHIN)

    assert time.monotonic() - started >= back_off(2) + back_off(3)
    assert ("stepwell", "doomed ended with code 3; starting it again in 0.4 s") in watched.lines


def test_a_program_that_is_missing_does_not_end_the_supervisor(watched: Watched, tmp_path: Path) -> None:
    watched.supervisor.start(ChildSpec("absent", [tmp_path / "absent"], {}, stop_rank=1))
    watched.start("other", WAITS)

    watched.await_line("other", "up")
    assert any(name == "stepwell" and "absent could not be started" in line for name, line in watched.lines)


def test_children_are_stopped_rank_by_rank(watched: Watched) -> None:
    watched.start("web", TELLS_STOP, stop_rank=20)
    watched.start("worker", TELLS_STOP, stop_rank=10)
    watched.start("store", TELLS_STOP, stop_rank=90)
    for name in ("web", "worker", "store"):
        watched.await_line(name, "up")

    watched.supervisor.stop()

    assert [name for name, line in watched.lines if line == "stopping"] == ["worker", "web", "store"]
    watched.supervisor = Supervisor(lambda name, line: None)


def test_a_child_that_does_not_listen_is_killed_after_its_grace(watched: Watched) -> None:
    watched.start("deaf", DEAF, grace=0.3)
    watched.await_line("deaf", "up")
    started = time.monotonic()

    watched.supervisor.stop()

    assert 0.3 <= time.monotonic() - started < WITHIN
    assert watched.supervisor.child("deaf").pid is None
    watched.supervisor = Supervisor(lambda name, line: None)


def test_a_second_wish_to_stop_does_not_wait_for_the_grace(watched: Watched) -> None:
    watched.start("deaf", DEAF, grace=600.0)
    watched.await_line("deaf", "up")

    watched.supervisor.ask_stop()
    watched.supervisor.ask_stop()
    watched.supervisor.run()

    assert watched.supervisor.child("deaf").pid is None
    watched.supervisor = Supervisor(lambda name, line: None)


def test_a_line_without_end_is_cut_and_memory_stays_bounded(watched: Watched) -> None:
    watched.start(
        "endless", "import os, signal; os.write(1, b'x' * 300_000); os.write(1, b'\\nend\\n'); signal.pause()"
    )
    watched.await_line("endless", "end")

    assert max(len(line) for name, line in watched.lines if name == "endless") <= 2 * 65_536
    assert sum(len(line) for name, line in watched.lines if set(line) == {"x"}) == 300_000


def test_the_rest_between_restarts_doubles_from_a_fifth_of_a_second_to_ten() -> None:
    assert [back_off(deaths) for deaths in (1, 2, 3, 4, 5)] == [0.0, 0.2, 0.4, 0.8, 1.6]
    assert back_off(9) == back_off(10_000) == 10.0
