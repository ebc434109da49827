"""The database's time, estimated between answers.

Every commit and lease answers with `clock()`. In between, the process's monotonic clock is added, so a wall clock
that jumps does not matter (G8, F15). Only used where a value must exist before the statement that writes it: dates of
events a run publishes, and absolute times that SDKs send.
"""

import time
from datetime import UTC, datetime, timedelta


class DatabaseClock:
    """Last seen database time plus monotonic time since."""

    def __init__(self) -> None:
        self._seen = datetime.now(UTC)
        self._at = time.monotonic()
        self._is_asked = False

    def saw(self, now: datetime) -> None:
        """An answer of the database said this is the time. Answers may be read out of order: the latest counts."""
        if self._is_asked and now < self._seen:
            return
        self._is_asked = True
        self._seen = now
        self._at = time.monotonic()

    def now(self) -> datetime:
        """The best guess of the database's clock."""
        return self._seen + timedelta(seconds=time.monotonic() - self._at)
