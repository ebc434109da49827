"""The errors a user of the SDK meets, and the one signal that is not an error.

StepwellError
├── ConfigError          a setting is missing or wrong: says which and what to write
├── SendEventsError      the server did not take all events
├── ServerError          the server could not be reached, or refused another request of the SDK
├── StepError            a step failed for good; raised inside the function, which may catch it
├── NonRetriableError    raised by the user: do not try again
└── RetryAfterError      raised by the user: try again, but not before this moment

Interrupted (BaseException)   unwinds user code once the answer to a call is known
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from stepwell._durations import Duration, parse


class StepwellError(Exception):
    """Catch this to catch everything the SDK raises on its own account."""


class ConfigError(StepwellError):
    """A setting is missing or wrong. The message names it and says what to write."""


class ServerError(StepwellError):
    """The Stepwell server could not be reached or refused a request.

    `status` is its HTTP status, or None when no answer came.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class SendEventsError(ServerError):
    """Events were not accepted. `ids` lists the internal ids of those the server did take before it stopped."""

    def __init__(self, message: str, *, status: int | None = None, ids: Sequence[str] = ()) -> None:
        super().__init__(message, status=status)
        self.ids = list(ids)


class NonRetriableError(StepwellError):
    """Raise it where trying again cannot help. In a step it fails the step for good, elsewhere the run."""


class RetryAfterError(StepwellError):
    """Raise it to be tried again after a wait you choose, for example the one a payment provider asks for.

    `after` is a number of seconds, a `timedelta`, a duration such as `"30s"`, or a moment with a time zone. Servers keep
    the wait between one second and 24 hours. It counts as an attempt like any other failure.
    """

    def __init__(self, message: str, after: float | Duration | datetime) -> None:
        super().__init__(message)
        if isinstance(after, datetime):
            if after.tzinfo is None:
                raise ValueError("RetryAfterError needs a moment with a time zone, for example datetime.now(UTC)")
            self.after: timedelta | datetime = after
        elif isinstance(after, (int, float)):
            self.after = timedelta(seconds=after)
        else:
            self.after = parse(after)

    @property
    def header(self) -> str:
        """The value of `retry-after`: whole seconds, at least one, or an ISO moment in UTC (protocol 14.3)."""
        if isinstance(self.after, datetime):
            return self.after.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        seconds = max(1, -(-self.after // timedelta(seconds=1)))
        return str(seconds)


class StepError(StepwellError):
    """A step (or an invoked function) failed for good. Catch it to go another way; uncaught, it fails the run.

    `name` and `message` are those of the original error, `stack` its traceback as text if the server kept one,
    `details` the whole error object as stored.
    """

    def __init__(self, details: dict[str, Any]) -> None:
        self.details = details
        self.name = str(details.get("name") or "Error")
        self.message = str(details.get("message") or "The step failed without a message.")
        stack = details.get("stack")
        self.stack = stack if isinstance(stack, str) else None
        super().__init__(self.message)


class Interrupted(BaseException):
    """The answer to this call is known, so the function is unwound here; a later call goes on from its saved steps.

    Not an `Exception`, so that `except Exception` in user code lets it pass.
    """


class NestedStepError(NonRetriableError):
    """A step was used inside another step. Steps stand side by side: end the outer one first."""

    def __init__(self) -> None:
        super().__init__("A step was used inside another step. End the outer step first, then use the next one.")


class UnserializableError(NonRetriableError):
    """A value cannot be written as JSON. Return plain values: dict, list, str, int, float, bool, None."""
