"""Named places where a test may hold a process or end it. In production nobody listens and a point costs one comparison.

name             who stands there, and with what                                        rules
commit.before    the committer, its batch made and not sent; the runs                   3 4 5 6 10 13 16
commit.sent      the committer, its batch committed, the answer not yet trusted;        7
                 an exception of the listener is the connection's
commit.after     the committer, before it tells its drivers; the runs                   3 5
slow.locked      the slow path, holding runs, before it reads them; the runs            6
change.locked    a checkpoint, cancel or wake-up, holding its run; the run              2 13 14 16
call.before      a driver, its call not sent; the run                                   10 16
call.after       a driver, the answer read and not submitted; the run                   10 15
react.claimed    react, its events claimed and nothing written; the events              9 14 15
react.committed  react, its runs committed and not driven; the runs                     11
look.before      the second look of waits, after they were committed                    15
rescue.locked    the keeper, holding an expired worker's row; the worker                10
lease.picked     leasing, items of limited lanes locked, their limits not yet; items    11
ingest.before    the web process, accepted events not stored; the event ids             F1
ingest.after     the web process, events committed and not acknowledged                 F1
change.committed a checkpoint or cancel, committed and not answered; the run              13
queue.leased     the work loop, items leased and not driven; the runs                      F2
heartbeat        a worker about to renew its lease                                      10

A race test in the same process installs a listener. A process of its own is told by its environment to end itself, as
a power cut would, the n-th time it comes to a point:

    STEPWELL_TEST_HOOKS=1 STEPWELL_KILL_AT=commit.before:2

`reached` notes for each point what is safe on the disk there; see where it is called.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

type_of_listener = Callable[[str, Sequence[Any]], Awaitable[None]]

HOOKS, KILL_AT = "STEPWELL_TEST_HOOKS", "STEPWELL_KILL_AT"
KILLED = "killed-at"
"""File in the data folder that says who ended itself where; while it is there, nobody does it again."""

_listener: type_of_listener | None = None


async def reached(name: str, ids: Sequence[Any] = ()) -> None:
    """Tell the listener, if any, that the process is at `name` with these runs."""
    if _listener is not None:
        await _listener(name, ids)


def listen(listener: type_of_listener | None) -> None:
    """Install the listener of a test, or remove it with None."""
    global _listener  # noqa: PLW0603 - one hook per process is the point
    _listener = listener


def arm(environ: Mapping[str, str], folder: Path) -> None:
    """Make this process end itself where its environment says, once for all processes that share `folder`.

    Does nothing unless `STEPWELL_TEST_HOOKS` is 1. `STEPWELL_KILL_AT` is `<point>` or `<point>:<n>`, n from 1; raises
    ValueError for anything else. Points this process never comes to do no harm.
    """
    wanted = environ.get(KILL_AT, "")
    if environ.get(HOOKS) != "1" or not wanted:
        return
    point, _, count = wanted.partition(":")
    left = int(count or 1)
    if not point or left < 1:
        raise ValueError(f"{KILL_AT}: expected <point>:<n>, found {wanted!r}")

    async def end(name: str, _ids: Sequence[Any]) -> None:
        nonlocal left
        if name != point:
            return
        left -= 1
        if left == 0 and _is_first(folder / KILLED, f"{wanted} {os.getpid()}\n"):
            os.kill(os.getpid(), signal.SIGKILL)

    listen(end)


def _is_first(mark: Path, text: str) -> bool:
    try:
        with mark.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
