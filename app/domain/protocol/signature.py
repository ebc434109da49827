"""Signatures and key hashes (protocol 4): who may speak to whom.

Two things look alike and are not. A *signature* is keyed with the hex TEXT of the signing key; the *hash* that SDKs show
as bearer token is made of the DECODED hex. All comparisons take the same time wherever the texts differ.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from app.domain.canonical import canonical_bytes
from app.domain.errors import JsonRefused, KeyRefused
from app.domain.limits import SIGNATURE_WINDOW

_PREFIX = re.compile(r"signkey-\w+-")
_HEADER = re.compile(r"t=([0-9]{1,12})&s=([0-9a-f]{64})")
_WINDOW_S = int(SIGNATURE_WINDOW.total_seconds())


def strip_prefix(key: str) -> str:
    """The key without `signkey-<label>-`; a key without prefix as it is."""
    return key[match.end() :] if (match := _PREFIX.match(key)) else key


def hash_key(key: str) -> str:
    """What SDKs show instead of the key: SHA-256 over the decoded hex, without prefix. Raises `KeyRefused`."""
    try:
        return hashlib.sha256(bytes.fromhex(strip_prefix(key))).hexdigest()
    except ValueError:
        raise KeyRefused("signing_key_invalid") from None


def hash_key_with_prefix(key: str) -> str:
    """The same hash behind the key's own prefix, as the TypeScript and Go SDKs send it. Raises `KeyRefused`."""
    return key[: len(key) - len(strip_prefix(key))] + hash_key(key)


def hash_event_key(key: str) -> str:
    """SHA-256 of an event key as text: what introspection shows and what lookups use."""
    return hashlib.sha256(key.encode()).hexdigest()


def token_matches(token: str, key: str) -> bool:
    """Whether a bearer token belongs to a signing key: its hash with or without prefix, or the plain key (protocol 4.5)."""
    shown = strip_prefix(token).encode()
    is_hash = hmac.compare_digest(shown, hash_key(key).encode())
    is_key = hmac.compare_digest(shown, strip_prefix(key).encode())
    return is_hash or is_key


def refuses_signature(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an SDK answered that it does not know the key; it has run nothing then (protocol 3.2)."""
    return status in (401, 403) and ("x-inngest-sdk" in headers or "x-inngest-sdk-handled" in headers)


def sign(key: str, body: bytes, at: int) -> str:
    """The header `x-inngest-signature` for a request or answer with exactly these bytes; `at` is Unix seconds.

    A request's body must be canonical already: SDKs canonicalise what they receive before they compare. Measured 3 µs.
    """
    return f"t={at}&s={_digest(key, body, b'%d' % at)}"


def verify_request(
    header: str, body: bytes, *, keys: Sequence[str], now: int, window: int | None = _WINDOW_S
) -> str | None:
    """The key that signed a request, first match of `keys` (primary, then fallback); None when none did.

    The body is canonicalised first, as every SDK does; a body that is not JSON is taken as it stands. `window` is in
    seconds to either side of `now`; None does not look at the age.
    """
    try:
        message = canonical_bytes(body) if body else body
    except JsonRefused:
        message = body
    return _signer(header, (message,), keys, now, window)


def verify_response(
    header: str, body: bytes, *, keys: Sequence[str], now: int, window: int | None = _WINDOW_S
) -> str | None:
    """The key that signed an answer, over its raw bytes; None when none did.

    Go's encoder appends a newline after signing, so the body without one trailing newline is tried too.
    """
    bodies = (body, body[:-1]) if body.endswith(b"\n") else (body,)
    return _signer(header, bodies, keys, now, window)


def _digest(key: str, body: bytes, at: bytes) -> str:
    return hmac.digest(strip_prefix(key).encode(), body + at, "sha256").hex()


def _signer(header: str, bodies: Sequence[bytes], keys: Sequence[str], now: int, window: int | None) -> str | None:
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    at, claimed = match.groups()
    if window is not None and abs(now - int(at)) > window:
        return None
    for key in keys:
        for body in bodies:
            if hmac.compare_digest(_digest(key, body, at.encode()), claimed):
                return key
    return None
