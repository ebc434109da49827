"""The two ways an expression goes wrong: refused when it is saved, failed when it runs."""

from typing import Literal

RefusalCode = Literal["expression_invalid", "expression_too_costly"]


class ExpressionRefused(ValueError):
    """The text is no expression of the dialect, or could cost too much; say so where it is saved.

    `code` is stable and documented; `message` is a sentence for the user; `position` is the character in the text
    (from 0) where the trouble is, None when it concerns the whole.
    """

    def __init__(self, code: RefusalCode, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.code: RefusalCode = code
        self.message = message
        self.position = position


class ExpressionFailed(ValueError):
    """An expression could not give a value for this event: record it with the decision, never retry it."""
