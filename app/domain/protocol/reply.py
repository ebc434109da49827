"""What an app answered, as a value: status, headers and body in, `Reply` out.

Three roads lead here: the HTTP answer of a call, a socket frame, a checkpoint request.
"""

from dataclasses import dataclass
from datetime import timedelta

from app.domain.protocol.opcodes import Op


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
