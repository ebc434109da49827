"""Named places where a race test may hold a process. In production nobody listens and a point costs one comparison."""

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
