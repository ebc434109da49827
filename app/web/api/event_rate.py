"""How many events an environment may send (L10 of the limits): a debt in the memory of each process.

A request is taken whole while its environment has any room left; what it sends beyond the room is paid by waiting. So a
large request passes at the right pace, and a refusal needs no look into the body. Nobody waits for a shared counter, so
Redis may be away; with several web processes an environment may send that many times as much.
"""

import math
import secrets
import time
from collections.abc import Callable

from app.domain.errors import Refused
from app.domain.ids import EnvironmentId
from app.domain.limits import PlanLimits
from app.web.api.rate import Usage

#: Environments remembered; the one that came first goes first, and has its whole room again.
_MOST = 10_000
#: Seconds by which refusals are spread, so that those who were refused together do not come back together.
_SPREAD_S = 3


class TooManyEvents(Refused):
    """The environment sends more events than its plan allows. Wait as long as `Retry-After` says."""

    def __init__(self, limit: int, wait_s: float) -> None:
        """Say the limit in events per second, and when there is room again."""
        after = math.ceil(wait_s) + secrets.randbelow(_SPREAD_S)
        super().__init__("rate_limited", details={"limit": limit, "retry_after": max(1, after)})


class EventRate:
    """The debts of this process, one for each environment that has a limit."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        """`now` is a clock in seconds that never goes back."""
        self._now = now
        self._most = most
        #: When everything sent so far will be paid for.
        self._paid_at: dict[EnvironmentId, float] = {}

    def ask(self, environment_id: EnvironmentId, plan: PlanLimits) -> None:
        """Whether one more request may come; raises `TooManyEvents`."""
        if plan.event_rate is None:
            return
        burst_s = (plan.event_burst or plan.event_rate) / plan.event_rate
        wait_s = self._paid_at.get(environment_id, 0.0) - self._now() - burst_s
        if wait_s > 0:
            raise TooManyEvents(plan.event_rate, wait_s)

    def usage(self, environment_id: EnvironmentId, plan: PlanLimits) -> Usage | None:
        """How many events may come at once, how many of them still may, and when there is more; None without a limit."""
        if plan.event_rate is None:
            return None
        burst = plan.event_burst or plan.event_rate
        owed_s = max(0.0, self._paid_at.get(environment_id, 0.0) - self._now())
        rest = max(0, math.floor(burst - owed_s * plan.event_rate))
        return Usage(burst, rest, max(1, math.ceil(owed_s - burst / plan.event_rate)))

    def count(self, environment_id: EnvironmentId, plan: PlanLimits, events: int) -> None:
        """A request brought this many events."""
        if plan.event_rate is None:
            return
        now = self._now()
        paid_at = max(self._paid_at.pop(environment_id, now), now) + events / plan.event_rate
        while len(self._paid_at) >= self._most:
            del self._paid_at[next(iter(self._paid_at))]
        self._paid_at[environment_id] = paid_at
