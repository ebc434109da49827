"""Which apps know a key already: asked of the apps themselves, before a rotation makes it the one that signs.

The trust probe of the protocol (9): a signed POST that runs no function and is answered signed with the same key.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.adapters.http import Caller, CallFailed
from app.domain.protocol.signature import sign, verify_response

_PATIENCE_S = 5.0
_MOST_BYTES = 64 * 1024
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
            return Readiness(name, url, await knows_key(caller, url, key, server_kind=server_kind))

    return list(await asyncio.gather(*(ask(name, url) for name, url in apps)))


async def knows_key(caller: Caller, url: str, key: str, *, server_kind: str) -> bool | None:
    """Whether the app at `url` takes and proves the key; none when nobody answers there."""
    now = int(time.time())
    headers = {
        "content-type": "application/json",
        "x-inngest-server-kind": server_kind,
        "x-inngest-signature": sign(key, b"{}", now),
    }
    target = url + ("&" if "?" in url else "?") + "probe=trust"
    try:
        answer = await caller.call(
            "POST", target, headers=headers, body=b"{}", timeout_s=_PATIENCE_S, max_body=_MOST_BYTES
        )
    except CallFailed:
        return None
    signature = answer.headers.get("x-inngest-signature")
    return bool(answer.status == 200 and signature and verify_response(signature, answer.body, keys=[key], now=now))
