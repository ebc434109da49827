"""What pages ask of tenants' apps: to tell their functions (a sync, with progress) and what is wrong with them (a check).

A sync asked for on a page runs as a task of this process and tells its steps to whoever polls; the page of another
process, or of one that has been started again, finds what came of it among the stored syncs. At most `AT_ONCE` run for an
environment. Calls go through the one door for calls to tenants' addresses, so its gate holds here too.
"""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from app.adapters.http import Caller
from app.domain.errors import Refused
from app.domain.ids import EnvironmentId, to_ulid, ulid_of
from app.domain.protocol.addresses import normalise_url
from app.domain.scope import Scope
from app.engine.diagnose import AppCheck, KeyState, check_app
from app.engine.sync import Synced, SyncFailed, sync_app
from app.store.db import Pool

log = structlog.get_logger(__name__)

#: Syncs of one environment under way at the same time, asked for on pages.
AT_ONCE = 4
#: Attempts remembered after their end, so that a page can show how they went.
_REMEMBERED = 500
#: Steps of a sync in their order, as `sync_app` names them.
STEPS = ("reached", "signed", "found")
_KEY_WORDS = {
    KeyState.CORRECT: ("ok", "the same as here"),
    KeyState.INCORRECT: ("bad", "it has another one"),
    KeyState.MISSING: ("bad", "it has none"),
    KeyState.UNKNOWN: ("unknown", "it does not say"),
}


class TooManySyncs(Refused):
    """Several syncs of this environment are under way. Wait for one of them to end."""

    def __init__(self) -> None:
        super().__init__("rate_limited", details={"retry_after": 5})


@dataclass(slots=True)
class Attempt:
    """A sync that somebody watches. `outcome` is set at its end."""

    id: str
    environment_id: EnvironmentId
    url: str
    is_signed: bool
    steps: list[str] = field(default_factory=list)
    outcome: Synced | SyncFailed | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check. `verdict`: ok, bad or unknown."""

    question: str
    verdict: str
    words: str


class AppCalls:
    """One per process. `keys_of` gives the signing keys of an environment; none where nothing is signed (dev)."""

    def __init__(
        self, pool: Pool, caller: Caller, keys_of: Callable[[EnvironmentId], Awaitable[list[str]]], server_kind: str
    ) -> None:
        self._pool, self.caller = pool, caller
        self._keys_of = keys_of
        self._server_kind = server_kind
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start_sync(self, scope: Scope, url: str) -> Attempt:
        """Begin to sync the app at `url`; raises TooManySyncs."""
        mine = [a for a in self._attempts.values() if a.environment_id == scope.environment_id and a.outcome is None]
        if len(mine) >= AT_ONCE:
            raise TooManySyncs
        attempt_id = to_ulid(ulid_of(time.time_ns() // 1_000_000, os.urandom(10)))
        attempt = Attempt(attempt_id, scope.environment_id, normalise_url(url), self._server_kind != "dev")
        self._attempts[attempt_id] = attempt
        while len(self._attempts) > _REMEMBERED:
            self._attempts.popitem(last=False)
        task = asyncio.create_task(self._sync(scope, attempt), name="sync")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        # A near app answers at once, and then the first page people see is the last one.
        await asyncio.wait([task], timeout=0.4)
        return attempt

    def find(self, environment_id: EnvironmentId, attempt_id: str) -> Attempt | None:
        """An attempt of this process."""
        found = self._attempts.get(attempt_id)
        return found if found is not None and found.environment_id == environment_id else None

    async def check(self, scope: Scope, url: str, event_key_hashes: frozenset[str]) -> AppCheck:
        """Ask the app what it is and what it knows (protocol 9); nothing is written."""
        return await check_app(
            self.caller,
            url,
            keys=await self._keys(scope),
            server_kind=self._server_kind,
            event_key_hashes=event_key_hashes,
        )

    async def stop(self) -> None:
        """End what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sync.broke", exc_info=error)

    async def _keys(self, scope: Scope) -> list[str]:
        return [] if self._server_kind == "dev" else await self._keys_of(scope.environment_id)

    async def _sync(self, scope: Scope, attempt: Attempt) -> None:
        outcome: Synced | SyncFailed = SyncFailed(
            "internal", "The sync could not be carried out.", "Try again in a moment."
        )
        try:
            outcome = await sync_app(
                self._pool,
                self.caller,
                scope,
                attempt.url,
                server_kind=self._server_kind,
                keys=await self._keys(scope),
                on_step=attempt.steps.append,
            )
        finally:
            attempt.outcome = outcome


def findings_of(check: AppCheck) -> tuple[Finding, ...]:
    """A check line by line, as far as it got."""
    lines = [
        Finding("Does it answer?", "ok", f"HTTP {check.status}")
        if check.is_reachable
        else Finding("Does it answer?", "bad", check.problem)
    ]
    if not check.is_reachable:
        return tuple(lines)
    what = " ".join(filter(None, (check.sdk[:100], check.framework))) or "no SDK header"
    lines.append(Finding("Is it an SDK?", "ok" if check.is_sdk else "bad", what))
    if not check.is_sdk:
        return tuple(lines)
    is_wrong_mode = bool(check.mode) and "mode" in check.problem
    verdict = "bad" if is_wrong_mode else "ok" if check.mode else "unknown"
    lines.append(Finding("Which mode is it in?", verdict, check.mode or "it does not say"))
    count = check.function_count
    if count is not None:
        lines.append(Finding("How many functions does it serve?", "ok" if count else "bad", str(count)))
    lines.append(Finding("Does it know the signing key?", *_KEY_WORDS[check.signing_key]))
    if check.fallback_key is not KeyState.MISSING:
        lines.append(Finding("Does it know a second signing key?", *_KEY_WORDS[check.fallback_key]))
    lines.append(Finding("Does it know an event key?", *_KEY_WORDS[check.event_key]))
    if check.is_trusted is not None:
        words = "it proved its key" if check.is_trusted else "it could not prove its key"
        lines.append(Finding("Can its answers be trusted?", "ok" if check.is_trusted else "bad", words))
    return tuple(lines)
