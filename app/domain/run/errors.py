"""Error objects the machine makes up, as canonical JSON (protocol 14.4).

They carry `"data": null` because go cannot replay a failed step without it (protocol 10.3).
"""

from typing import Final

import msgspec

_encode = msgspec.json.Encoder(order="sorted").encode
_ERROR: Final = b'{"error":'


def made_up(name: str, message: str, **more: str) -> bytes:
    """An error object with `name`, `message`, `data` null and whatever texts else. Plain ASCII only."""
    return _encode({"name": name, "message": message, "data": None, **more})


def as_memo(error: bytes) -> bytes:
    """The memo of a step that failed with this error object (protocol 10.3)."""
    return _ERROR + error + b"}"


def error_in(memo: bytes) -> bytes:
    """The error object inside a memo `{"error":…}`. Canonical text with one key can be cut without being read."""
    return memo[len(_ERROR) : -1] if memo.startswith(_ERROR) else memo
