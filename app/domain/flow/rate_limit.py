"""Rate limit: `limit` runs per `period`, the rest is not started at all (protocol 21.2).

A tenth of the limit may come at once beyond the first. Idempotency is the same with one run in 24 hours (8.2).
"""

from app.domain.flow.gcra import Pace, pace_of
from app.domain.limits import IDEMPOTENCY_WINDOW
from app.domain.settings import RateLimit


def pace(rule: RateLimit) -> Pace:
    """The pace of a rule."""
    return pace_of(rule.limit, rule.period, rule.limit // 10)


def is_idempotency(rule: RateLimit) -> bool:
    """Whether the rule is an idempotency key: what it refuses is a duplicate."""
    return rule.limit == 1 and rule.period == IDEMPOTENCY_WINDOW and rule.key is not None
