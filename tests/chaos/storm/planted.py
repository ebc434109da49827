"""Web or worker with a bug planted on purpose, or with a wrong clock: proof that the storm would see it.

    STEPWELL_TEST_PLANT=slot STEPWELL_TEST_SKEW_S=3600 python -m tests.chaos.storm.planted worker

A plant changes the text of a named statement in this process before anything runs; the product knows nothing of it.

    plant         what is lost                                        caught by
    lease_guard   leasing takes items that somebody holds             executions nothing explains, I17, I18
    transaction   an event is stored, its inbox row in one of ten     I3
                  cases not, as after a crash between two commits
    timeout_item  a wait is stored without the item of its timeout    I13, I10
    slot          an answered call keeps its slot                     I18, I22
"""

import os
import sys
import time

from app.store.db import statements

PLANTS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "lease_guard": (
        ("lease", "lease_free", "y.lane_id = l.id and y.lease_id is null", "y.lane_id = l.id"),
        ("lease", "lease_free", "where i.lease_id is null for update", "for update"),
    ),
    "transaction": (
        (
            "inbox",
            "ingest",
            "join fresh f on f.n = ev.n\n)\nselect",
            "join fresh f on f.n = ev.n where random() > 0.1\n)\nselect",
        ),
    ),
    "timeout_item": (
        ("commit", "enqueue", "join win w on w.n = q.n\n", "join win w on w.n = q.n and q.kind <> 'timeout'\n"),
    ),
    "slot": (
        ("commit", "free_slots", "where s.lease_id = f.lease_id", "where false"),
        # Or the sweep would repair it within a second, now and then before anybody looked.
        ("workers", "free_orphans", "where not exists (", "where false and not exists ("),
    ),
}
"""Statement file, name, text and its replacement."""


def plant(names: str) -> None:
    """Plant bugs by their names, with commas between. Raises LookupError when a statement does not look as expected."""
    for name in filter(None, names.split(",")):
        for file, statement, text, other in PLANTS[name]:
            known = statements(file)
            if text not in known[statement]:
                raise LookupError(f"{file}.{statement} has no {text!r}")
            known[statement] = known[statement].replace(text, other)


def skew(seconds: int) -> None:
    """Let this process believe that it is another time (F15). What reads the system's clock in C is not deceived."""
    if seconds:
        right, right_ns = time.time, time.time_ns
        time.time = lambda: right() + seconds
        time.time_ns = lambda: right_ns() + seconds * 1_000_000_000


def main() -> None:
    """Be web or worker."""
    plant(os.environ.get("STEPWELL_TEST_PLANT", ""))
    skew(int(os.environ.get("STEPWELL_TEST_SKEW_S") or 0))
    if sys.argv[1] == "web":
        from app.cli.serve import web

        web(args=[], standalone_mode=True)
    else:
        from workers.main import main as work

        work()


if __name__ == "__main__":
    main()
