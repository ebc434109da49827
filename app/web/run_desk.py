"""What page handlers need to change runs: a pool of the engine's kind, the database's clock, and ways to wake workers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from litestar.di import NamedDependency

from app.adapters.arq import JobName, enqueue
from app.adapters.redis import RUN_CHANGED
from app.domain.ids import RunId, to_ulid
from app.domain.scope import Scope
from app.engine.clock import DatabaseClock
from app.engine.engine import DoorBell
from app.store.db import Pool
from app.web.site import Site


@dataclass(frozen=True, slots=True)
class RunDesk:
    """Made per request from the site; tests make their own. `nudge` asks a worker for a job and does not wait."""

    pool: Pool
    clock: DatabaseClock
    bell: DoorBell
    nudge: Callable[[JobName], None]
    #: How long a bulk action can be undone before it begins.
    undo_window: timedelta = timedelta(seconds=10)

    def tell(self, scope: Scope, run_id: RunId, *, has_work: bool) -> None:
        """Tell pages that a run changed and, when there is something to do, the workers."""
        self.bell.publish(f"{RUN_CHANGED}{scope.environment_id}", to_ulid(run_id))
        if has_work:
            self.bell.ring()


_SENT: set["asyncio.Task[bool]"] = set()


async def provide_run_desk(site: NamedDependency[Site]) -> Any:
    """Dependency `desk`."""

    def nudge(name: JobName) -> None:
        # Redis may be away and slow to say so; the request does not wait for it.
        task = asyncio.create_task(enqueue(site.jobs, name))
        _SENT.add(task)
        task.add_done_callback(_SENT.discard)

    return RunDesk(site.ingest, site.clock, site.bell, nudge)
