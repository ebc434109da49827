"""What a call is answered with: status, headers and body, and errors as the protocol writes them (protocol 11 and 14)."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell import _json
from stepwell._errors import NonRetriableError, RetryAfterError, StepError

_LOG = logging.getLogger("stepwell")

#: Tracebacks are cut to this many characters, keeping the end, where the cause stands.
_STACK_CHARS = 16_000

#: How many errors of a `raise … from …` chain are reported.
_CAUSES = 4


@dataclass(frozen=True)
class Answer:
    """An HTTP answer before it is signed."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def result(value: Any) -> Answer:
    """The run ended with this value."""
    return Answer(200, _json.encode(value))


def report(ops: Sequence[Mapping[str, Any]], headers: Mapping[str, str] | None = None) -> Answer:
    """These steps were found or executed; the run goes on."""
    return Answer(206, _json.encode(list(ops)), headers or {})


def failure(error: BaseException) -> Answer:
    """The function raised: an uncaught step error or NonRetriableError ends the run, anything else is tried again."""
    final = isinstance(error, (StepError, NonRetriableError))
    tell("The function", error)
    return Answer(400 if final else 500, _json.encode(describe(error)), retry_headers(error, final=final))


def tell(what: str, error: BaseException) -> None:
    """Put a failure into the app's own log; with its traceback, unless user code raised it to be tried again later."""
    asked_for = isinstance(error, RetryAfterError)
    _LOG.log(
        logging.INFO if asked_for else logging.WARNING,
        "%s failed: %s",
        what,
        error,
        exc_info=None if asked_for else error,
    )


def refusal(status: int, name: str, message: str, *, retry: bool) -> Answer:
    """The SDK itself cannot do what the call asks."""
    body = {"name": name, "message": message, "type": "internal"}
    return Answer(status, _json.encode(body), {"x-inngest-no-retry": "false" if retry else "true"})


def retry_headers(error: BaseException, *, final: bool) -> dict[str, str]:
    """Say whether, and from when on, to try again."""
    headers = {"x-inngest-no-retry": "true" if final else "false"}
    if isinstance(error, RetryAfterError) and not final:
        headers["retry-after"] = error.header
    return headers


def describe(error: BaseException, depth: int = _CAUSES) -> dict[str, Any]:
    """Write an error as an object: `name`, `message`, `stack` (text), `cause` (the same, nested) when there is one.

    A step error keeps the words of the step it came from.
    """
    if isinstance(error, StepError):
        return {**error.details, "name": error.name, "message": error.message}
    described: dict[str, Any] = {
        "name": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "stack": "".join(traceback.format_exception(error, chain=False))[-_STACK_CHARS:],
    }
    if error.__cause__ is not None and depth > 1:
        described["cause"] = describe(error.__cause__, depth - 1)
    return described
