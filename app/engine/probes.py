"""The two questions to an app that run no function (protocol 9): what are you, and do you have this key.

Asked by `diagnose`, `sync_cause` and `rotation`, which judge the answers. Both may raise CallFailed or say none of it.
"""

import time
from typing import Any

import msgspec

from app.adapters.http import Answer, Caller, CallFailed
from app.domain.protocol.signature import refuses_signature, sign, verify_response

_MOST_BYTES = 256 * 1024


async def introspect(
    caller: Caller, url: str, keys: list[str], server_kind: str, patience_s: float
) -> tuple[Answer, str | None]:
    """Introspection, a signed GET: the first answer that is no refusal, and the key it was asked with; else the first
    refusal. Without keys it is asked unsigned. Raises CallFailed.
    """
    headers = {"x-inngest-server-kind": server_kind}

    async def ask() -> Answer:
        return await caller.call("GET", url, headers=headers, body=b"", timeout_s=patience_s, max_body=_MOST_BYTES)

    if not keys:
        return await ask(), None
    refused: Answer | None = None
    for key in keys:
        headers["x-inngest-signature"] = sign(key, b"", int(time.time()))
        answer = await ask()
        if not refuses_signature(answer.status, answer.headers):
            return answer, key
        refused = refused or answer
    assert refused is not None
    return refused, None


async def proves_key(caller: Caller, url: str, key: str, server_kind: str, patience_s: float) -> bool | None:
    """The trust probe, a signed POST: whether the app takes the key and signs its answer with it; none when nobody answers."""
    now = int(time.time())
    headers = {
        "content-type": "application/json",
        "x-inngest-server-kind": server_kind,
        "x-inngest-signature": sign(key, b"{}", now),
    }
    target = url + ("&" if "?" in url else "?") + "probe=trust"
    try:
        answer = await caller.call(
            "POST", target, headers=headers, body=b"{}", timeout_s=patience_s, max_body=_MOST_BYTES
        )
    except CallFailed:
        return None
    signature = answer.headers.get("x-inngest-signature")
    return bool(answer.status == 200 and signature and verify_response(signature, answer.body, keys=[key], now=now))


def said_in(body: bytes) -> dict[str, Any]:
    """The object an app answered with; empty when it is none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
