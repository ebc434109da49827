from typing import Any

import pytest

from app.domain.canonical import canonical_bytes
from app.domain.errors import KeyRefused
from app.domain.protocol.signature import (
    hash_event_key,
    hash_key,
    hash_key_with_prefix,
    sign,
    strip_prefix,
    token_matches,
    verify_request,
    verify_response,
)
from tests.unit.domain.vectors import load

_SIGNING = load("signing.json")
_KEY = "signkey-test-0123456789abcdef"
_OTHER = "signkey-test-fedcba9876543210"
_T = 1_700_000_000


@pytest.mark.parametrize("vector", _SIGNING["request_signature"], ids=lambda vector: vector["body_utf8"][:30])
def test_requests_are_signed_as_recorded(vector: dict[str, Any]) -> None:
    body = vector["body_utf8"].encode()
    text = canonical_bytes(body) if body else b""
    assert text.decode() == vector["canonical_utf8"]
    assert sign(vector["key"], text, vector["timestamp"]) == vector["signature_header"]
    assert verify_request(vector["signature_header"], body, keys=[vector["key"]], now=_T) == vector["key"]


@pytest.mark.parametrize("vector", _SIGNING["response_signature"], ids=lambda vector: vector["body_utf8"][:30])
def test_answers_are_verified_over_their_raw_bytes(vector: dict[str, Any]) -> None:
    body = vector["body_utf8"].encode()
    header = vector["signature_header"]
    assert sign(vector["key"], body, vector["timestamp"]) == header
    assert verify_response(header, body, keys=[vector["key"]], now=_T) == vector["key"]
    assert verify_response(header, body + b"\n", keys=[vector["key"]], now=_T) == vector["key"]
    assert verify_response(header, body + b" ", keys=[vector["key"]], now=_T) is None


@pytest.mark.parametrize("vector", _SIGNING["signing_key_hash"], ids=lambda vector: vector["key"])
def test_keys_are_hashed_as_the_sdks_do(vector: dict[str, Any]) -> None:
    key = vector["key"]
    assert strip_prefix(key) == vector["prefix_removed"]
    assert hash_key(key) == vector["python_sdk"]
    assert hash_key_with_prefix(key) == vector["ts_sdk"]
    assert token_matches(vector["python_sdk"], key)
    assert token_matches(vector["ts_sdk"], key)
    assert token_matches(key, key)
    assert not token_matches(vector["python_sdk"][:-1], key)
    assert not token_matches("", key)


@pytest.mark.parametrize("vector", _SIGNING["event_key_hash"], ids=lambda vector: vector["key"])
def test_event_keys_are_hashed_as_recorded(vector: dict[str, Any]) -> None:
    assert hash_event_key(vector["key"]) == vector["sha256_hex"]


def test_the_fallback_key_is_found_when_the_primary_did_not_sign() -> None:
    header = sign(_OTHER, b"{}", _T)
    assert verify_request(header, b"{}", keys=[_KEY, _OTHER], now=_T) == _OTHER
    assert verify_request(header, b"{}", keys=[_KEY], now=_T) is None


@pytest.mark.parametrize(
    ("age", "is_accepted"), [(0, True), (299, True), (300, True), (301, False), (-299, True), (-301, False)]
)
def test_signatures_age_after_five_minutes_to_either_side(age: int, is_accepted: bool) -> None:
    header = sign(_KEY, b"{}", _T)
    assert (verify_request(header, b"{}", keys=[_KEY], now=_T + age) == _KEY) is is_accepted
    assert verify_request(header, b"{}", keys=[_KEY], now=_T + age, window=None) == _KEY


@pytest.mark.parametrize(
    "header", ["", "t=1&s=", "s=00", f"t={_T}&s={'0' * 64}", f"t=-1&s={'0' * 64}", f"t={_T}&s={'é' * 64}"]
)
def test_a_header_that_proves_nothing_is_no_signature(header: str) -> None:
    assert verify_request(header, b"{}", keys=[_KEY], now=_T) is None


def test_a_body_that_is_not_json_is_verified_as_it_stands() -> None:
    assert verify_request(sign(_KEY, b"plain", _T), b"plain", keys=[_KEY], now=_T) == _KEY


def test_a_key_that_is_not_hex_is_refused() -> None:
    with pytest.raises(KeyRefused) as refused:
        hash_key("signkey-prod-not-hex")
    assert refused.value.code == "signing_key_invalid"
