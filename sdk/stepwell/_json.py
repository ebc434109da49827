"""JSON in and out: what users may return from steps, and the canonical form signatures are made over."""

import json
from typing import Any

import msgspec
import rfc8785

from stepwell._errors import UnserializableError

_LARGEST_EXACT = 2**53 - 1


def _foreign(value: Any) -> Any:
    """Turn objects of other libraries into plain values: Pydantic models are known by their `model_dump`."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_ENCODER = msgspec.json.Encoder(enc_hook=_foreign)


def encode(value: Any) -> bytes:
    """Write compact JSON; UnserializableError names the type that has no JSON form."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise UnserializableError(
            f"{error}. Return plain values from steps and functions: dict, list, str, int, float, bool or None."
        ) from error


def decode(body: bytes) -> Any:
    """Read JSON into plain values; ValueError (`msgspec.DecodeError`) when it is none."""
    return msgspec.json.decode(body)


def canonical(body: bytes) -> bytes:
    """Bring JSON into RFC 8785 form, with whole numbers beyond 2^53 rounded as JavaScript does; ValueError if no JSON.

    Protocol 4.2. An empty body stays empty.
    """
    if not body:
        return b""
    return rfc8785.dumps(json.loads(body, parse_int=_whole))


def _whole(text: str) -> int | float:
    number = int(text)
    return number if abs(number) <= _LARGEST_EXACT else float(number)


def raw(body: bytes) -> msgspec.Raw:
    """Mark bytes that are JSON already, so that they are spliced in as they are."""
    return msgspec.Raw(body)
