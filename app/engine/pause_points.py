"""Named places where a race test may hold a process. In production nobody listens and a point costs one comparison.

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
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

type_of_listener = Callable[[str, Sequence[Any]], Awaitable[None]]

_listener: type_of_listener | None = None


async def reached(name: str, ids: Sequence[Any] = ()) -> None:
    """Tell the listener, if any, that the process is at `name` with these runs."""
    if _listener is not None:
        await _listener(name, ids)


def listen(listener: type_of_listener | None) -> None:
    """Install the listener of a test, or remove it with None."""
    global _listener  # noqa: PLW0603 - one hook per process is the point
    _listener = listener
