"""The bounds a run is held to (protocol 12.3, 12.4, 25), and the words said when one is passed."""

from datetime import timedelta
from typing import Final

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024  #: one memo
MAX_STATE_BYTES: Final = 32 * 1024 * 1024  #: events and memos of a run together
MAX_OPS_PER_ANSWER: Final = 1_000
MAX_SLEEP: Final = timedelta(days=366)  #: sleeps and the timeouts of waits
DEFAULT_LONG_WAIT: Final = timedelta(days=365)  #: a signal or an invoke without a timeout
#: Discoveries that follow no new step are free of the step limit, so they have one of their own: this many for every
#: step a run may have, and a hundred. An app that asks for ever is ended, not called for ever.
DISCOVERIES_PER_STEP: Final = 4
FREE_DISCOVERIES: Final = 100
