"""Passwords: which are good enough, and hashing that is slow for attackers without stopping the server.

The hash is argon2id. 64 MiB and three rounds take about 150 ms on the two-core machine it was measured on
(ASVS 11.4.2 asks for at least 19 MiB and two rounds).
"""

import asyncio
import functools
import unicodedata
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.domain.errors import Outside, Refused

T = TypeVar("T")

SHORTEST, LONGEST = 12, 128
"""Characters of a password, after Unicode normalisation."""
MOST_WAITING = 100
"""Passwords that may be looked at or wait for it; two at once take about eight seconds for so many."""
_LEAST_KIB, _LEAST_ROUNDS = 19 * 1024, 2


class PasswordRefused(Refused):
    """The password cannot be used. Codes: `password_too_short`, `password_too_long`, `password_common`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password was right, and the hash to store instead when the old one has weaker parameters."""

    right: bool
    new_hash: str | None = None


class Passwords:
    """Hashes and verifies in a few threads of its own: more logins at once wait, they do not eat memory.

    argon2 lets go of the interpreter lock while it works, so other requests go on.
    """

    def __init__(self, *, memory_kib: int = 64 * 1024, rounds: int = 3, at_once: int = 2) -> None:
        """Choose the price; anything below the floor of ASVS raises `ValueError`."""
        if memory_kib < _LEAST_KIB or rounds < _LEAST_ROUNDS:
            raise ValueError(f"argon2id needs at least {_LEAST_KIB} KiB and {_LEAST_ROUNDS} rounds")
        self._hasher = PasswordHash((Argon2Hasher(time_cost=rounds, memory_cost=memory_kib, parallelism=1),))
        self._waiting = 0
        self._threads = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="passwords")
        # A well-formed hash of no password, with our parameters: verifying against it costs what a real one costs.
        salt, digest = (b64encode(bytes(n)).decode().rstrip("=") for n in (16, 32))
        self.nobodys = f"$argon2id$v=19$m={memory_kib},t={rounds},p=1${salt}${digest}"

    async def hash(self, password: str) -> str:
        """Make the text to store. Check with `check_password` first; this only hashes."""
        return await self._in_thread(functools.partial(self._hasher.hash, _normal(password)))

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Compare with a stored hash; for none (unknown person, no password) do the same work and say no."""
        right, new_hash = await self._in_thread(
            functools.partial(self._hasher.verify_and_update, _normal(password)[:LONGEST], stored or self.nobodys)
        )
        if stored is None or not right:
            return Verdict(False)
        return Verdict(True, new_hash)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: "functools.partial[T]") -> T:
        if self._waiting >= MOST_WAITING:
            raise Outside("Too many people sign in just now. Try again in a moment.", retryable=True, code="overloaded")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def check_password(password: str, *, email: str = "") -> None:
    """Refuse a new password that is too short, too long, or among the first that anybody would try."""
    text = _normal(password)
    if len(text) < SHORTEST:
        raise PasswordRefused("password_too_short", f"Use at least {SHORTEST} characters.", {"least": SHORTEST})
    if len(text) > LONGEST:
        raise PasswordRefused("password_too_long", f"Use at most {LONGEST} characters.", {"most": LONGEST})
    if text.lower() in _common() or text.lower() == email.lower():
        raise PasswordRefused("password_common", "Many people use this password. Choose another one.")


def _normal(password: str) -> str:
    """The same password typed on different keyboards must be the same text."""
    return unicodedata.normalize("NFKC", password)


@functools.cache
def _common() -> frozenset[str]:
    text = (Path(__file__).parent / "common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
