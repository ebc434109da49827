"""Identifiers: drawn once at the edge, derived everywhere else.

Ids are UUIDs in Postgres and in memory. Those that carry a time (runs, events, items) are ULIDs: 48 bits of
milliseconds, then 80 bits. People and SDKs see them as 26 Crockford characters (`to_ulid`, `parse_ulid`).
What one thing causes gets an id computed from its cause (`derive_*`), so that doing the work twice writes the
same rows twice, and the second time changes nothing.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import NewType
from uuid import UUID

AccountId = NewType("AccountId", UUID)
UserId = NewType("UserId", UUID)
EnvironmentId = NewType("EnvironmentId", UUID)
AppId = NewType("AppId", UUID)
FunctionId = NewType("FunctionId", UUID)
EventId = NewType("EventId", UUID)
RunId = NewType("RunId", UUID)
ItemId = NewType("ItemId", UUID)
LaneId = NewType("LaneId", UUID)
LeaseId = NewType("LeaseId", UUID)
WorkerId = NewType("WorkerId", UUID)

#: Fixed identity of `stepwell dev` (protocol section 1).
DEV_ACCOUNT_ID = AccountId(UUID("00000000-0000-4000-a000-000000000000"))
DEV_ENVIRONMENT_ID = EnvironmentId(UUID("00000000-0000-4000-b000-000000000000"))

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Two characters at a time: every message, call and row of the timeline shows such a text.
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_SHIFTS = tuple(range(120, -1, -10))
_VALUE = {c: i for i, c in enumerate(_ALPHABET)} | {c.lower(): i for i, c in enumerate(_ALPHABET)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ulid(value: UUID) -> str:
    """The 26-character text of an id."""
    n = value.int
    return "".join([_PAIRS[n >> shift & 1023] for shift in _SHIFTS])


def parse_ulid(text: str) -> UUID | None:
    """The id written as ULID text (any letter case); None when it is not one."""
    if len(text) != 26:
        return None
    n = 0
    for c in text:
        v = _VALUE.get(c)
        if v is None:
            return None
        n = n << 5 | v
    return UUID(int=n) if n < 1 << 128 else None


def ulid_of(millis: int, entropy: bytes) -> UUID:
    """A ULID from milliseconds since 1970 and ten bytes."""
    return UUID(bytes=millis.to_bytes(6, "big") + entropy)


def time_of(value: UUID) -> datetime:
    """The instant a ULID carries, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=value.int >> 80)


def millis(at: datetime) -> int:
    """Whole milliseconds since 1970 of an aware datetime."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\x00".join(parts)).digest()


def derive_run_id(function_id: FunctionId, cause: bytes, at: datetime) -> RunId:
    """The run a function makes of a cause (an event id, a due time, a replay), dated `at` (the scheduling time).

    Runs are partitioned and listed by this id, so `at` must be our own clock's, never a client's.
    """
    return RunId(ulid_of(millis(at), _digest(b"run", function_id.bytes, cause)[:10]))


def derive_item_id(run_id: RunId, key: str) -> ItemId:
    """The queue item `key` of a run; the same key is the same row."""
    return ItemId(UUID(bytes=_digest(b"item", run_id.bytes, key.encode())[:16]))


def derive_event_id(run_id: RunId, key: str, at: datetime) -> EventId:
    """An internal event that a run causes (`finished`, `failed`, an invoke)."""
    return EventId(ulid_of(millis(at), _digest(b"event", run_id.bytes, key.encode())[:10]))


def derive_uuid(*parts: str | bytes) -> UUID:
    """A plain UUID computed from names: lanes, apps, functions, flow keys."""
    n = int.from_bytes(_digest(*(p.encode() if isinstance(p, str) else p for p in parts))[:16], "big")
    # Version 8, variant of RFC 9562, set by hand: the constructor of Python 3.11 knows versions up to 5 only.
    return UUID(int=n & ~(0xF000 << 64 | 0xC000 << 48) | 8 << 76 | 2 << 62)
