"""Seal secrets that must be read again later (signing keys, event keys), so that a stolen database holds none of them.

    sealed = version (1 byte) | key id (4 bytes) | nonce (12 bytes) | AES-256-GCM ciphertext and tag

The key is derived from `STEPWELL_SECRET_KEY`. Account and environment are associated data: a sealed value that is
copied into another tenant's row does not open there. Several secret keys may be given during a rotation: the first
one seals, all of them open, and `is_current` tells which values still wait to be sealed again.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.domain.errors import Outside
from app.domain.scope import Scope

_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD_BYTES = len(_VERSION) + _KEY_ID_BYTES + _NONCE_BYTES


class CannotOpen(Outside):
    """A stored secret cannot be opened: it was sealed with another STEPWELL_SECRET_KEY or for another tenant."""

    def __init__(self) -> None:
        super().__init__(retryable=False, code="secret_unreadable")


class Sealer:
    """Seals and opens texts for one tenant at a time. Cheap to call: the keys are derived once, here."""

    def __init__(self, secret_key: str, *, older: Sequence[str] = ()) -> None:
        """Derive the keys; `older` are former values of `STEPWELL_SECRET_KEY` that may still be needed to open."""
        derived = [_derive(text) for text in (secret_key, *older)]
        self._current = derived[0][0]
        self._ciphers = {key_id: AESGCM(key) for key_id, key in reversed(derived)}

    def seal(self, secret: str, scope: Scope) -> bytes:
        """Make the bytes to store for a secret of one environment; different at every call."""
        nonce = os.urandom(_NONCE_BYTES)
        head = _VERSION + self._current + nonce
        return head + self._ciphers[self._current].encrypt(nonce, secret.encode(), _bound_to(head, scope))

    def open(self, sealed: bytes, scope: Scope) -> str:
        """Read a secret back. Raises `CannotOpen` for another tenant, an unknown key or changed bytes."""
        cipher = self._ciphers.get(_key_id(sealed))
        if cipher is None or sealed[:1] != _VERSION or len(sealed) < _HEAD_BYTES:
            raise CannotOpen
        head = sealed[:_HEAD_BYTES]
        nonce = head[-_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES:], _bound_to(head, scope)).decode()
        except InvalidTag:
            raise CannotOpen from None

    def is_current(self, sealed: bytes) -> bool:
        """Say whether the value is sealed with the newest key; if not, open it and seal it again."""
        return _key_id(sealed) == self._current


def _key_id(sealed: bytes) -> bytes:
    return sealed[1 : 1 + _KEY_ID_BYTES]


def _bound_to(head: bytes, scope: Scope) -> bytes:
    return head + scope.account_id.bytes + scope.environment_id.bytes


def _derive(secret_key: str) -> tuple[bytes, bytes]:
    """Give the id and the 256-bit key of one secret text. The id is independent of the key and may be shown."""
    material = HKDF(SHA256(), length=_KEY_ID_BYTES + 32, salt=None, info=b"stepwell sealing 1").derive(
        secret_key.encode()
    )
    return material[:_KEY_ID_BYTES], material[_KEY_ID_BYTES:]
