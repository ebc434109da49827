"""The first effects of a fresh run."""

from datetime import datetime

from app.domain.run import keys
from app.domain.run.effects import Effect, EnqueueItem
from app.domain.run.state import ItemKind, Run


def begin(run: Run, *, at: datetime | None = None) -> list[Effect]:
    """Make the run movable: its first discovery, due `at` or now. Nothing for a run that ended or has begun."""
    if run.is_ended or run.items or run.discoveries:
        return []
    return [EnqueueItem(key=keys.START, kind=ItemKind.DISCOVER, at=at)]
