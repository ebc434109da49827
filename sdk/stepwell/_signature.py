"""Proving who is speaking: signatures on calls and answers, and the hash the SDK shows to the API (protocol 4).

Two uses of one key that must not be mixed up: signatures use the TEXT after the prefix, the API hash its DECODED bytes.
"""

import hashlib
import hmac
import re
import time
from urllib.parse import parse_qs

from stepwell import _json
from stepwell._errors import ConfigError

HEADER = "x-inngest-signature"

#: A signed request is taken for this many seconds, into the past and the future, so that it cannot be replayed later.
WINDOW_S = 300

_PREFIX = re.compile(r"^signkey-\w+-")


def sign(key: str, body: bytes, *, at: int | None = None) -> str:
    """Make the header value for exactly these bytes; `at` is in unix seconds, now if left out."""
    moment = int(time.time()) if at is None else at
    return f"t={moment}&s={_digest(key, body, str(moment))}"


def verify(header: str | None, body: bytes, keys: list[str], *, now: float | None = None) -> str | None:
    """Find which of our keys signed this request; None means refuse it.

    Servers send the canonical bytes they signed, so the bytes are tried as received first; canonicalising is slow and
    only needed when something on the way re-wrote the JSON.
    """
    if not header:
        return None
    fields = parse_qs(header)
    stamp, given = fields.get("t", [""])[0], fields.get("s", [""])[0]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12 and given.isascii()):
        return None
    if abs((time.time() if now is None else now) - int(stamp)) > WINDOW_S:
        return None
    for key in keys:
        if hmac.compare_digest(_digest(key, body, stamp), given):
            return key
    try:
        rewritten = _json.canonical(body)
    except (ValueError, RecursionError):
        return None
    for key in keys:
        if hmac.compare_digest(_digest(key, rewritten, stamp), given):
            return key
    return None


def bearer(key: str) -> str:
    """The hashed key sent as `Authorization: Bearer …`, with its prefix kept; ConfigError when it is no hex."""
    found = _PREFIX.match(key)
    return (found.group() if found else "") + hash_key(key)


def hash_key(key: str) -> str:
    """SHA-256 over the decoded key, for introspection, where servers compare it with theirs."""
    try:
        return hashlib.sha256(bytes.fromhex(_PREFIX.sub("", key))).hexdigest()
    except ValueError:
        raise ConfigError(
            "The signing key is not understood: it looks like signkey-prod- followed by hexadecimal digits. "
            "Copy it again from the environment's keys page."
        ) from None


def _digest(key: str, body: bytes, stamp: str) -> str:
    secret = _PREFIX.sub("", key).encode()
    return hmac.new(secret, body + stamp.encode(), hashlib.sha256).hexdigest()
