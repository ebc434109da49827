import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.canonical import canonical_bytes, canonical_value
from app.domain.protocol.opcodes import Op, OpCode
from app.domain.protocol.reply import (
    Failed,
    Finished,
    Ops,
    Reply,
    TransportFault,
    parse_retry_after,
    read_reply,
    reply_from_transport,
)
from tests.unit.domain.vectors import exchanges, load, wire_body

_NOW = datetime(2026, 11, 23, 1, 28, 0, tzinfo=UTC)
_SDK = {"x-inngest-sdk": "inngest-js:v4.24.0", "content-type": "application/json"}
_ID = "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"
_CAPTURES = [
    "cloud-go0.15.1",
    "cloud-py0.5.19",
    "cloud-ts3.54.2",
    "cloud-ts4.24.0",
    "dev-go0.15.1",
    "dev-py0.5.19",
    "dev-ts3.54.2",
    "dev-ts4.24.0-checkpointing",
    "dev-ts4.24.0-no-checkpointing",
    "extra-go0.15.1",
    "realtime-ts4",
]


def _calls() -> Iterator[Any]:
    for capture in _CAPTURES:
        for path, exchange in exchanges(f"capture-{capture}.json"):
            if path == "multi[4]":
                continue  # Sleeps until 2030, which is out of range: a test of its own below.
            request = exchange["request"]
            if request.get("method") == "POST" and "/api/inngest" in request["url"] and "probe=" not in request["url"]:
                yield pytest.param(exchange["response"], id=f"{capture}:{path}")


def _capture(file: str, *path: str | int) -> Mapping[str, Any]:
    node = load(f"capture-{file}.json")
    for part in path:
        node = node[part]
    response: Mapping[str, Any] = node["response"]
    return response


def _reply_to(response: Mapping[str, Any]) -> Reply:
    # A streamed body was recorded as text, the others decoded.
    body = response["body"].encode() if response["status"] == 201 else wire_body(response["body"])
    return read_reply(response["status"], response["headers"], body, now=_NOW)


def _ops(body: object, headers: dict[str, str] | None = None, status: int = 206) -> Reply:
    return read_reply(status, {**_SDK, **(headers or {})}, json.dumps(body).encode(), now=_NOW)


def _op(**fields: Any) -> Op:
    reply = _ops([{"id": _ID, "name": "a", **fields}])
    assert isinstance(reply, Ops), reply
    return reply.ops[0]


def _ops_in(reply: Reply) -> Ops:
    assert isinstance(reply, Ops), reply
    return reply


def _failed(reply: Reply) -> Failed:
    assert isinstance(reply, Failed), reply
    return reply


def _failure(reply: Reply) -> tuple[str, dict[str, Any]]:
    assert isinstance(reply, Failed), reply
    assert canonical_bytes(reply.error) == reply.error
    return reply.code, json.loads(reply.error)


@pytest.mark.parametrize("response", list(_calls()))
def test_every_recorded_answer_means_what_its_body_says(response: Mapping[str, Any]) -> None:
    reply = _reply_to(response)
    status, body, headers = response["status"], response["body"], response["headers"]
    if status == 401:
        assert _failed(reply).code == "app_signature_rejected"
        return
    assert reply.sdk == headers["x-inngest-sdk"]
    if status == 200:
        assert isinstance(reply, Finished)
        assert reply.data == canonical_value(None if body == "" else body)
    elif status == 206:
        assert isinstance(reply, Ops)
        assert reply.request_version == int(headers["x-inngest-req-version"])
        _assert_ops(reply.ops, body)
    elif status >= 400:
        assert _failed(reply).code == "app_error"
        assert not _failed(reply).is_fatal
        error = json.loads(_failed(reply).error)
        assert {key: error[key] for key in body} == body
        assert isinstance(error["name"], str)
        assert error["message"] == body.get("message", body.get("error"))
    if isinstance(reply, (Ops, Failed)):
        said = headers.get("x-inngest-no-retry")
        if status != 201:
            assert reply.no_retry is (None if said is None else said == "true")
            assert (reply.retry_after is None) == ("retry-after" not in headers)


def _assert_ops(ops: tuple[Op, ...], body: list[dict[str, Any]]) -> None:
    assert [(op.code, op.id) for op in ops] == [(item["op"], item["id"]) for item in body]
    for op, item in zip(ops, body, strict=True):
        opts = item.get("opts") or {}
        if op.code is not OpCode.RUN_COMPLETE:
            assert op.name == (item.get("userland") or {}).get("id")
        assert op.step_type == opts.get("type")
        assert op.is_race == (opts.get("parallelMode", "").lower() == "race")
        match op.code:
            case OpCode.STEP_RUN:
                assert op.memo == canonical_value({"data": item["data"]})
                assert op.input == (canonical_value(opts["input"]) if "input" in opts else None)
            case OpCode.STEP_ERROR | OpCode.STEP_FAILED:
                assert op.memo == canonical_value({"error": item["error"]})
            case OpCode.RUN_COMPLETE:
                assert op.payload == canonical_value(item["data"])
            case OpCode.WAIT_FOR_EVENT:
                assert op.event == opts.get("event", item["name"])
                assert op.expression == opts.get("if")
                assert op.wake_after is not None
            case OpCode.WAIT_FOR_SIGNAL:
                assert (op.signal, op.conflict) == (opts["signal"], opts.get("conflict") or "fail")
            case OpCode.INVOKE_FUNCTION:
                assert op.function == opts["function_id"]
                assert op.payload == canonical_value(opts["payload"])
            case OpCode.SLEEP:
                assert (op.wake_at is None) != (op.wake_after is None)
            case OpCode.AI_GATEWAY | OpCode.GATEWAY:
                assert op.raw_opts == canonical_value(opts)
            case _:
                assert (op.memo, op.payload) == (None, None)


_TS3, _TS4, _PY, _GO = "dev-ts3.54.2", "dev-ts4.24.0-no-checkpointing", "dev-py0.5.19", "dev-go0.15.1"
_UNTIL = datetime(2030, 1, 2, 3, 4, 5, 678_000, UTC)


@pytest.mark.parametrize(
    ("file", "index", "at", "after"),
    [
        (_TS3, 3, None, timedelta(seconds=10)),
        (_TS4, 3, None, timedelta(seconds=10)),
        (_PY, 3, datetime(2026, 11, 23, 1, 28, 11, 169_000, UTC), None),
        (_GO, 3, None, timedelta(seconds=10)),
    ],
)
def test_sleeps_are_found_where_each_sdk_puts_them(
    file: str, index: int, at: datetime | None, after: timedelta | None
) -> None:
    reply = _reply_to(_capture(file, "multi", index))
    assert isinstance(reply, Ops)
    (op,) = reply.ops
    assert (op.code, op.name, op.wake_at, op.wake_after) == (OpCode.SLEEP, "zzz", at, after)


@pytest.mark.parametrize("file", [_TS3, _TS4, _PY, _GO])
def test_a_sleep_until_years_away_is_out_of_range(file: str) -> None:
    code, error = _failure(_reply_to(_capture(file, "multi", 4)))
    assert (code, error["name"]) == ("timeout_too_long", "InngestErrTimeoutTooLong")


@pytest.mark.parametrize("file", [_TS3, _TS4, _PY])
def test_a_sleep_until_an_instant_keeps_the_instant(file: str) -> None:
    response = _capture(file, "multi", 4)
    reply = read_reply(206, response["headers"], wire_body(response["body"]), now=datetime(2029, 6, 1, tzinfo=UTC))
    assert (_ops_in(reply).ops[0].wake_at, _ops_in(reply).ops[0].wake_after) == (_UNTIL, None)


@pytest.mark.parametrize(
    ("file", "case", "no_retry", "name", "message"),
    [
        (_TS3, "fn_err-fn", False, "TypeError", "boom fn"),
        (_TS4, "fn_err-fn", False, "TypeError", "boom fn"),
        (_PY, "fn_err-fn", None, "TypeError", "boom fn"),
        (_GO, "fn_err-fn", None, "Error", "boom fn"),
        (_PY, "fn_nonretry-step", True, "NonRetriableError", "never step"),
        (_GO, "fn_nonretry-fn", True, "Error", "no retry"),
        (_TS4, "wrong_event", True, "EventValidationError", "Event not found in triggers: t/zzz"),
        (_PY, "unknown_fn", None, "FunctionNotFoundError", "function my-app-nope not found"),
        (_GO, "unknown_fn", None, "Error", "function not found: my-app-nope"),
    ],
)
def test_function_errors_keep_their_name_message_and_retry_wish(
    file: str, case: str, no_retry: bool | None, name: str, message: str
) -> None:
    reply = _reply_to(_capture(file, case))
    code, error = _failure(reply)
    assert isinstance(reply, Failed)
    assert (code, error["name"], error["message"], reply.no_retry) == ("app_error", name, message, no_retry)


@pytest.mark.parametrize(
    ("case", "no_retry", "retry_after", "message"),
    [
        ("stream_err-fn", None, None, "error calling function: boom fn"),
        (
            "stream_retryafter-fn",
            None,
            timedelta(minutes=36, seconds=52, microseconds=750_019),
            "error calling function: later",
        ),
        ("stream_nonretry-fn", True, None, "error calling function: no retry"),
    ],
)
def test_streamed_errors_of_go_say_beside_the_body_whether_to_retry(
    case: str, no_retry: bool | None, retry_after: timedelta | None, message: str
) -> None:
    reply = _reply_to(_capture("extra-go0.15.1", case))
    assert isinstance(reply, Failed)
    assert (reply.no_retry, reply.retry_after) == (no_retry, retry_after)
    assert json.loads(reply.error) == {"data": None, "message": message, "name": "Error"}


def test_streamed_results_and_ops_of_go_are_read_from_the_envelope() -> None:
    assert _reply_to(_capture("extra-go0.15.1", "stream_slow")) == Finished(b'"slow"', "go:v0.15.1")
    reply = _reply_to(_capture("extra-go0.15.1", "stream_seq3"))
    assert _ops_in(reply).ops[0].memo == b'{"data":1}'


def _streams() -> Iterator[Any]:
    for group in load("capture-streaming.json").values():
        for name, chunks in group.items():
            yield pytest.param(name, "".join(text for _, text in chunks), id=name)


@pytest.mark.parametrize(("name", "wire"), list(_streams()))
def test_recorded_streams_are_read_as_the_answer_inside(name: str, wire: str) -> None:
    head, _, rest = wire.partition("\r\n\r\n")
    lines = head.split("\r\n")
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines[1:])}
    body = "".join(rest.split("\r\n")[1::2])
    # Shortening this trace when it was recorded cut the escape of a quote away.
    body = body.replace('/app/x"', '/app/x\\\\\\"')
    reply = read_reply(201, headers, body.encode(), now=_NOW)
    if name.endswith("_slow"):
        assert reply == Finished(b'{"done":true}', headers["x-inngest-sdk"])
    elif name == "py_stream_serr":
        code, error = _failure(reply)
        assert (code, error["name"], error["message"]) == ("app_error", "NonRetriableError", "nope")
        assert _failed(reply).no_retry is True
    else:
        assert isinstance(reply, Ops)
        assert reply.ops[0].code == (OpCode.STEP_RUN if name == "py_stream_sstep" else OpCode.STEP_ERROR)
        assert reply.request_version == (1 if name.startswith("ts3") else 2)


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "name", "message"),
    [
        (200, {}, b"<html>", "app_not_sdk", "not_sdk", "HTTP 200 came from something that is not an SDK."),
        (206, {}, b"[]", "app_not_sdk", "not_sdk", "HTTP 206 came from something that is not an SDK."),
        (201, {}, b"ok", "app_not_sdk", "not_sdk", "HTTP 201 came from something that is not an SDK."),
        (502, {}, b"bad", "app_http_error", "Server returned a fatal error",
         "Your server returned HTTP 502 before the SDK responded."),
        (404, {}, b"", "app_http_error", "Server returned a fatal error",
         "Your server returned HTTP 404 before the SDK responded."),
        (401, {"x-inngest-sdk-handled": "true"}, b'{"message":"Unauthorized"}', "app_signature_rejected",
         "signature_rejected", "The app refused the call: its signing key does not match this environment's."),
        (206, _SDK, b"{", "app_response_invalid", "Error",
         "The app's answer cannot be read: The document is not JSON (at byte 1)."),
        (206, _SDK, b"7", "app_response_invalid", "Error", "The answer is not a list of ops."),
        (206, _SDK, b"[7]", "app_response_invalid", "Error", "An op is not an object."),
        (206, _SDK, b'[{"op":"Dance","id":"a"}]', "app_response_invalid", "Error", "The op 'Dance' is not known."),
        (206, _SDK, b'[{"op":"StepRun"}]', "app_response_invalid", "Error", "An op StepRun has no usable step id."),
        (206, _SDK, b'[{"op":"StepRun","id":"a\\"b"}]', "app_response_invalid", "Error",
         "An op StepRun has no usable step id."),
        (206, _SDK, b'[{"op":"WaitForEvent","id":"a"}]', "app_response_invalid", "Error",
         "An op WaitForEvent names no event."),
        (206, _SDK, b'[{"op":"InvokeFunction","id":"a"}]', "app_response_invalid", "Error",
         "An op InvokeFunction names no function."),
        (206, _SDK, b'[{"op":"Sleep","id":"a","name":"soon"}]', "app_response_invalid", "Error",
         "The time of a sleep cannot be read: 'soon' is not a time: write it like 10s, 1h30m or 2d."),
        (206, _SDK, b'[{"op":"StepNotFound","id":"a"}]', "step_not_found", "StepNotFound", "The app does not find step a."),
        (200, _SDK, b"<html>", "app_response_invalid", "Error",
         "The app's answer cannot be read: The document is not JSON (at byte 0)."),
        (204, _SDK, b"", "app_response_invalid", "Error", "HTTP 204 is not an answer to a call."),
        (302, _SDK, b"", "app_response_invalid", "Error", "HTTP 302 is not an answer to a call."),
        (201, _SDK, b" [1]", "app_response_invalid", "Error", "The streamed answer is not an envelope with a status."),
        (201, _SDK, b' {"error":"lost"}', "app_error", "Error", "lost"),
        (500, _SDK, b"", "app_error", "Error", "The app answered HTTP 500 without saying why."),
        (500, _SDK, b"oops", "app_error", "Error", "oops"),
        (500, _SDK, b'"{\\"name\\":\\"E\\",\\"message\\":\\"m\\"}"', "app_error", "E", "m"),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_used_become_errors_that_may_be_retried(
    status: int, headers: dict[str, str], body: bytes, *, code: str, name: str, message: str
) -> None:
    reply = read_reply(status, headers, body, now=_NOW)
    found, error = _failure(reply)
    assert (found, error["name"], error["message"]) == (code, name, message)
    assert (_failed(reply).is_fatal, _failed(reply).no_retry) == (False, None)


@pytest.mark.parametrize(
    ("body", "code", "name"),
    [
        ([{"op": "Sleep", "id": _ID, "name": "367d"}], "timeout_too_long", "InngestErrTimeoutTooLong"),
        ([{"op": "WaitForEvent", "id": _ID, "name": "a", "opts": {"timeout": "53w"}}], "timeout_too_long",
         "InngestErrTimeoutTooLong"),
        ([{"op": "StepRun", "id": _ID}, {"op": "StepPlanned", "id": _ID}], "duplicate_step", "duplicate_step"),
        ([{"op": "StepPlanned", "id": str(n)} for n in range(1_001)], "too_many_steps", "InngestErrFunctionOverflowed"),
        ([{"op": "StepRun", "id": _ID, "data": "x" * (4 << 20)}], "output_too_large", "output_too_large"),
        ([{"op": "StepRun", "id": _ID, "opts": {"input": ["x" * (4 << 20)]}}], "output_too_large", "output_too_large"),
    ],
    ids=["sleep", "wait", "duplicate", "ops", "output", "input"],
)  # fmt: skip
def test_answers_beyond_a_limit_end_the_run_at_once(body: object, code: str, name: str) -> None:
    reply = _ops(body)
    found, error = _failure(reply)
    assert (found, error["name"]) == (code, name)
    assert error["data"] is None
    assert _failed(reply).is_fatal


def test_a_result_beyond_the_limit_ends_the_run_at_once() -> None:
    reply = _ops("x" * (4 << 20), status=200)
    assert (_failed(reply).is_fatal, _failed(reply).code) == (True, "output_too_large")


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"", b"null"),
        (b"null", b"null"),
        (b'{"b":1.0,"a":2}', b'{"a":2,"b":1}'),
        (b'"{\\"a\\":1}"', b'{"a":1}'),
        (b'"[1]"', b'"[1]"'),
    ],
)
def test_results_are_json_or_json_inside_a_text(body: bytes, data: bytes) -> None:
    assert read_reply(200, _SDK, body, now=_NOW) == Finished(data, _SDK["x-inngest-sdk"])


def test_plain_text_is_its_own_result() -> None:
    headers = {**_SDK, "content-type": "text/plain"}
    assert read_reply(200, headers, b"done", now=_NOW) == Finished(b'"done"', _SDK["x-inngest-sdk"])


def test_one_op_needs_no_list_and_no_op_is_fine() -> None:
    reply = _ops({"op": "StepPlanned", "id": _ID})
    assert _ops_in(reply).ops[0].code is OpCode.STEP_PLANNED
    assert _ops([]) == Ops((), None, sdk=_SDK["x-inngest-sdk"])


def test_the_request_version_is_only_what_the_header_says() -> None:
    for text, version in [("1", 1), ("2", 2), ("0", None), ("-1", None), ("two", None)]:
        reply = _ops([], {"x-inngest-req-version": text})
        assert _ops_in(reply).request_version == version


@pytest.mark.parametrize(
    ("sdk", "status", "headers", "no_retry"),
    [
        ("inngest-js:v1.10.0", 400, {}, True),
        ("js:v1.2.3", 404, {}, True),
        ("inngest-js:v0.9.0-beta.1", 499, {}, True),
        ("inngest-js:v2.4.0", 400, {}, True),
        ("inngest-js:v2.4.0", 400, {"x-inngest-no-retry": "false"}, False),
        ("inngest-js:v2.4.0", 500, {}, None),
        ("inngest-js:v1.10.1", 400, {}, None),
        ("inngest-js:v2.4.1", 400, {}, None),
        ("inngest-js:v3.54.2", 400, {}, None),
        ("inngest-py:v0.5.19", 400, {}, None),
        ("go:v0.15.1", 410, {}, None),
    ],
)
def test_a_4xx_of_an_sdk_from_before_the_no_retry_header_is_final(
    sdk: str, status: int, headers: dict[str, str], no_retry: bool | None
) -> None:
    reply = read_reply(status, {"x-inngest-sdk": sdk, **headers}, b'{"message":"no"}', now=_NOW)

    assert _failed(reply).no_retry is no_retry


@pytest.mark.parametrize(("header", "expected"), [("true", True), ("True", True), ("false", False), ("maybe", None)])
def test_the_no_retry_header_is_heard_on_every_kind_of_answer(header: str, expected: bool | None) -> None:
    for reply in (
        _ops([], {"x-inngest-no-retry": header}),
        _ops({"message": "m"}, {"x-inngest-no-retry": header}, 500),
        _ops(7, {"x-inngest-no-retry": header}),
        read_reply(503, {"x-inngest-no-retry": header}, b"", now=_NOW),
    ):
        assert isinstance(reply, (Ops, Failed))
        assert reply.no_retry is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", timedelta(seconds=30)),
        ("0", None),
        ("-5", None),
        ("9999999", timedelta(hours=24)),
        ("99999999", None),
        ("2026-11-23T01:28:34.087Z", timedelta(seconds=34, milliseconds=87)),
        ("2026-11-23T01:00:00Z", timedelta(seconds=1)),
        ("2030-01-01", timedelta(hours=24)),
        ("Mon, 23 Nov 2026 01:29:00 GMT", timedelta(minutes=1)),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_a_second_and_a_day(text: str, expected: timedelta | None) -> None:
    assert parse_retry_after(text, _NOW) == expected


@pytest.mark.parametrize(
    ("fields", "at", "after"),
    [
        ({"op": "Sleep", "name": ""}, None, timedelta()),
        ({"op": "Sleep", "name": "-5s"}, None, timedelta()),
        ({"op": "Sleep", "name": "step", "opts": {"duration": "1m"}}, None, timedelta(minutes=1)),
        ({"op": "Sleep", "name": "2026-11-23T01:27:59Z"}, None, timedelta()),
        ({"op": "Sleep", "name": "2026-11-23T02:00:00+01:00"}, None, timedelta()),
        ({"op": "WaitForEvent", "name": "t/a", "opts": {"timeout": ""}}, None, timedelta()),
        ({"op": "WaitForEvent", "name": "t/a", "opts": {"timeout": "2026-12-01T00:00:00Z"}},
         datetime(2026, 12, 1, tzinfo=UTC), None),
        ({"op": "WaitForSignal", "name": "s", "opts": {}}, None, timedelta(days=365)),
        ({"op": "InvokeFunction", "opts": {"function_id": "f", "timeout": ""}}, None, timedelta(days=365)),
        ({"op": "InvokeFunction", "opts": {"function_id": "f", "timeout": "1h"}}, None, timedelta(hours=1)),
    ],
)  # fmt: skip
def test_times_are_read_with_the_default_of_each_op(
    fields: dict[str, Any], at: datetime | None, after: timedelta | None
) -> None:
    op = _op(**fields)
    assert (op.wake_at, op.wake_after) == (at, after)


def test_a_legacy_step_comes_wrapped_already() -> None:
    assert _op(op="Step", data={"data": 1}).memo == b'{"data":1}'


def test_an_op_without_work_needs_no_id() -> None:
    reply = _ops([{"op": "None"}, {"op": "None"}])
    assert [op.id for op in _ops_in(reply).ops] == ["", ""]


def test_step_errors_keep_what_the_app_sent_and_miss_nothing_that_replay_needs() -> None:
    sent = {"name": "E", "message": "m", "data": None, "cause": {"x": 1.0}}
    assert _op(op="StepError", error=sent).memo == b'{"error":{"cause":{"x":1},"data":null,"message":"m","name":"E"}}'
    assert _op(op="StepFailed", error=None, data={"message": "m"}).memo == b'{"error":{"message":"m","name":"Error"}}'
    made = json.loads(_op(op="StepError", error=None).memo or b"")["error"]
    assert made == {"data": None, "name": "Error", "message": "The step failed without a message."}


@pytest.mark.parametrize("letter", ["x", "\x00", "é", "😀"])
def test_error_texts_are_cut_to_64_kilobytes(letter: str) -> None:
    reply = _ops({"name": "E", "message": letter * 100_000, "stack": letter * 100_000, "cause": {"a": "b"}}, status=500)
    _, error = _failure(reply)
    assert len(_failed(reply).error) <= 64 * 1024
    assert error["message"].startswith(letter)
    assert error["message"].endswith("(cut)")


def test_texts_that_are_stored_hold_no_nul() -> None:
    op = _op(op="WaitForEvent", displayName="a\x00b", opts={"event": "t/\x00", "if": "x\x00", "type": "\x00"})
    assert (op.name, op.event, op.expression, op.step_type) == ("a\ufffdb", "t/\ufffd", "x\ufffd", "\ufffd")
    assert _op(op="StepRun", data="\x00").memo == b'{"data":"\\u0000"}'


@pytest.mark.parametrize("kind", get_args(TransportFault))
def test_an_answer_that_never_came_is_an_error_too(kind: TransportFault) -> None:
    reply = reply_from_transport(kind, "connection refused")
    code, error = _failure(reply)
    assert code == kind
    assert "connection refused" in error["message"]
    assert error["data"] is None
    is_final = kind in ("app_url_invalid", "app_address_blocked", "app_redirect_blocked", "app_response_too_large")
    assert (reply.is_fatal, reply.no_retry) == ((True, True) if is_final else (False, None))


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([*OpCode, _ID, "1h", "2030-01-01"]),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "op",
                    "id",
                    "name",
                    "opts",
                    "data",
                    "error",
                    "timeout",
                    "duration",
                    "event",
                    "if",
                    "status",
                    "headers",
                    "body",
                    "noRetry",
                    "retryAt",
                    "version",
                ]
            ),
            part,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_OPS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(list(OpCode)), "id": st.sampled_from([_ID, "a", "b", ""])},
        optional={
            "opts": _ANYTHING,
            "data": _ANYTHING,
            "error": _ANYTHING,
            "name": st.text(max_size=12),
            "userland": _ANYTHING,
        },
    ),
    max_size=3,
)


@given(
    st.sampled_from([200, 201, 204, 206, 302, 400, 401, 500]) | st.integers(0, 999),
    st.dictionaries(
        st.sampled_from(
            ["x-inngest-sdk", "x-inngest-no-retry", "retry-after", "x-inngest-req-version", "content-type"]
        ),
        st.text(max_size=12) | st.sampled_from(["js:v4", "true", "30", "2"]),
    ),
    st.binary(max_size=40)
    | _ANYTHING.map(lambda value: json.dumps(value).encode())
    | _OPS.map(lambda value: json.dumps(value).encode()),
)
def test_any_answer_is_a_reply_with_canonical_texts(status: int, headers: dict[str, str], body: bytes) -> None:
    reply = read_reply(status, headers, body, now=_NOW)
    texts: list[bytes | None]
    if isinstance(reply, Finished):
        texts = [reply.data]
    elif isinstance(reply, Failed):
        texts = [reply.error]
        assert {"name", "message"} <= json.loads(reply.error).keys()
    else:
        texts = [text for op in reply.ops for text in (op.memo, op.input, op.payload, op.raw_opts)]
    for text in texts:
        assert text is None or canonical_bytes(text) == text


@pytest.mark.parametrize("depth", [200, 450, 900, 5_000])
def test_deep_answers_are_read_or_refused(depth: int) -> None:
    for inner in (b"1", b"1234567890123456789"):
        body = b'[{"op":"StepRun","id":"a","data":' + b"[" * depth + inner + b"]" * depth + b"}]"
        assert isinstance(read_reply(206, _SDK, body, now=_NOW), (Ops, Failed))
        assert isinstance(read_reply(500, _SDK, body, now=_NOW), Failed)
