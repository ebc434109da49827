"""Web and worker end themselves with SIGKILL at named points in the middle of an order; nothing is lost or done twice."""

import pytest

from app.engine.pause_points import KILL_AT, KILLED
from tests.chaos.conftest import IS_FULL, OpenHouse
from tests.processes import await_so

AFTER_COMMIT = ["queue.leased:1"]
"""Points at which everything done so far is committed: no step may be done again."""
BEFORE_COMMIT = ["ingest.before:1"]
"""Points where nothing is stored of the calls under way: one step of each may be done again."""
WITH_RESULT = ["commit.before:2"]
"""Points at which an app has answered and nothing of it is stored."""
MORE_AFTER_COMMIT = ["ingest.after:1", "change.committed:1", "react.committed:1", "commit.after:1", "commit.after:5"]
MORE_AFTER_COMMIT += ["commit.after:4", "change.committed:2", "queue.leased:2", "queue.leased:3"]
MORE_BEFORE = ["react.claimed:1", "change.locked:1", "call.before:1", "call.before:2", "call.before:4", "heartbeat:1"]
MORE_BEFORE += ["call.after:1", "call.after:3", "call.after:5", "commit.before:1", "commit.before:5"]
MORE_BEFORE += ["commit.after:2"]  # One of the parallel pair is committed, the other's call may be under way.

SAFE = [*AFTER_COMMIT, *(MORE_AFTER_COMMIT if IS_FULL else [])]
OTHERS = [*BEFORE_COMMIT, *WITH_RESULT, *(MORE_BEFORE if IS_FULL else [])]
"""The small size takes one point of each kind; the storm beside it kills at points nobody chose."""


@pytest.mark.parametrize("point", [*SAFE, *OTHERS])
def test_an_order_completes_though_a_process_is_killed_at(point: str, house_of: OpenHouse) -> None:
    with house_of(STEPWELL_TEST_HOOKS="1", **{KILL_AT: point}) as house:
        house.place("o1")
        await_so((house.folder / KILLED).exists, f"a process is killed at {point}", house.processes)
        house.await_completed(1)

        # Two calls at most are under way, those of the parallel pair.
        house.check_orders(["o1"], repeats=0 if point in SAFE else 2)
        assert "ended with signal 9" in house.up.log.read_text(encoding="utf-8")
