"""What an app answered, as a value: status, headers and body in, `Reply` out.

Total: whatever arrives becomes one of three values, never an exception (protocol 11, 12, 14 and 15). Comes from
`engine/dispatch.py`, goes on to `run/advance.py`. A checkpoint is not an answer: see `checkpoint.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from app.domain import canonical
from app.domain.durations import parse_date
from app.domain.errors import JsonRefused, OpsRefused
from app.domain.limits import MAX_OUTPUT_BYTES, MAX_RESPONSE_BYTES, MAX_RETRY_DELAY, MAX_UPSTREAM_BYTES, MIN_RETRY_DELAY
from app.domain.protocol.error_object import app_error, made_error
from app.domain.protocol.opcodes import Op, read_ops


@dataclass(frozen=True, slots=True)
class Finished:
    """200: the run ended with this result. `data` is canonical JSON."""

    data: bytes
    sdk: str = ""


@dataclass(frozen=True, slots=True)
class Ops:
    """206: a list of ops. `request_version` is the header's number, None when absent.

    `no_retry` True forbids a retry whatever else is said, False allows it, None means the header was absent (14.1).
    `retry_after` is already clamped to 1 s … 24 h.
    """

    ops: tuple[Op, ...]
    request_version: int | None
    no_retry: bool | None = None
    retry_after: timedelta | None = None
    sdk: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A function-level error: the app said no, or could not be understood or reached.

    `error` is a canonical JSON object with at least `name` and `message` (section 11, "Error object");
    `code` is the stable code of reliability-security 4 C (`app_error` when the app itself reported it).
    `is_fatal` ends the run at once (limits, blocked addresses), whatever the retry settings are.
    """

    error: bytes
    code: str
    no_retry: bool | None = None
    retry_after: timedelta | None = None
    is_fatal: bool = False
    sdk: str = ""


Reply = Finished | Ops | Failed

TransportFault = Literal[
    "app_unreachable",
    "app_tls_failed",
    "app_timeout",
    "app_url_invalid",
    "app_address_blocked",
    "app_redirect_blocked",
    "app_response_too_large",
]

#: By code: the error's name, the sentence, and whether the run ends at once (reliability-security 4 C).
_TRANSPORT: Final[dict[TransportFault, tuple[str, str, bool]]] = {
    "app_unreachable": ("app_unreachable", "The app could not be reached.", False),
    "app_tls_failed": ("app_tls_failed", "No safe connection to the app could be made.", False),
    "app_timeout": ("app_timeout", "The app did not answer in time.", False),
    "app_url_invalid": ("app_url_invalid", "The app's address is not one that can be called.", True),
    "app_address_blocked": ("app_address_blocked", "The app's address is one that may not be called.", True),
    "app_redirect_blocked": (
        "app_redirect_blocked",
        "The app redirected the call; only 307 and 308 to the same origin are followed.",
        True,
    ),
    "app_response_too_large": (
        "output_too_large",
        f"The app's answer is larger than {MAX_RESPONSE_BYTES} bytes.",
        True,
    ),
}

_VERSION = re.compile(r"[1-9][0-9]{0,5}")
_OLD_JS = re.compile(r"(?:inngest-)?js:v([0-2])\.([0-9]{1,4})\.([0-9]{1,4})")
_SECONDS = re.compile(r"[0-9]{1,7}")
_STREAM_STATUS = range(200, 600)


def reply_from_transport(kind: TransportFault, detail: str = "") -> Failed:
    """What stands for an answer that never came. `detail` is a short reason without secrets (`connection refused`)."""
    name, sentence, is_fatal = _TRANSPORT[kind]
    message = f"{sentence} ({detail})" if detail else sentence
    return Failed(made_error(name, message), kind, no_retry=True if is_fatal else None, is_fatal=is_fatal)


def read_reply(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Reply:
    """What an app's answer means. `headers` have lower-case names; `now` (aware) is when it arrived.

    Never raises. Measured: 6 µs for a 206 with one StepRun.
    """
    sdk = headers.get("x-inngest-sdk", "")
    if status == 401 and (sdk or "x-inngest-sdk-handled" in headers):
        # Only signature checks answer so; go's has the SDK header, the others' have not (protocol 3.2).
        message = "The app refused the call: its signing key does not match this environment's."
        return _with(Failed(made_error("signature_rejected", message), "app_signature_rejected", sdk=sdk), headers, now)
    if not sdk and status != 201:
        return _not_from_sdk(status, headers, body, now)
    try:
        if status == 206:
            return _read_ops(canonical.decode(body), headers, now)
        if status == 201:
            return _read_stream(headers, body, now)
        if status == 200:
            return _read_result(_result(body, headers), sdk)
        if status < 400:
            raise OpsRefused("app_response_invalid", f"HTTP {status} is not an answer to a call.")
        return _read_failure(status, _lenient(body), headers, now)
    except JsonRefused as refused:
        if not sdk:
            return _not_from_sdk(status, headers, body, now)
        message = f"The app's answer cannot be read: {refused.message}"
        return _with(Failed(made_error("Error", message), "app_response_invalid", sdk=sdk), headers, now)
    except OpsRefused as refused:
        error = made_error(refused.name, refused.message)
        return _with(Failed(error, refused.code, is_fatal=refused.is_fatal, sdk=sdk), headers, now)


def parse_retry_after(text: str, now: datetime) -> timedelta | None:
    """The wait a `retry-after` asks for: seconds or a date (14.3), clamped to 1 s … 24 h; None when unreadable."""
    if _SECONDS.fullmatch(text):
        seconds = int(text)
        asked = timedelta(seconds=seconds) if seconds else None
    else:
        at = parse_date(text)
        asked = at - now if at is not None else None
    return None if asked is None else min(max(asked, MIN_RETRY_DELAY), MAX_RETRY_DELAY)


def _read_ops(value: object, headers: Mapping[str, str], now: datetime) -> Ops:
    version = headers.get("x-inngest-req-version")
    retry_after = headers.get("retry-after")
    return Ops(
        read_ops(_unwrapped(value, (list, dict)), now),
        int(version) if version is not None and _VERSION.fullmatch(version) else None,
        _no_retry(headers),
        parse_retry_after(retry_after, now) if retry_after is not None else None,
        headers.get("x-inngest-sdk", ""),
    )


def _read_result(value: object, sdk: str) -> Finished:
    data = canonical.encode(_unwrapped(value, dict))
    if len(data) > MAX_OUTPUT_BYTES:
        message = f"The function's result has {len(data)} bytes; {MAX_OUTPUT_BYTES} are allowed."
        raise OpsRefused("output_too_large", message, name="output_too_large", is_fatal=True)
    return Finished(data, sdk)


def _result(body: bytes, headers: Mapping[str, str]) -> object:
    """The result of a 200. Plain text is its own result (section 11); what calls itself JSON or HTML is not."""
    if not body.strip():
        return None
    try:
        return canonical.decode(body)
    except JsonRefused:
        kind = headers.get("content-type", "").lower()
        if "json" in kind or "html" in kind or b"\x00" in body:
            raise
        return body.decode(errors="replace")


def _read_failure(status: int, value: object, headers: Mapping[str, str], now: datetime) -> Failed:
    error = app_error(_unwrapped(value, dict), fallback=f"The app answered HTTP {status} without saying why.")
    sdk = headers.get("x-inngest-sdk", "")
    failed = _with(Failed(error, "app_error", sdk=sdk), headers, now)
    is_final = 400 <= status < 500 and "x-inngest-no-retry" not in headers and _is_final_by_status(sdk)
    return replace(failed, no_retry=True) if is_final else failed


def _is_final_by_status(sdk: str) -> bool:
    """Whether the SDK is one for TypeScript that has no header for it yet: its 4xx is final (14.1)."""
    found = _OLD_JS.match(sdk)
    if found is None:
        return False
    version = (int(found[1]), int(found[2]), int(found[3]))
    return version < (1, 10, 1) or (2, 0, 0) <= version < (2, 4, 1)


def _read_stream(headers: Mapping[str, str], body: bytes, now: datetime) -> Reply:
    """A streamed answer: keep-alive blanks, then one object with the real status, headers and body (section 15)."""
    envelope = canonical.decode(body.strip())
    status = envelope.get("status") if isinstance(envelope, dict) else None
    if not isinstance(envelope, dict) or (type(status) is not int and "error" not in envelope):
        if not headers.get("x-inngest-sdk"):
            return _not_from_sdk(201, headers, body, now)
        raise OpsRefused("app_response_invalid", "The streamed answer is not an envelope with a status.")
    own = envelope.get("headers")
    merged = dict(headers)
    if isinstance(own, dict):
        merged.update((key.lower(), value) for key, value in own.items() if isinstance(value, str))
    # go has no headers in its envelope but says these two beside them.
    if envelope.get("noRetry") is True:
        merged["x-inngest-no-retry"] = "true"
    if isinstance(envelope.get("retryAt"), str):
        merged["retry-after"] = envelope["retryAt"]
    if "x-inngest-req-version" not in merged and type(envelope.get("version")) is int:
        merged["x-inngest-req-version"] = str(envelope["version"])
    if isinstance(envelope.get("error"), str):
        return _read_failure(500, envelope["error"], merged, now)
    if not merged.get("x-inngest-sdk"):
        return _not_from_sdk(201, headers, body, now)
    if type(status) is not int or status not in _STREAM_STATUS:
        raise OpsRefused("app_response_invalid", "The streamed answer is not an envelope with a status.")
    inner = envelope.get("body")
    if isinstance(inner, str):
        inner = _lenient(inner.encode())
    if status == 206:
        return _read_ops(inner, merged, now)
    if status == 200:
        return _read_result(inner, merged["x-inngest-sdk"])
    if status < 400:
        raise OpsRefused("app_response_invalid", f"HTTP {status} is not an answer to a call.")
    return _read_failure(status, inner, merged, now)


def _not_from_sdk(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Failed:
    upstream = body[:MAX_UPSTREAM_BYTES].decode(errors="replace")
    if 200 <= status < 300:
        error = made_error("not_sdk", f"HTTP {status} came from something that is not an SDK.", stack=upstream)
        return _with(Failed(error, "app_not_sdk"), headers, now)
    message = f"Your server returned HTTP {status} before the SDK responded."
    error = made_error("Server returned a fatal error", message, stack=upstream)
    return _with(Failed(error, "app_http_error"), headers, now)


def _with(failed: Failed, headers: Mapping[str, str], now: datetime) -> Failed:
    """The failure with what the headers say about trying again, which holds whatever the status is (14.1)."""
    retry_after = headers.get("retry-after")
    return Failed(
        failed.error,
        failed.code,
        _no_retry(headers),
        parse_retry_after(retry_after, now) if retry_after is not None else None,
        failed.is_fatal,
        failed.sdk,
    )


def _no_retry(headers: Mapping[str, str]) -> bool | None:
    text = headers.get("x-inngest-no-retry")
    if text is None:
        return None
    return {"true": True, "false": False}.get(text.strip().lower())


def _lenient(body: bytes) -> object:
    """A body that may be JSON or any text."""
    try:
        return canonical.decode(body)
    except JsonRefused:
        return body.decode(errors="replace")


def _unwrapped(value: object, kinds: type[Any] | tuple[type[Any], ...]) -> object:
    """What a JSON text inside a JSON text holds, when that is one of `kinds`; else the value itself (section 11)."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        inner = _lenient(value.encode())
        if isinstance(inner, kinds):
            return inner
    return value
