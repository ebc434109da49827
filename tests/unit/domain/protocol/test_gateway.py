"""Requests made for the app: what is sent, what is shown, what an answer means."""

import json
from typing import Any

import pytest

from app.domain.canonical import canonical_value
from app.domain.protocol.gateway import Outcome, Outgoing, lost, read_answer, read_request, shown
from app.domain.protocol.opcodes import OpCode

KEY = "sk-canary-123"
AI = {"url": "https://ai.test/v1/chat", "auth_key": KEY, "body": {"model": "gpt-4o"}, "type": "step.ai.infer"}


def _read(code: OpCode, **opts: Any) -> Outgoing:
    found = read_request(code, canonical_value(opts))
    assert found is not None
    return found


def _memo(outcome: Outcome) -> Any:
    assert outcome.memo is not None
    return json.loads(outcome.memo)


def test_a_fetch_is_sent_as_the_function_said_it() -> None:
    sent = _read(OpCode.GATEWAY, url="http://x.test/a?b=1", method="put", headers={"X-A": "b", "Host": "no"}, body="hé")
    assert (sent.method, sent.address, sent.headers, sent.body) == (
        "PUT",
        "http://x.test/a?b=1",
        {"x-a": "b"},
        "hé".encode(),
    )
    assert _read(OpCode.GATEWAY, url="http://x.test").method == "POST"


@pytest.mark.parametrize(
    "opts",
    [
        {},
        {"url": ""},
        {"url": 7},
        {"url": "http://x.test", "method": "TRACE"},
        {"url": "http://x.test", "method": "GET\r\nX: y"},
        {"url": "http://x.test", "body": {"not": "text"}},
        {"url": "http://x.test", "headers": {"a b": "c"}},
        {"url": "http://x.test", "headers": {"a": "b\r\nc: d"}},
        {"url": "http://x.test", "headers": {"a": 1}},
        {"url": "http://x.test", "headers": ["a"]},
    ],
)
def test_options_that_make_no_request_are_none(opts: dict[str, Any]) -> None:
    assert read_request(OpCode.GATEWAY, canonical_value(opts)) is None
    assert read_request(OpCode.AI_GATEWAY, canonical_value({**opts, "auth_key": ["no"]})) is None
    assert read_request(OpCode.GATEWAY, None) is None


@pytest.mark.parametrize(
    ("provider", "header"),
    [
        ("openai-chat", ("authorization", f"Bearer {KEY}")),
        ("something-new", ("authorization", f"Bearer {KEY}")),
        ("anthropic", ("x-api-key", KEY)),
        ("bedrock", ("authorization", KEY)),
    ],
)
def test_the_key_goes_where_the_provider_looks_for_it(provider: str, header: tuple[str, str]) -> None:
    sent = _read(OpCode.AI_GATEWAY, **AI, format=provider, headers={"X-Team": "t"})
    assert sent.headers[header[0]] == header[1]
    assert sent.headers["x-team"] == "t"
    assert (sent.method, json.loads(sent.body), sent.address) == ("POST", {"model": "gpt-4o"}, AI["url"])
    assert KEY not in sent.address


def test_gemini_gets_the_key_in_the_address_that_is_called_and_in_no_other() -> None:
    sent = _read(OpCode.AI_GATEWAY, **{**AI, "url": "https://ai.test/x?alt=1"}, format="gemini")
    assert sent.address == f"https://ai.test/x?alt=1&key={KEY}"
    assert KEY not in sent.url and not any(KEY in value for value in sent.headers.values())


def test_what_is_shown_has_no_credentials_and_everything_else() -> None:
    opts = {**AI, "headers": {"Authorization": f"Basic {KEY}", "X-A": KEY}}
    text = shown(canonical_value(opts))
    assert KEY.encode() not in text
    told = json.loads(text)
    assert set(told["headers"]) == {"Authorization", "X-A"}
    assert (told["url"], told["body"], told["type"]) == (AI["url"], AI["body"], AI["type"])
    assert KEY.encode() not in shown(canonical_value({"url": "u", "headers": [KEY]}))


def test_every_status_of_a_fetch_is_its_memo() -> None:
    sent = _read(OpCode.GATEWAY, url="http://x.test/a")
    outcome = read_answer(sent, 503, {"x-a": "b", "content-encoding": "gzip", "content-length": "9"}, b"\xffno")
    assert _memo(outcome) == {
        "data": {"url": "http://x.test/a", "headers": {"x-a": "b"}, "body": "\ufffdno", "status_code": 503}
    }
    assert _memo(read_answer(sent, 204, {}, b""))["data"]["body"] is None
    assert _memo(read_answer(sent, 200, {}, b""))["data"]["body"] == ""


@pytest.mark.parametrize(
    ("provider", "answer", "expected"),
    [
        (
            "openai-chat",
            {"model": "gpt-4o-x", "usage": {"prompt_tokens": 3, "completion_tokens": 5}},
            ("gpt-4o-x", 3, 5),
        ),
        ("anthropic", {"model": "claude", "usage": {"input_tokens": 3, "output_tokens": 5}}, ("claude", 3, 5)),
        (
            "gemini",
            {"modelVersion": "gemini-2", "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5}},
            ("gemini-2", 3, 5),
        ),
        ("bedrock", {"usage": {"inputTokens": 3, "outputTokens": 5}}, ("gpt-4o", 3, 5)),
        ("openai-chat", {"usage": "none", "model": 4}, ("gpt-4o", None, None)),
        ("openai-chat", [1], ("gpt-4o", None, None)),
    ],
)
def test_model_and_tokens_are_read_from_each_providers_answer(
    provider: str, answer: Any, expected: tuple[str, int | None, int | None]
) -> None:
    outcome = read_answer(_read(OpCode.AI_GATEWAY, **AI, format=provider), 200, {}, json.dumps(answer).encode())
    assert _memo(outcome) == {"data": answer}
    assert outcome.usage is not None
    assert (outcome.usage.model, outcome.usage.input_tokens, outcome.usage.output_tokens) == expected


@pytest.mark.parametrize(
    ("status", "body", "kept"),
    [(429, b'{"error":"slow"}', {"error": "slow"}), (500, b"<html>", "<html>"), (200, b"<html>", "<html>")],
)
def test_a_models_refusal_is_an_error_that_may_be_tried_again(status: int, body: bytes, kept: object) -> None:
    outcome = read_answer(_read(OpCode.AI_GATEWAY, **AI), status, {}, body)
    assert outcome.memo is None and not outcome.is_final
    error = json.loads(outcome.error or b"")
    assert (error["name"], error["data"], error["stack"]) == ("AIGatewayError", kept, body.decode())


def test_an_answer_larger_than_an_output_may_be_is_a_final_error() -> None:
    outcome = read_answer(_read(OpCode.GATEWAY, url="http://x.test"), 200, {}, b"x" * (4 << 20))
    assert outcome.memo is None and outcome.is_final
    assert json.loads(outcome.error or b"")["name"] == "GatewayError"
    assert lost(is_ai=True, message="m", is_final=False).error == b'{"data":null,"message":"m","name":"AIGatewayError"}'
