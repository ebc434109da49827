"""What workers say over Connect holds the same functions and answers as HTTP does, and is read by the same code.

Stepwell offers no gateway for such workers yet (its paths answer 404); the recordings keep the formats one and the same.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.protocol.opcodes import OpCode
from app.domain.protocol.registration import read_registration
from app.domain.protocol.reply import Failed, Finished, Ops, Reply, read_reply
from tests.unit.domain.vectors import load

_NOW = datetime(2026, 11, 23, 1, 35, tzinfo=UTC)
_STATUS = {None: 206, "DONE": 200, "ERROR": 500}
_WORKERS = {"py": load("capture-connect-py.json"), "ts": load("capture-connect-ts.json")}


def _said(sdk: str, kind: str) -> list[dict[str, Any]]:
    return [frame["payload"] for frame in _WORKERS[sdk] if frame.get("kind") == kind]


def _reply(payload: dict[str, Any]) -> Reply:
    headers = {"x-inngest-sdk": payload["sdk_version"], "x-inngest-req-version": str(payload["request_version"])}
    if payload.get("no_retry"):
        headers["x-inngest-no-retry"] = "true"
    status = 400 if payload.get("no_retry") else _STATUS[payload.get("status")]
    return read_reply(status, headers, json.dumps(payload["body"]).encode(), now=_NOW)


@pytest.mark.parametrize("sdk", _WORKERS)
def test_the_functions_of_a_worker_are_read_like_those_of_an_endpoint(sdk: str) -> None:
    (hello,) = _said(sdk, "WORKER_CONNECT")
    (app,) = hello["apps"]
    body = {
        "url": "http://127.0.0.1:3000/api/inngest",
        "appName": app["app_name"],
        "appVersion": app["app_version"],
        "framework": hello["framework"],
        "sdk": f"{hello['sdk_language']}:v{hello['sdk_version'].removeprefix('v')}",
        "functions": app["functions"],
    }

    registration = read_registration(json.dumps(body).encode())

    (function,) = registration.functions
    assert (registration.app_name, function.slug) == ("my-app", "my-app-conn-slow")
    assert [trigger.event for trigger in function.triggers] == ["t/c"]


@pytest.mark.parametrize("sdk", _WORKERS)
def test_the_answers_of_a_worker_are_read_like_those_of_an_endpoint(sdk: str) -> None:
    replies = {payload["request_id"]: _reply(payload) for payload in _said(sdk, "WORKER_REPLY")}

    step, error, result = replies["01REQ1"], replies["01REQ2"], replies["01REQ0"]
    assert isinstance(step, Ops) and [op.code for op in step.ops] == [OpCode.STEP_RUN]
    assert isinstance(error, Failed) and error.no_retry is True
    if sdk == "py":
        assert isinstance(result, Finished) and result.data == b'{"done":1}'
    else:
        assert isinstance(result, Ops) and [op.code for op in result.ops] == [OpCode.RUN_COMPLETE]


@pytest.mark.parametrize("sdk", _WORKERS)
def test_every_request_to_a_worker_is_acknowledged_and_answered_once(sdk: str) -> None:
    asked = [payload["request_id"] for payload in _said(sdk, "GATEWAY_EXECUTOR_REQUEST")]

    for kind in ("WORKER_REQUEST_ACK", "WORKER_REPLY"):
        assert sorted(payload["request_id"] for payload in _said(sdk, kind)) == sorted(asked)
