"""Reads what a request asks for: query parameters and small JSON bodies, each fault with the name of its field.

Lists page by key. A cursor of our own API is sealed for the tenant that got it, so a tampered or borrowed one opens for
nobody and nothing in it has to be checked again.
"""

import base64
import binascii
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from litestar import Request

from app.adapters.sealing import CannotOpen, Sealer
from app.domain import canonical
from app.domain.errors import Refused
from app.domain.ids import EventId, parse_ulid
from app.domain.scope import Scope

_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")
_LONGEST_TEXT = 512
_MOST_VALUES = 100
#: Events are dated within these years, and everything else is dated by us.
_FIRST_YEAR, _LAST_YEAR = 1980, 2100


class CursorInvalid(Refused):
    """The cursor is none of this list: begin without one."""

    def __init__(self) -> None:
        super().__init__("cursor_invalid")


class FieldInvalid(Refused):
    """A field has a value that cannot be used; `details["field"]` names it."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__("field_invalid", f"{field}: {expected}.", {"field": field})


class FieldUnknown(Refused):
    """A field is not known here, or is not yours to set; `details["field"]` names it."""

    def __init__(self, field: str) -> None:
        super().__init__("field_unknown", f"There is no field {field} here.", {"field": field})


class Asked:
    """The query of a request. Parameters that are not `known` are passed by, as SDKs and proxies add their own."""

    def __init__(self, request: Request[Any, Any, Any], known: Collection[str]) -> None:
        """Take the query apart; names are told apart by letters only, so `appId` and `app_id` are one."""
        self._values: dict[str, list[str]] = {}
        wanted = {_snake(name) for name in known}
        for name, value in request.query_params.multi_items():
            if (key := _snake(name)) in wanted:
                self._values.setdefault(key, []).append(value)

    def text(self, name: str) -> str | None:
        """One text; none when it is missing or empty."""
        value = (self._values.get(_snake(name)) or [""])[-1]
        if len(value) > _LONGEST_TEXT or "\x00" in value:
            raise FieldInvalid(name, f"a text of at most {_LONGEST_TEXT} characters is expected")
        return value or None

    def texts(self, name: str) -> list[str]:
        """All values of a repeatable parameter, also those joined by commas."""
        values = [part for value in self._values.get(_snake(name), ()) for part in value.split(",") if part]
        if len(values) > _MOST_VALUES or any(len(value) > _LONGEST_TEXT or "\x00" in value for value in values):
            raise FieldInvalid(name, f"at most {_MOST_VALUES} values are expected")
        return values

    def number(self, name: str, *, default: int, most: int) -> int:
        """A whole number from 1; more than `most` becomes `most`."""
        text = self.text(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
            raise FieldInvalid(name, f"a whole number from 1 to {most} is expected")
        return min(int(text[:9]), most)

    def time(self, name: str) -> datetime | None:
        """A moment: RFC 3339, or milliseconds since 1970."""
        text = self.text(name)
        at: datetime | None
        if text is None:
            return None
        try:
            if text.isascii() and text.isdigit():
                at = datetime.fromtimestamp(int(text[:15]) / 1000, UTC)
            else:
                at = datetime.fromisoformat(text)
                at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            at = None
        if at is None or not _FIRST_YEAR <= at.year <= _LAST_YEAR:
            raise FieldInvalid(name, "a time as 2026-01-31T12:00:00Z is expected")
        return at

    def one_of(self, name: str, choices: Collection[str], default: str) -> str:
        """One of a few words, in any letter case."""
        text = self.text(name)
        if text is None:
            return default
        if text.upper() not in choices:
            raise FieldInvalid(name, f"one of {', '.join(sorted(choices))} is expected")
        return text.upper()

    def flag(self, name: str) -> bool:
        """Whether `true` or `1` was said."""
        return (self.text(name) or "").lower() in {"1", "true"}

    def event(self, name: str) -> EventId | None:
        """An event's id used as a cursor. Raises CursorInvalid for what is none."""
        text = self.text(name)
        if text is None:
            return None
        found = parse_ulid(text)
        if found is None:
            raise CursorInvalid
        return EventId(found)


def read_object(body: bytes, known: Collection[str], *, required: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a JSON body under their snake_case names. An empty body is an object without fields.

    Raises FieldUnknown, FieldInvalid, and what `canonical.decode` raises.
    """
    value = canonical.decode(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise Refused("body_invalid", "The body must be a JSON object.")
    fields = {}
    for name, item in value.items():
        if (key := _snake(name)) not in known:
            raise FieldUnknown(name[:100])
        fields[key] = item
    for name in required:
        if fields.get(name) is None:
            raise FieldInvalid(name, "this field is needed")
    return fields


def text_of(fields: dict[str, Any], name: str, *, longest: int = _LONGEST_TEXT) -> str | None:
    """One text of a body; none when it is missing or null."""
    value = fields.get(name)
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= longest and "\x00" not in value):
        raise FieldInvalid(name, f"a text of 1 to {longest} characters is expected")
    return value


def seal_cursor(sealer: Sealer, scope: Scope, kind: str, place: str) -> str:
    """A cursor: `place` in the list `kind` (its order included), for one tenant only."""
    return base64.urlsafe_b64encode(sealer.seal(f"{kind}\n{place}", scope)).decode().rstrip("=")


def open_cursor(sealer: Sealer, scope: Scope, kind: str, cursor: str) -> str:
    """The place it stands for. Raises CursorInvalid for anything but a cursor of this list and tenant."""
    try:
        sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found, _, place = sealer.open(sealed, scope).partition("\n")
    except (binascii.Error, ValueError, CannotOpen):
        raise CursorInvalid from None
    if found != kind:
        raise CursorInvalid
    return place


def _snake(name: str) -> str:
    return _CAMEL.sub(r"_\1", name).lower()
