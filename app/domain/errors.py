"""Exceptions of the house, three families. An ordinary outcome (rate limited, skipped, duplicate) is a value instead.

    StepwellError
    ├── Refused               the caller's fault: a stable code, one sentence, fields
    │   ├── JsonRefused       a document that is not the JSON we accept
    │   ├── EventRefused      an event that may not be stored; `details["index"]` says which
    │   ├── DurationRefused   a time string or timestamp that cannot be read
    │   ├── RegistrationRefused   a sync whose app or functions are wrong
    │   ├── CheckpointRefused a checkpoint body that cannot be saved
    │   ├── OpsRefused        an app's answer that cannot be used; becomes the error of the attempt
    │   └── KeyRefused        a signing key that cannot be used
    ├── Outside               something outside failed: may it be tried again, and after how long
    └── Bug                   an invariant of ours broke: loud, with ids

Only `web/errors.py` turns codes into HTTP statuses; only `engine/execute.py` and the keepers decide what to do about
`Outside`. Codes never change once released. Messages never hold payload text.
"""

import inspect
from collections.abc import Mapping
from copy import copy
from datetime import timedelta
from typing import Self


class StepwellError(Exception):
    """Stepwell cannot go on with this."""

    @classmethod
    def sentence(cls) -> str:
        """The class's docstring, which is its default message."""
        return inspect.cleandoc(cls.__doc__ or "").split("\n\n", 1)[0].replace("\n", " ")


class Refused(StepwellError):
    """The request cannot be accepted as it is.

    `code` is stable text for programs, `message` a sentence for people, `details` JSON-ready fields (byte offset,
    index of the event, size and limit).
    """

    def __init__(self, code: str, message: str | None = None, details: Mapping[str, object] | None = None) -> None:
        self.code = code
        self.message = message if message is not None else self.sentence()
        self.details: dict[str, object] = dict(details or {})
        super().__init__(self.message)

    def with_details(self, **more: object) -> Self:
        """The same refusal, saying more: used where an outer layer knows the index or the field. New values win."""
        refused = copy(self)
        refused.details = {**self.details, **more}
        return refused


class JsonRefused(Refused):
    """The document is not JSON that can be accepted.

    Codes: `json_invalid` (details: offset in bytes), `json_encoding`, `json_number_range`, `json_too_deep`,
    `json_too_complex`.
    """


class EventRefused(Refused):
    """The event cannot be accepted: check its name, data, ts and id.

    Codes: `body_empty`, `body_not_event`, `event_name_invalid`, `event_name_reserved`, `event_data_invalid`,
    `event_ts_invalid`, `event_id_invalid`, `event_too_large`, `too_many_events`.
    """


class DurationRefused(Refused):
    """The time cannot be read: write it like 10s, 1h30m or 2d, or as an RFC 3339 timestamp. Code: `duration_invalid`."""


class RegistrationRefused(Refused):
    """The app's functions cannot be registered as they are; `details["problems"]` lists what to change."""


class CheckpointRefused(Refused):
    """The checkpoint cannot be saved. Codes: `checkpoint_invalid`, `output_too_large`."""


class OpsRefused(Refused):
    """The app's answer cannot be used.

    `name` is what SDKs and failure handlers see as the error's name (protocol 14.4); `is_fatal` ends the run at once,
    because the same answer would come again.
    """

    def __init__(self, code: str, message: str, *, name: str = "Error", is_fatal: bool = False) -> None:
        self.name = name
        self.is_fatal = is_fatal
        super().__init__(code, message)


class KeyRefused(Refused):
    """The signing key cannot be used: it must be signkey-<label>-<even number of hex digits>. Code: `signing_key_invalid`."""


class Outside(StepwellError):
    """Something outside Stepwell did not do its part.

    `retryable` says whether the same thing may work later, `after` how long to wait first when that is known.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        retryable: bool,
        after: timedelta | None = None,
        code: str = "outside_failed",
    ) -> None:
        self.code = code
        self.message = message if message is not None else self.sentence()
        self.retryable = retryable
        self.after = after
        super().__init__(self.message)


class Bug(StepwellError):
    """An invariant of Stepwell broke. Please report it with the ids given."""

    def __init__(self, message: str | None = None, **ids: object) -> None:
        self.ids = ids
        named = ", ".join(f"{name}={value}" for name, value in ids.items())
        text = message if message is not None else self.sentence()
        super().__init__(f"{text} ({named})" if named else text)
