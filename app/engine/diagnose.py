"""What is wrong with an app, asked of the app itself (protocol 9): is it there, is it an SDK, does it know our keys.

Two requests that run no function: introspection (a signed GET) and the trust probe (a signed POST whose answer must be
signed too). Nothing is written. Comes from pages and the command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from app.adapters.http import Answer, Caller, CallFailed
from app.domain.protocol.addresses import normalise_url
from app.domain.protocol.signature import hash_key, refuses_signature, strip_prefix
from app.engine.probes import introspect, proves_key, said_in

_PATIENCE_S = 10.0
#: TypeScript SDKs show only the beginning of a hash.
_SHORTEST_HASH = 12


class KeyState(StrEnum):
    """What the app knows of a key (feature-semantics A3)."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class AppCheck:
    """What was found. `status` is that of the introspection, 0 when nobody answered.

    `sdk` is `language:vX.Y.Z`, `mode` is `dev` or `cloud`; both are empty while the app does not tell. `is_trusted`: the
    answer of the trust probe was signed with a key of the environment; None when there is no key to prove.
    `problem` and `fix` are sentences, empty when all is well.
    """

    url: str
    is_reachable: bool = False
    is_sdk: bool = False
    status: int = 0
    sdk: str = ""
    framework: str = ""
    mode: str = ""
    function_count: int | None = None
    signing_key: KeyState = KeyState.UNKNOWN
    fallback_key: KeyState = KeyState.UNKNOWN
    event_key: KeyState = KeyState.UNKNOWN
    is_trusted: bool | None = None
    problem: str = ""
    fix: str = ""


async def check_app(
    caller: Caller,
    url: str,
    *,
    keys: list[str],
    server_kind: str,
    event_key_hashes: frozenset[str] = frozenset(),
) -> AppCheck:
    """Look at the app at `url`; never raises for anything the app or the network does.

    `keys` are the environment's signing keys, the current one first; [] where nothing is signed. `event_key_hashes` are
    SHA-256 hex of its event keys, to tell whether the app has one of them.
    """
    found = AppCheck(normalise_url(url))
    try:
        answer, used = await introspect(caller, found.url, keys, server_kind, _PATIENCE_S)
    except CallFailed as failure:
        return replace(
            found, problem=failure.message, fix="Start the app, and check that the URL can be reached from Stepwell."
        )
    found = _read(replace(found, is_reachable=True, status=answer.status), answer, keys, used, event_key_hashes)
    if found.is_sdk and keys and found.mode != "dev":
        found = replace(found, is_trusted=await _is_trusted(caller, found.url, keys, server_kind))
    return _judged(found, server_kind, is_signed=bool(keys))


async def _is_trusted(caller: Caller, url: str, keys: list[str], server_kind: str) -> bool:
    for key in keys:
        proven = await proves_key(caller, url, key, server_kind, _PATIENCE_S)
        if proven is not False:
            return bool(proven)
    return False


def _read(
    found: AppCheck, answer: Answer, keys: list[str], used: str | None, event_key_hashes: frozenset[str]
) -> AppCheck:
    is_sdk = "x-inngest-sdk" in answer.headers or "x-inngest-sdk-handled" in answer.headers
    sdk = answer.headers.get("x-inngest-sdk", "").removeprefix("inngest-")
    found = replace(found, is_sdk=is_sdk, sdk=sdk, framework=answer.headers.get("x-inngest-framework", "")[:100])
    if not is_sdk:
        return found
    if refuses_signature(answer.status, answer.headers):
        return replace(found, mode="cloud", signing_key=KeyState.INCORRECT)
    said = said_in(answer.body)
    count = said.get("function_count")
    return replace(
        found,
        mode=str(said.get("mode") or "")[:20],
        framework=found.framework or str(said.get("framework") or "")[:100],
        function_count=count if isinstance(count, int) else None,
        signing_key=_state(said, "signing_key", [hash_key(key) for key in keys], proven=used is not None),
        fallback_key=_state(said, "signing_key_fallback", [hash_key(key) for key in keys]),
        event_key=_state(said, "event_key", event_key_hashes),
    )


def _state(said: Mapping[str, Any], name: str, ours: list[str] | frozenset[str], *, proven: bool = False) -> KeyState:
    if said.get(f"has_{name}") is False:
        return KeyState.MISSING
    shown = said.get(f"{name}_hash")
    if isinstance(shown, str) and shown and ours:
        bare = strip_prefix(shown).lower()
        is_ours = len(bare) >= _SHORTEST_HASH and any(one.startswith(bare) for one in ours)
        return KeyState.CORRECT if is_ours else KeyState.INCORRECT
    if proven and said.get("authentication_succeeded") is True:
        return KeyState.CORRECT
    return KeyState.UNKNOWN


def _judged(found: AppCheck, server_kind: str, *, is_signed: bool) -> AppCheck:
    """The first thing that is wrong, with what to do about it."""
    problem, fix = "", ""
    if not found.is_sdk:
        problem = f"Something answered (HTTP {found.status}), but no SDK."
        fix = "Check that the URL is the one where the SDK is served."
    elif found.mode and found.mode != server_kind:
        problem = f"The app is in {found.mode} mode, and this is a {server_kind} server."
        fix = "Set INNGEST_DEV of the app accordingly."
    elif is_signed and found.signing_key is KeyState.MISSING:
        problem = "The app has no signing key."
        fix = "Set INNGEST_SIGNING_KEY of the app to this environment's signing key."
    elif is_signed and (found.signing_key is KeyState.INCORRECT or found.is_trusted is False):
        problem = "The app does not accept, or cannot prove, this environment's signing key."
        fix = "Set INNGEST_SIGNING_KEY of the app to this environment's signing key, and check the clock of both machines."
    elif found.event_key is KeyState.INCORRECT:
        problem = "The app sends events with a key that is not one of this environment."
        fix = "Set INNGEST_EVENT_KEY of the app to an event key of this environment."
    return replace(found, problem=problem, fix=fix)
