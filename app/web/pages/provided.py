"""What page handlers are given by name, and what every stream is sent with."""

from typing import Any

from litestar.datastructures import State
from litestar.di import NamedDependency

from app.web.site import Site

#: Sent with streams: proxies must neither buffer nor keep them.
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def provide_page_pool(site: NamedDependency[Site]) -> Any:
    """Dependency `page_pool`: the pool under row-level security."""
    return site.pages


async def provide_signals(state: State) -> Any:
    """Dependency `signals`: what wakes live pages of this process."""
    return state.signals
