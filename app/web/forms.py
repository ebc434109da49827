"""Forms of pages: small, sent as text, answered with themselves when something is wrong."""

from typing import Any

from litestar import Request

#: Bytes of a form; everything a person types into one of these pages fits many times.
LARGEST_FORM = 16 * 1024


class Fields:
    """What a form brought: every value is text without NUL characters, missing ones are empty."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    @classmethod
    async def of(cls, request: Request[Any, Any, Any]) -> "Fields":
        """Read the form of a request; uploaded files count as missing."""
        form = await request.form()
        return cls({name: value.replace("\x00", "") for name, value in form.items() if isinstance(value, str)})

    def text(self, name: str) -> str:
        """The value with the spaces around it removed."""
        return self._values.get(name, "").strip()

    def secret(self, name: str) -> str:
        """The value exactly as typed; spaces around a password are part of it."""
        return self._values.get(name, "")
