import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.canonical import canonical_value
from app.domain.errors import CheckpointRefused
from app.domain.ids import to_ulid
from app.domain.protocol.checkpoint import read_checkpoint
from app.domain.protocol.opcodes import OpCode
from tests.unit.domain.vectors import exchanges

_RUN = "01HQRNRNRNRNRNRNRNRNRNRNRN"
_FILES = ["dev-ts4.24.0-checkpointing", "cloud-ts4.24.0", "extra-go0.15.1", "realtime-ts4"]


def _recorded() -> list[Any]:
    return [
        pytest.param(request["body"], id=f"{file}:{path}:{number}")
        for file in _FILES
        for path, exchange in exchanges(f"capture-{file}.json")
        for number, request in enumerate(exchange.get("sdk_requests", []))
        if request["path"].startswith("/v1/checkpoint/")
    ]


def _refusal(body: bytes) -> str:
    with pytest.raises(CheckpointRefused) as refused:
        read_checkpoint(body)
    return refused.value.code


@pytest.mark.parametrize("body", _recorded())
def test_recorded_checkpoints_are_read(body: dict[str, Any]) -> None:
    # The captures' run id is no ULID (U is not in its alphabet).
    checkpoint = read_checkpoint(json.dumps({**body, "run_id": _RUN}).encode())
    assert to_ulid(checkpoint.run_id) == _RUN
    assert checkpoint.fn_id == UUID(body["fn_id"])
    assert checkpoint.qi_id == body["qi_id"]
    assert checkpoint.generation_id == body.get("generation_id")
    for op, step in zip(checkpoint.ops, body["steps"], strict=True):
        assert (op.code, op.id) == (step["op"], step["id"])
        if op.code is OpCode.STEP_RUN:
            assert op.memo == canonical_value({"data": step["data"]})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "checkpoint_invalid"),
        (b"[]", "checkpoint_invalid"),
        (b"{}", "checkpoint_invalid"),
        (b'{"run_id":"x","steps":[]}', "checkpoint_invalid"),
        (b'{"run_id":"%s","steps":[{"op":"Sleep","id":"a","name":"1s"}]}' % _RUN.encode(), "checkpoint_invalid"),
        (b'{"run_id":"%s","steps":[{"op":"StepError","id":"a"}]}' % _RUN.encode(), "checkpoint_invalid"),
        (b'{"run_id":"%s","steps":[{"op":"StepRun","id":"a","data":"%s"}]}' % (_RUN.encode(), b"x" * (4 << 20)),
         "output_too_large"),
    ],
    ids=["empty", "list", "object", "run", "sleep", "error", "large"],
)  # fmt: skip
def test_checkpoints_that_cannot_be_saved_are_refused(body: bytes, code: str) -> None:
    assert _refusal(body) == code


def test_an_empty_checkpoint_is_fine() -> None:
    assert read_checkpoint(json.dumps({"run_id": _RUN, "steps": None}).encode()).ops == ()


@given(st.binary(max_size=40))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    assert _refusal(body) == "checkpoint_invalid"
