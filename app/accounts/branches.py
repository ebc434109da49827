"""Branch environments: which one a request means that names it in `x-inngest-env` (feature-semantics A9).

    key of a branch parent + name    the branch of that name below it, made by the first event or sync that names it
    any other key + name             the key's own environment: the name is only the app's word for it

A branch has functions, events and runs of its own; keys are its parent's. An archived branch takes no events, and the
next sync brings it back. How many there may be is bounded, because whoever has the key can make them by asking.
"""

import hashlib
import time
from collections.abc import Callable

from app.accounts.environments import NameInvalid, checked_name, slug_of
from app.accounts.resolve import Remembered
from app.domain.errors import Refused
from app.domain.ids import EnvironmentId, derive_uuid
from app.domain.scope import Scope
from app.store import accounts, audit
from app.store.audit import Actor
from app.store.db import Pool

#: Live branches below one parent.
MOST_BRANCHES = 250
_ACTOR = Actor("branch")


class TooManyBranches(Refused):
    """There are as many branch environments as allowed: archive some that are not needed any more."""

    def __init__(self) -> None:
        super().__init__("too_many_environments", details={"limit": MOST_BRANCHES})


class BranchArchived(Refused):
    """The branch environment is archived; the next sync of an app brings it back."""

    def __init__(self) -> None:
        super().__init__("env_archived")


class Branches:
    """Finds and makes branches. Answers are remembered as keys are (five seconds, one for a no)."""

    def __init__(self, pool: Pool, *, now: Callable[[], float] = time.monotonic) -> None:
        """Remember where to ask; `pool` is the engine's, because the tenant is what is being found."""
        self._pool = pool
        self._seen: Remembered[tuple[Scope, str], accounts.Branch] = Remembered(self._ask, now=now)

    async def find(self, scope: Scope, name: str | None) -> Scope:
        """The scope of a request that only reads: an unknown or archived branch has nothing of its own to show."""
        found = await self._find(scope, name)
        return scope if found is None or found.environment is None else found.environment.scope

    async def for_event(self, scope: Scope, name: str | None) -> Scope:
        """The scope of an event; makes the branch. Raises `BranchArchived` and `TooManyBranches`."""
        found = await self._find(scope, name)
        if found is None or name is None:
            return scope
        if found.environment is None:
            return await self._make(scope, name)
        if found.environment.archived_at is not None:
            raise BranchArchived
        return found.environment.scope

    async def for_sync(self, scope: Scope, name: str | None) -> Scope:
        """The scope of a sync; makes the branch or brings it back. Raises `TooManyBranches`."""
        found = await self._find(scope, name)
        if found is None or name is None:
            return scope
        if found.environment is None or found.environment.archived_at is not None:
            return await self._make(scope, name)
        return found.environment.scope

    async def _find(self, scope: Scope, name: str | None) -> accounts.Branch | None:
        """What is known below the key's environment; None when that takes no branches or no name was given."""
        if not name:
            return None
        try:
            return await self._seen.get((scope, checked_name(name)))
        except NameInvalid:
            return None  # No branch can be called so: the header means nothing to us.

    async def _ask(self, asked: tuple[Scope, str]) -> accounts.Branch | None:
        scope, name = asked
        async with self._pool.acquire(timeout=2) as conn:
            return await accounts.find_branch(conn, scope, name)

    async def _make(self, parent: Scope, given: str) -> Scope:
        name = checked_name(given)
        scope = Scope(parent.account_id, EnvironmentId(derive_uuid("branch", parent.environment_id.bytes, name)))
        async with self._pool.acquire(timeout=2) as conn, conn.transaction():
            # The parent's row is held: two that make the last branch allowed come one after the other.
            live = await accounts.count_branches(conn, parent)
            if live >= MOST_BRANCHES:
                raise TooManyBranches
            slug = slug_of(name)
            if not await accounts.put_branch(conn, parent, scope, name=name, slug=slug):
                mark = hashlib.sha256(name.encode()).hexdigest()[:8]
                await accounts.put_branch(conn, parent, scope, name=name, slug=f"{slug[:39]}-{mark}")
            await audit.insert_entry(
                conn,
                parent.account_id,
                _ACTOR,
                "environment.created",
                environment_id=scope.environment_id,
                subject=name,
            )
        self._seen.forget((parent, name))
        return scope
