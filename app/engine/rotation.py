"""Which apps know a key already: asked of the apps themselves, before a rotation makes it the one that signs.

The trust probe of the protocol (9): a signed POST that runs no function and is answered signed with the same key.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.adapters.http import Caller
from app.engine.probes import proves_key

_PATIENCE_S = 5.0
_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Readiness:
    """One app. `knows` is none when it does not answer, so that nobody can say."""

    name: str
    url: str
    knows: bool | None


async def ask_apps(caller: Caller, apps: Sequence[tuple[str, str]], key: str, *, server_kind: str) -> list[Readiness]:
    """Ask the apps (name, URL), ten at a time, whether they know `key`; in the order given, within about 5 s each."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(name: str, url: str) -> Readiness:
        async with turns:
            return Readiness(name, url, await proves_key(caller, url, key, server_kind, _PATIENCE_S))

    return list(await asyncio.gather(*(ask(name, url) for name, url in apps)))
