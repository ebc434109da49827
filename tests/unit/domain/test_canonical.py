import json
from contextlib import suppress

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from app.domain import canonical
from app.domain.errors import JsonRefused

_SAFE = 2**53 - 1
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-_SAFE, _SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
    | st.sampled_from(["\x00", '\x7f\x1f/\\"', "\u2028", "1234567890123456789", "😀", "\ufffe"]),
    lambda part: (
        st.lists(part, max_size=4)
        | st.dictionaries(_TEXT | st.sampled_from(["1", "ö", "😀", "\uffee"]), part, max_size=4)
    ),
    max_leaves=12,
)


@given(_VALUES)
def test_values_and_documents_have_the_text_of_the_reference_writer(value: object) -> None:
    expected = rfc8785.dumps(value)  # type: ignore[arg-type]
    assert canonical.canonical_value(value) == expected
    assert canonical.canonical_bytes(json.dumps(value).encode()) == expected
    assert canonical.canonical_bytes(json.dumps(value, ensure_ascii=False, indent=1).encode()) == expected


@given(_VALUES)
def test_canonical_text_is_its_own_canonical_text(value: object) -> None:
    text = canonical.canonical_value(value)
    assert canonical.canonical(text) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_as_in_javascript(value: float) -> None:
    assert canonical.number(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"[3, 1.50, 1e21, 0.1, -0, 1E-7, -0.0, 1.0]", b"[3,1.5,1e+21,0.1,0,1e-7,0,1]"),
        (b'{"n":12345678901234567890,"m":0.000001}', b'{"m":0.000001,"n":12345678901234567000}'),
        (b"[9007199254740993, -9007199254740993]", b"[9007199254740992,-9007199254740992]"),
        (b"[1e20, 1e22, 123456789012345678901234567890]", b"[100000000000000000000,1e+22,1.2345678901234568e+29]"),
        ('{"😀":1,"ö":2,"\uffee":4,"1":3}'.encode(), '{"1":3,"ö":2,"😀":1,"\uffee":4}'.encode()),
        (b'{"a":1,"a":{"__proto__":"\\u0000"}}', b'{"a":{"__proto__":"\\u0000"}}'),
        (b'"\\ud83d\\ude00"', '"😀"'.encode()),
    ],
)
def test_documents_are_written_canonically(document: bytes, expected: bytes) -> None:
    assert canonical.canonical_bytes(document) == expected


@pytest.mark.parametrize(
    ("document", "code", "offset"),
    [
        (b"", "json_invalid", 0),
        (b'{"a":1', "json_invalid", 6),
        (b'{"a":1}x', "json_invalid", 7),
        ('["é" 1]'.encode(), "json_invalid", 6),
        (b"\xef\xbb\xbf{}", "json_invalid", 0),
        (b"<html>", "json_invalid", 0),
        (b'["\xff"]', "json_encoding", 2),
        (b'"\xed\xa0\x80"', "json_encoding", 1),
        (b'["\\ud800"]', "json_encoding", None),
        (b'{"\\udc00":1}', "json_encoding", None),
        (b"[NaN]", "json_number_range", None),
        (b"-Infinity", "json_number_range", None),
        (b"[1e999]", "json_number_range", None),
        (b"1" * 41, "json_number_range", None),
        (b"-" + b"1" * 5000, "json_number_range", None),
        (b"[" * 3000 + b"]" * 3000, "json_too_deep", None),
        (b"[" * 800 + b"1234567890123456789" + b"]" * 800, "json_too_deep", None),
    ],
)
def test_a_bad_document_is_refused_with_its_code_and_place(document: bytes, code: str, offset: int | None) -> None:
    with pytest.raises(JsonRefused) as refused:
        canonical.canonical_bytes(document)
    assert refused.value.code == code
    assert refused.value.details.get("offset") == offset


@given(st.binary(max_size=40))
def test_any_bytes_are_written_or_refused(document: bytes) -> None:
    with suppress(JsonRefused):
        text = canonical.canonical_bytes(document)
        assert json.loads(text) == json.loads(document)


def test_half_a_surrogate_pair_in_our_own_values_is_refused() -> None:
    with pytest.raises(JsonRefused, match="surrogate"):
        canonical.canonical_value({"a": "\ud800"})


def test_bounds_are_exact() -> None:
    deep: object = 1
    for _ in range(64):
        deep = [deep]
    canonical.check_bounds(deep)
    with pytest.raises(JsonRefused) as too_deep:
        canonical.check_bounds([deep])
    assert too_deep.value.code == "json_too_deep"
    canonical.check_bounds([0] * 99_999)
    with pytest.raises(JsonRefused) as too_complex:
        canonical.check_bounds([0] * 100_000)
    assert too_complex.value.code == "json_too_complex"


@pytest.mark.parametrize(
    ("document", "loses"),
    [
        (b"[12345678901234567890]", True),
        (b"[0.1234567890123456789]", True),
        (b"[9007199254740992]", False),
        (b'["12345678901234567890"]', False),
        (b"[0.10000000000000000000]", False),
        (b"[1.5]", False),
    ],
)
def test_lost_digits_are_noticed(document: bytes, loses: bool) -> None:
    assert canonical.loses_digits(document) is loses
