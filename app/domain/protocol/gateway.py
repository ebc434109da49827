"""Requests that the worker makes in place of the app: `step.fetch` and `step.ai.infer` (protocol 12.2, 30.5).

    options of the op ─► read_request ─► Outgoing (method, address, headers, body)       what is sent
                    └──► shown        ─► the options without credentials                  what people see
    answer ─► read_answer ─► Outcome: the step's memo, or an error that may be tried again

`step.fetch`: any HTTP status is a success, only a lost answer is an error. `step.ai.infer`: a status above 299 is an
error. The request of `step.ai.infer` goes out in the way of the provider that `format` names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from app.domain import canonical
from app.domain.errors import JsonRefused
from app.domain.limits import KIB, MAX_OUTPUT_BYTES
from app.domain.protocol.opcodes import OpCode

#: What is shown in place of a credential.
HIDDEN: Final = "(hidden)"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]{0,16384}")
#: Belong to the connection, not to the user; of an answer also what no longer fits its inflated body.
_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"}
)
_GONE = _OURS | {"content-encoding"}
#: Statuses whose answers have no body; JavaScript refuses even an empty text there.
_BODILESS = frozenset({204, 205, 304})
_MOST_KEPT = 16 * KIB


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it is sent. `address` may hold a credential: never log or store it."""

    method: str
    address: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    is_ai: bool
    provider: str
    url: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Which model answered and what it read and wrote, in tokens; None where the provider does not say."""

    provider: str
    model: str | None
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer means for the step: `memo` when it is there, else `error`, an error object."""

    memo: bytes | None
    error: bytes | None = None
    usage: Usage | None = None
    is_final: bool = False


def read_request(code: OpCode, opts: bytes | None) -> Outgoing | None:
    """The request an op asks for; None when its options are not enough to make one."""
    given = canonical.decode(opts) if opts is not None else None
    if not isinstance(given, dict):
        return None
    url = given.get("url")
    headers = _headers(given.get("headers"))
    if not isinstance(url, str) or not url or headers is None:
        return None
    return _ai(given, url, headers) if code is OpCode.AI_GATEWAY else _fetch(given, url, headers)


def unpublishable(code: OpCode, opts: bytes) -> bytes | None:
    """The error of a step whose answer is to be published to a channel while it comes in; None when it is not.

    There is no realtime here, so nobody could be listening: the step fails with the code `realtime_unavailable` before
    the request is made, rather than that its listeners wait for ever.
    """
    publish = canonical.decode(opts).get("publish")
    if not publish:
        return None
    name = "AIGatewayError" if code is OpCode.AI_GATEWAY else "GatewayError"
    message = "This server has no realtime channels, so the answer cannot be published. Leave out `publish`."
    return canonical.encode({"name": name, "message": message, "code": "realtime_unavailable", "data": None})


def shown(opts: bytes) -> bytes:
    """The options as they may be stored and shown: the key and the values of all headers are hidden."""
    given = canonical.decode(opts)
    if given.get("auth_key"):
        given["auth_key"] = HIDDEN
    headers = given.get("headers")
    if isinstance(headers, dict):
        given["headers"] = dict.fromkeys(headers, HIDDEN)
    elif headers is not None:
        given["headers"] = HIDDEN
    return canonical.encode(given)


def read_answer(sent: Outgoing, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    """What an answer means."""
    return _ai_answer(sent, status, body) if sent.is_ai else _fetch_answer(sent, status, headers, body)


def lost(is_ai: bool, message: str, *, is_final: bool) -> Outcome:
    """No answer came; `message` is a sentence without secrets."""
    name = "AIGatewayError" if is_ai else "GatewayError"
    return Outcome(None, canonical.encode({"name": name, "message": message, "data": None}), is_final=is_final)


def _headers(given: object) -> dict[str, str] | None:
    """Headers to send; None when one of them cannot be."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        return None
    headers: dict[str, str] = {}
    for name, value in given.items():
        # go writes each value as a list.
        text = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(text, str) or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
            return None
        if name.lower() not in _OURS:
            headers[name.lower()] = text
    return headers


def _fetch(given: Mapping[str, Any], url: str, headers: dict[str, str]) -> Outgoing | None:
    method = given.get("method") or "POST"
    body = given.get("body")
    if not isinstance(method, str) or method.upper() not in _METHODS or not isinstance(body, str | None):
        return None
    return Outgoing(method.upper(), url, headers, (body or "").encode(), is_ai=False, provider="", url=url)


def _ai(given: Mapping[str, Any], url: str, headers: dict[str, str]) -> Outgoing | None:
    key, provider = given.get("auth_key"), given.get("format")
    body = given.get("body")
    if not isinstance(key, str | None) or not _HEADER_VALUE.fullmatch(key or ""):
        return None
    provider = provider if provider in ("anthropic", "gemini", "bedrock") else "openai-chat"
    address = url
    sent = {"content-type": "application/json"}
    if key:
        match provider:
            case "anthropic":
                sent["x-api-key"] = key
            case "gemini":
                address = f"{url}{'&' if '?' in url else '?'}key={quote(key, safe='')}"
            case "bedrock":
                sent["authorization"] = key
            case _:
                sent["authorization"] = f"Bearer {key}"
    if provider == "anthropic":
        sent["anthropic-version"] = "2023-06-01"
    return Outgoing("POST", address, sent | headers, canonical.encode(body), is_ai=True, provider=provider, url=url)


def _fetch_answer(sent: Outgoing, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
    data = {
        "url": sent.url,
        "headers": {name: _text(value) for name, value in headers.items() if name not in _GONE},
        "body": None if status in _BODILESS else _text(body.decode(errors="replace")),
        "status_code": status,
    }
    memo = b'{"data":%s}' % canonical.encode(data)
    if len(memo) > MAX_OUTPUT_BYTES:
        return lost(is_ai=False, message=_TOO_LARGE, is_final=True)
    return Outcome(memo)


def _ai_answer(sent: Outgoing, status: int, body: bytes) -> Outcome:
    try:
        value = canonical.decode(body)
    except JsonRefused:
        value = None
    if status > 299 or value is None:
        said = body[:_MOST_KEPT].decode(errors="replace")
        kept = value if value is not None and len(body) <= _MOST_KEPT else said
        message = (
            f"The model's provider answered HTTP {status}." if status > 299 else "The provider's answer is not JSON."
        )
        error = {"name": "AIGatewayError", "message": message, "data": kept, "stack": _text(said)}
        return Outcome(None, canonical.encode(error))
    text = canonical.encode(value)
    if len(text) > MAX_OUTPUT_BYTES:
        return lost(is_ai=True, message=_TOO_LARGE, is_final=True)
    return Outcome(b'{"data":%s}' % text, usage=_usage(sent, value))


def _usage(sent: Outgoing, value: object) -> Usage:
    answer: dict[str, Any] = value if isinstance(value, dict) else {}
    counted = answer.get("usage") or answer.get("usageMetadata")
    counted = counted if isinstance(counted, dict) else {}
    asked = canonical.decode(sent.body)
    names = [answer.get("model"), answer.get("modelVersion"), asked.get("model") if isinstance(asked, dict) else None]
    return Usage(
        sent.provider,
        next((name[:200] for name in names if isinstance(name, str) and name), None),
        _first_count(counted, "prompt_tokens", "input_tokens", "inputTokens", "promptTokenCount"),
        _first_count(counted, "completion_tokens", "output_tokens", "outputTokens", "candidatesTokenCount"),
    )


def _first_count(counted: Mapping[str, Any], *names: str) -> int | None:
    return next((counted[name] for name in names if type(counted.get(name)) is int), None)


def _text(value: str) -> str:
    """A text that JSON and the database can hold."""
    return value.encode("utf-8", "replace").decode()


_TOO_LARGE = "The answer is larger than a step's output may be (4 MiB)."
