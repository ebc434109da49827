"""Which apps are not called for a while, because call after call did not even reach them (F14).

     closed ──5 calls in a row without an answer──► open ──pause over──► trying: 1 call, then 2, 4 … 64 at once ──► closed
                                                      ▲                     │
                                                      └─the first, or 5 in ─┘   pause 1 s; 2 s, 4 s … 60 s while
                                                        a row, without answer     nothing at all is answered

On the way a single call without an answer changes nothing, the second in a row and each further one halves how many may be
under way. An app that loses one call in forty is thus soon called freely again; were each loss a pause, twice as long as the
last, it would be as good as down.

Any answer counts as an answer, also a 500: what the app says is the run's matter. Calls that are held back go back to the
queue with a due time and count neither as attempts nor as redeliveries. Each worker learns for itself, so nothing here is
shared or stored, and a worker that is started again starts closed. An app that has always answered is not in memory at all:
for it the question is one look into an empty dictionary.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.ids import AppId

log = logging.getLogger(__name__)

#: Calls in a row without an answer until the app is held back.
OPENS_AFTER = 5
#: Seconds of the first pause; each further one is twice as long, up to `longest_s`.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
#: Calls at once at which the ramp ends.
RAMP_ENDS = 64
#: Seconds calls wait that find the ramp full, before they ask again.
_RAMP_WAIT_S = 1.0
#: A call under way for so long has reached the app (it may work for hours): it is no reason to keep others waiting.
_REACHED_S = 30.0
#: Apps remembered; the one that failed first goes first, and is called again as if nothing had been.
_MOST = 2_000


@dataclass(slots=True)
class _App:
    synced_at: datetime | None
    #: Calls without an answer since the last one with.
    failures: int = 0
    #: Pauses with no answer between them; 0 while the breaker is closed.
    pauses: int = 0
    until: float = 0.0
    #: Calls allowed at once while trying.
    ramp: int = 1
    #: Trials answered since the ramp changed, and whether any was since the last pause.
    answered: int = 0
    is_heard: bool = False
    #: Calls under way that try the app, with the time they began.
    trials: dict[int, float] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.pauses > 0


@dataclass(frozen=True, slots=True)
class Permit:
    """May the call be made? If not, ask again in `wait_s` seconds. `trial` numbers a call that tries the app."""

    wait_s: float = 0.0
    trial: int | None = None


_FREE = Permit()


class Breaker:
    """The breaker of one worker, for all apps. Tell it of every call that it let pass: `heard` or `gave_up`."""

    def __init__(
        self,
        *,
        longest_s: float = LONGEST_PAUSE_S,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        most: int = _MOST,
    ) -> None:
        """`now` is a clock in seconds that never goes back, `chance` a number in 0…1."""
        self._longest_s = longest_s
        self._now = now
        self._chance = chance
        self._most = most
        self._apps: dict[AppId, _App] = {}
        self._trials = 0

    @property
    def held_back(self) -> list[AppId]:
        """The apps that are not called freely just now."""
        return [app_id for app_id, app in self._apps.items() if app.is_open]

    def ask(self, app_id: AppId, synced_at: datetime | None = None) -> Permit:
        """Whether an app may be called now. `synced_at` is its newest sync: a newer one than known begins afresh."""
        app = self._apps.get(app_id)
        if app is None:
            return _FREE
        if app.synced_at != synced_at:
            del self._apps[app_id]
            return _FREE
        if not app.is_open:
            return _FREE
        now = self._now()
        if now < app.until:
            # Spread over half a pause more, so that those who wait do not come back together.
            return Permit(app.until - now + self._chance() * max(1.0, self._pause(app) / 2))
        for trial in [trial for trial, began in app.trials.items() if now - began > _REACHED_S]:
            del app.trials[trial]
        if len(app.trials) >= app.ramp:
            return Permit(_RAMP_WAIT_S * (1 + 3 * self._chance()))
        self._trials += 1
        app.trials[self._trials] = now
        return Permit(trial=self._trials)

    def heard(self, app_id: AppId, permit: Permit, *, is_answer: bool, synced_at: datetime | None = None) -> None:
        """A call is over: an answer came, or the app could not be reached or did not answer in time."""
        app = self._apps.get(app_id)
        if app is None:
            if not is_answer:
                self._remember(app_id, _App(synced_at, failures=1))
            return
        is_trial = permit.trial is not None and app.trials.pop(permit.trial, None) is not None
        if is_answer:
            self._answered(app_id, app, is_trial=is_trial)
        elif not app.is_open:
            app.failures += 1
            if app.failures >= OPENS_AFTER:
                log.warning("an app does not answer; its calls are held back", extra={"app_id": str(app_id)})
                self._pause_again(app)
        elif is_trial:
            self._lost_a_trial(app)

    def gave_up(self, app_id: AppId, permit: Permit) -> None:
        """A call ended without telling anything about the app."""
        app = self._apps.get(app_id)
        if app is not None and permit.trial is not None:
            app.trials.pop(permit.trial, None)

    def _answered(self, app_id: AppId, app: _App, *, is_trial: bool) -> None:
        if not app.is_open:
            del self._apps[app_id]
            return
        if not is_trial:
            # A call from before answered after all: no need to wait for the end of the pause.
            app.until = min(app.until, self._now())
            return
        app.failures, app.is_heard = 0, True
        app.answered += 1
        if app.answered >= app.ramp:
            app.ramp, app.answered = app.ramp * 2, 0
        if app.ramp > RAMP_ENDS:
            log.warning("an app answers again; its calls are not held back any more", extra={"app_id": str(app_id)})
            del self._apps[app_id]

    def _lost_a_trial(self, app: _App) -> None:
        """Slow down; pause when the app is still silent, or silent again as it was when the breaker opened."""
        app.failures += 1
        if not app.is_heard or app.failures >= OPENS_AFTER:
            self._pause_again(app)
        elif app.failures > 1:
            app.ramp, app.answered = max(1, app.ramp // 2), 0

    def _pause_again(self, app: _App) -> None:
        app.pauses = 1 if app.is_heard else app.pauses + 1
        app.ramp, app.answered, app.failures, app.is_heard = 1, 0, 0, False
        app.trials.clear()
        app.until = self._now() + self._pause(app)

    def _pause(self, app: _App) -> float:
        return float(min(self._longest_s, FIRST_PAUSE_S * 2 ** min(app.pauses - 1, 16)))

    def _remember(self, app_id: AppId, app: _App) -> None:
        while len(self._apps) >= self._most:
            del self._apps[next(iter(self._apps))]
        self._apps[app_id] = app
