"""Throttle: starts of runs are spread evenly; what comes too early waits in order (protocol 21.2)."""

from app.domain.flow.gcra import Pace, pace_of
from app.domain.settings import Throttle


def pace(rule: Throttle) -> Pace:
    """The pace of a rule: `limit` starts per `period`, `burst` more at once."""
    return pace_of(rule.limit, rule.period, rule.burst)
