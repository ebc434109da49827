"""What machines need at every request: whose key is this, and what do we sign with.

These run on the engine's pool, because a key tells which tenant it belongs to and so comes before any tenant is set.
Answers are remembered in the process for five seconds, counted from before the question was asked: a revoked key is
refused everywhere within five seconds. "No" is remembered more briefly, and only so many of them.

Keys are looked up by SHA-256, so the time of a lookup says nothing about a key; the hashes are compared in constant
time on top. Plain keys are not kept as cache keys.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from app.accounts.api_keys import API_KEY_PREFIX, hash_of_api_key
from app.accounts.keys import hash_of_event_key, hash_of_token
from app.adapters.sealing import Sealer
from app.domain.ids import EnvironmentId
from app.domain.scope import Scope
from app.store import api_keys, keys
from app.store.db import Pool

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")

FRESH = 5.0
"""Seconds a found key is believed."""
FRESH_NO = 1.0
"""Seconds an unknown key is refused without asking again; a new key works after at most this long."""
_LONGEST_KEY = 512


class EventKeys:
    """Finds whose event key it is. `anyone` (dev mode) is the scope of every key that is not known."""

    def __init__(self, pool: Pool, *, anyone: Scope | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """Remember where to ask; nothing is read before the first key."""
        self._pool = pool
        self._anyone = anyone
        self._seen: Remembered[bytes, Scope] = Remembered(self._ask, now=now)

    async def find(self, key: str) -> Scope | None:
        """Whose key is it; none when unknown, revoked, or its environment is archived."""
        if self._anyone is not None:
            return self._anyone
        if not key or len(key) > _LONGEST_KEY:
            return None
        return await self._seen.get(hash_of_event_key(key))

    async def _ask(self, secret_hash: bytes) -> Scope | None:
        async with self._pool.acquire(timeout=2) as conn:
            found = await keys.find_by_event_key(conn, secret_hash)
        return found.scope if found is not None and hmac.compare_digest(found.matched, secret_hash) else None


class Bearers:
    """Finds whose signing key a bearer token proves, or whose API key it is.

    `anyone` (dev mode) is the scope of every other or no token.
    """

    def __init__(self, pool: Pool, *, anyone: Scope | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """Remember where to ask; nothing is read before the first token."""
        self._pool = pool
        self._anyone = anyone
        self._seen: Remembered[bytes, Scope] = Remembered(self._ask, now=now)
        self._seen_api: Remembered[bytes, Scope] = Remembered(self._ask_api, now=now)

    async def find(self, token: str, *, takes_api_keys: bool = True) -> Scope | None:
        """Whose token is it: the key's hash or the plain key, with or without `signkey-<label>-` (protocol 4.5).

        API keys may ask and act on runs; what registers an app's functions does not take them.
        """
        if self._anyone is not None:
            return self._anyone
        if not token or len(token) > _LONGEST_KEY:
            return None
        if token.startswith(API_KEY_PREFIX):
            return await self._seen_api.get(hash_of_api_key(token)) if takes_api_keys else None
        return await self._seen.get(hash_of_token(token))

    async def find_header(self, authorization: str | None, *, takes_api_keys: bool = True) -> Scope | None:
        """The same for a whole `Authorization` header; none when it is missing or of another scheme."""
        scheme, _, token = (authorization or "").partition(" ")
        return await self.find(token.strip() if scheme.lower() == "bearer" else "", takes_api_keys=takes_api_keys)

    async def _ask(self, token_hash: bytes) -> Scope | None:
        async with self._pool.acquire(timeout=2) as conn:
            found = await keys.find_by_bearer(conn, token_hash)
        return found.scope if found is not None and hmac.compare_digest(found.matched, token_hash) else None

    async def _ask_api(self, secret_hash: bytes) -> Scope | None:
        async with self._pool.acquire(timeout=2) as conn:
            found = await api_keys.find_by_api_key(conn, secret_hash)
        return found.scope if found is not None and hmac.compare_digest(found.matched, secret_hash) else None


class SigningKeys:
    """Gives the keys to sign calls with, opened."""

    def __init__(self, pool: Pool, sealer: Sealer, *, now: Callable[[], float] = time.monotonic) -> None:
        """Remember where to ask; nothing is read before the first environment."""
        self._pool = pool
        self._sealer = sealer
        self._seen: Remembered[EnvironmentId, tuple[str, ...]] = Remembered(self._ask, now=now)

    async def of(self, environment_id: EnvironmentId) -> list[str]:
        """The keys as `signkey-<label>-<hex>`, the current one first; [] where nothing is signed (dev).

        Raises `CannotOpen` when the secret key of this process did not seal them.
        """
        return list(await self._seen.get(environment_id) or ())

    async def _ask(self, environment_id: EnvironmentId) -> tuple[str, ...] | None:
        async with self._pool.acquire(timeout=2) as conn:
            rows = await keys.list_live_signing_keys(conn, environment_id)
        return tuple(self._sealer.open(row.sealed, row.scope) for row in rows) or None


class Remembered(Generic[K, V]):
    """Answers of a question, believed for a short time; many who ask at once cause one question.

    Bounded: of "yes" and "no" at most `most` each are kept, the oldest go first. A question that fails is not
    remembered and fails for all who waited for it.
    """

    def __init__(
        self, ask: Callable[[K], Awaitable[V | None]], *, now: Callable[[], float] = time.monotonic, most: int = 10_000
    ) -> None:
        """`ask` gives an answer or none; `now` is a clock in seconds that never goes back."""
        self._ask = ask
        self._now = now
        self._most = most
        self._yes: dict[K, tuple[float, V]] = {}
        self._no: dict[K, float] = {}
        self._asking: dict[K, asyncio.Task[V | None]] = {}

    @property
    def size(self) -> int:
        """How many answers are kept, believed or not."""
        return len(self._yes) + len(self._no)

    async def get(self, key: K) -> V | None:
        """The answer, at most `FRESH` (a no: `FRESH_NO`) seconds old."""
        now = self._now()
        known = self._yes.get(key)
        if known is not None and known[0] > now:
            return known[1]
        if self._no.get(key, now) > now:
            return None
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._learn(key, now))
        # Shielded: one who stops waiting must not stop the others.
        return await asyncio.shield(asking)

    def forget(self, key: K) -> None:
        """Ask again at the next opportunity: the answer was just changed by this process."""
        self._yes.pop(key, None)
        self._no.pop(key, None)

    async def _learn(self, key: K, asked_at: float) -> V | None:
        try:
            answer = await self._ask(key)
        finally:
            del self._asking[key]
        self._yes.pop(key, None)
        self._no.pop(key, None)
        if answer is None:
            _keep(self._no, key, asked_at + FRESH_NO, self._most)
        else:
            _keep(self._yes, key, (asked_at + FRESH, answer), self._most)
        return answer


def _keep(kept: dict[K, A], key: K, value: A, most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value
