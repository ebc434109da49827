"""Answers of apps that are broken in every way we could think of, drawn from dice: good ones, bent ones, and noise.

Nothing here knows what the engine makes of them; `test_fuzzed_answers.py` looks at that.
"""

import json
from random import Random
from typing import Any, Final

from app.adapters.http import Answer, CallFailed

_KINDS: Final = (
    "app_unreachable",
    "app_tls_failed",
    "app_timeout",
    "app_address_blocked",
    "app_redirect_blocked",
    "app_response_too_large",
    "app_url_invalid",
)
_STATUSES: Final = (
    100,
    200,
    201,
    202,
    204,
    206,
    299,
    301,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    409,
    410,
    413,
    418,
    429,
    500,
    503,
    599,
)
_CODES: Final = (
    "None", "Step", "StepRun", "StepError", "StepFailed", "StepPlanned", "Sleep", "WaitForEvent", "WaitForSignal",
    "InvokeFunction", "AIGateway", "Gateway", "RunComplete", "SyncRunComplete", "DiscoveryRequest", "DeferAdd", "DeferAbort",
    "StepNotFound", "Unheard", "steprun", "",
)  # fmt: skip
_TEXTS: Final = (
    "", "a", "b", "c", "step", "0737c22d3bfae812339732d14d8c7dbd6dc4e09c", "é", "\u0000", "\ud800", "a" * 129, "a" * 5000,
    "1s", "1h", "400d", "-1s", "2030-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "event.data.n == async.data.n", "((((",
    "fuzz", "fuzz/sent", "no-such-function", "http://elsewhere.test/", "<script>", "'; drop table runs; --", "🦑" * 300,
)  # fmt: skip
_HEADERS: Final = {
    "x-inngest-sdk": ("js:v4.24.0", "py:v0.5.19", "go:v0.15.1", "", "x" * 5000, "\u00ff"),
    "x-inngest-req-version": ("1", "2", "0", "-1", "99999999999999999999", "two", ""),
    "x-inngest-no-retry": ("true", "false", "TRUE", "1", "", "maybe"),
    "retry-after": ("1", "0", "-5", "999999999", "2030-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "soon", "", "1e9"),
    "content-type": ("application/json", "text/html", "", "application/json; charset=utf-16"),
}


def odd_answer(dice: Random) -> Answer:
    """One answer; raises CallFailed when the answer is that there is none."""
    way = dice.random()
    if way < 0.05:
        raise CallFailed(dice.choice(_KINDS))
    headers = {"x-inngest-sdk": "js:v4.24.0", "x-inngest-req-version": dice.choice(("1", "2"))}
    status, value = _good(dice)
    body = json.dumps(value).encode()
    if way < 0.35:
        body = json.dumps(_bent(dice, value)).encode()
    elif way < 0.45:
        body = _noise(dice, body)
    if dice.random() < 0.15:
        status = dice.choice(_STATUSES)
    for name, values in _HEADERS.items():
        if dice.random() < 0.1:
            headers[name] = dice.choice(values)
    if dice.random() < 0.03:
        headers.pop("x-inngest-sdk", None)
    if status == 201 or dice.random() < 0.05:
        status, body = 201, _streamed(dice, body)
    return Answer(status, headers, body, 1.0)


def _good(dice: Random) -> tuple[int, Any]:
    match dice.randrange(10):
        case 0:
            return 200, _value(dice)
        case 1:
            return dice.choice((400, 500)), {"name": "Error", "message": dice.choice(_TEXTS), "stack": "at x"}
        case _:
            return 206, [_op(dice) for _ in range(dice.choice((0, 1, 1, 1, 1, 2, 3, 8)))]


def _op(dice: Random) -> dict[str, Any]:
    code = dice.choice(_CODES[:18])
    step = dice.choice("abcdefgh")
    op: dict[str, Any] = {"op": code, "id": step, "name": step, "displayName": step, "data": None, "opts": {}}
    match code:
        case "StepRun" | "RunComplete":
            op["data"] = _value(dice)
        case "Step":
            op["data"] = {"data": _value(dice)}
        case "StepError" | "StepFailed":
            op["error"] = {"name": "E", "message": "m", "data": None}
        case "Sleep":
            op["name"] = dice.choice(("0s", "1s", "1h", "2030-01-01T00:00:00Z"))
        case "WaitForEvent":
            op |= {
                "name": "never/sent",
                "opts": {"timeout": dice.choice(("", "1h")), "if": "event.data.n == async.data.n"},
            }
        case "WaitForSignal":
            op["opts"] = {
                "signal": f"s{dice.randrange(1000)}",
                "timeout": "1h",
                "conflict": dice.choice(("fail", "replace")),
            }
        case "InvokeFunction":
            op["opts"] = {"function_id": "no-such-function", "payload": {"data": _value(dice)}, "timeout": "1h"}
        case "Gateway" | "AIGateway":
            op["opts"] = {
                "url": "http://elsewhere.test/x",
                "body": {"a": 1} if code == "AIGateway" else "x",
                "auth_key": "k",
            }
        case "DeferAdd":
            op["opts"] = {"fn_slug": "no-such-function", "input": {"n": 1}}
        case "DeferAbort":
            op["opts"] = {"target_hashed_id": dice.choice("abcdefgh")}
    if dice.random() < 0.1:
        op["opts"] = {**op["opts"], "parallelMode": dice.choice(("race", "wait", 7)), "input": [_value(dice)]}
    return op


def _value(dice: Random, depth: int = 0) -> Any:
    match dice.randrange(9 if depth < 4 else 6):
        case 0:
            return None
        case 1:
            return dice.choice((True, False))
        case 2:
            return dice.choice((0, -1, 1.5, 1e300, 2**53, 12345678901234567890, -0.0))
        case 3 | 4 | 5:
            return dice.choice(_TEXTS)
        case 6:
            return [_value(dice, depth + 1) for _ in range(dice.randrange(4))]
        case _:
            return {dice.choice(_TEXTS): _value(dice, depth + 1) for _ in range(dice.randrange(4))}


def _bent(dice: Random, value: Any) -> Any:
    """The same with one place of it changed."""
    if isinstance(value, list) and value and dice.random() < 0.8:
        at = dice.randrange(len(value))
        match dice.randrange(4):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value, value[at]]
            case _:
                return value[:at] + [_bent(dice, value[at])] + value[at + 1 :]
    if isinstance(value, dict) and value and dice.random() < 0.8:
        key = dice.choice(list(value))
        match dice.randrange(4):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return value | {dice.choice(_TEXTS): _value(dice)}
            case _:
                return value | {key: dice.choice(_CODES) if key == "op" else _bent(dice, value[key])}
    match dice.randrange(12):
        case 0:
            return "x" * dice.choice((10_000, 300_000))
        case 1:
            return [_op(dice)] * dice.choice((2, 1001))
        case 2:
            deep: Any = 1
            for _ in range(dice.choice((60, 70, 400))):
                deep = [deep]
            return deep
        case _:
            return _value(dice)


def _noise(dice: Random, body: bytes) -> bytes:
    """Bytes that are no JSON any more, or not quite."""
    match dice.randrange(6):
        case 0:
            return body[: dice.randrange(len(body) + 1)]
        case 1:
            return dice.randbytes(dice.randrange(200))
        case 2:
            return b"<html><body>502 Bad Gateway</body></html>"
        case 3:
            return b"[" * dice.choice((10, 5000)) + body
        case 4:
            return b"\xef\xbb\xbf" + body
        case _:
            at = dice.randrange(len(body) + 1)
            return body[:at] + dice.randbytes(1) + body[at + 1 :]


def _streamed(dice: Random, body: bytes) -> bytes:
    """The envelope of a streamed answer, whole or not."""
    said: Any = body.decode(errors="replace") if dice.random() < 0.7 else json.loads(b'{"a":1}')
    envelope = {
        "status": dice.choice((200, 206, 206, 206, 500, 0, "206", None)),
        "headers": dice.choice(({}, None, 7, {"retry-after": "1"})),
        "body": said,
    }
    if dice.random() < 0.1:
        envelope["error"] = "gone"
    if dice.random() < 0.1:
        envelope.pop(dice.choice(list(envelope)))
    return b" " * dice.randrange(20) + json.dumps(envelope).encode()
