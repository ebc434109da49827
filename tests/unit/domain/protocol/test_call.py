import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.canonical import canonical_bytes, canonical_value
from app.domain.protocol.call import call_body, call_headers, must_fetch

_HASHES = st.integers(0, 2**160 - 1).map(lambda number: f"{number:040x}")
_CALL: dict[str, Any] = {
    "run_id": "01HQRNRNRNRNRNRNRNRNRNRNRN",
    "function_id": "11111111-1111-4111-8111-111111111111",
    "item_id": "22222222-2222-4222-8222-222222222222",
    "request_id": "01HREQ0000000000000000000A",
    "generation_id": 3,
    "step_id": "step",
    "attempt": 0,
    "max_attempts": 5,
    "is_planned": False,
    "environment": "production",
    "stack": ["b" * 40, "a" * 40],
    "event": b'{"data":{},"id":"1","name":"t/a","ts":1,"user":{}}',
    "events": [b'{"data":{},"id":"1","name":"t/a","ts":1,"user":{}}', b'{"name":"t/b"}'],
    "steps": [("b" * 40, b'{"data":1}'), ("a" * 40, b"null")],
    "version": -1,
    "use_api": False,
}


def _body(**changes: Any) -> bytes:
    return call_body(**{**_CALL, **changes})


def test_a_call_says_everything_an_sdk_reads() -> None:
    assert json.loads(_body()) == {
        "ctx": {
            "attempt": 0,
            "disable_immediate_execution": False,
            "env": "production",
            "fn_id": "11111111-1111-4111-8111-111111111111",
            "generation_id": 3,
            "job_id": "22222222-2222-4222-8222-222222222222",
            "max_attempts": 5,
            "qi_id": "22222222-2222-4222-8222-222222222222",
            "request_id": "01HREQ0000000000000000000A",
            "run_id": "01HQRNRNRNRNRNRNRNRNRNRNRN",
            "stack": {"current": 2, "stack": ["b" * 40, "a" * 40]},
            "step_id": "step",
            "use_api": False,
        },
        "defers": {},
        "event": {"data": {}, "id": "1", "name": "t/a", "ts": 1, "user": {}},
        "events": [{"data": {}, "id": "1", "name": "t/a", "ts": 1, "user": {}}, {"name": "t/b"}],
        "steps": {"a" * 40: None, "b" * 40: {"data": 1}},
        "use_api": False,
        "version": -1,
    }


@given(
    steps=st.dictionaries(_HASHES, st.integers(-(10**20), 10**20) | st.text(), max_size=5),
    environment=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    attempt=st.integers(0, 20),
    generation_id=st.integers(0, 10**6),
    version=st.sampled_from([-1, 1, 2]),
    is_planned=st.booleans(),
    use_api=st.booleans(),
)
def test_every_call_is_canonical_as_it_stands(steps: dict[str, Any], **changes: Any) -> None:
    memos = [(key, canonical_value({"data": value})) for key, value in steps.items()]
    body = _body(steps=memos, stack=list(steps), **changes)
    assert canonical_bytes(body) == body


def test_with_use_api_the_app_fetches_events_and_steps() -> None:
    call = json.loads(_body(use_api=True))
    assert (call["events"], call["steps"], call["use_api"], call["ctx"]["use_api"]) == ([], {}, True, True)
    assert call["event"]["name"] == "t/a"
    assert call["ctx"]["stack"]["stack"] == ["b" * 40, "a" * 40]


def test_a_call_without_generation_does_not_name_one() -> None:
    assert "generation_id" not in json.loads(_body(generation_id=0))["ctx"]
    assert "x-inngest-generation-id" not in _headers(generation_id=0)


@pytest.mark.parametrize(
    ("size", "sdk", "expected"),
    [
        (4 << 20, "py:v0.5.19", False),
        ((4 << 20) + 1, "py:v0.5.19", True),
        ((4 << 20) + 1, "", True),
        (8 << 20, "go:v0.15.1", False),
    ],
)
def test_large_states_are_fetched_by_sdks_that_can(size: int, sdk: str, expected: bool) -> None:
    assert must_fetch(size, sdk) is expected


def _headers(**changes: Any) -> dict[str, str]:
    values: dict[str, Any] = {
        "run_id": "run",
        "request_id": "req",
        "item_id": "item",
        "generation_id": 3,
        "step_id": "step",
        "version": -1,
        "server_kind": "cloud",
    }
    return call_headers(**{**values, **changes})


def test_headers_repeat_what_sdks_look_for_there() -> None:
    assert _headers(signature="t=1&s=2") == {
        "content-type": "application/json",
        "x-inngest-server-kind": "cloud",
        "x-run-id": "run",
        "x-inngest-req-version": "-1",
        "x-inngest-step-id": "step",
        "x-request-id": "req",
        "x-inngest-job-id": "item",
        "x-inngest-generation-id": "3",
        "x-inngest-signature": "t=1&s=2",
    }
    assert "x-inngest-signature" not in _headers()
    traced = _headers(traceparent="p", tracestate="s")
    assert (traced["traceparent"], traced["tracestate"]) == ("p", "s")
