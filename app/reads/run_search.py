"""What somebody typed into the search field: ids, a bulk action, an idempotency key, or an expression.

Pure. Nothing is asked of the database here: the text alone decides, so the same address always means the same.
"""

import re
from dataclasses import dataclass
from uuid import UUID

from app.domain.expressions import ExpressionRefused, compile_expression
from app.domain.ids import parse_ulid

#: What expressions may talk about: the first event of a run, and what it gave.
VARIABLES = ("event", "output")
#: Longest text looked at; the language itself allows more, an address should not.
LONGEST = 1000
_KEY, _BULK = "key:", "bulk:"
#: A text with one of these is no key as people write them (and `key:` makes anything one).
_LOOKS_LIKE_EXPRESSION = re.compile(r"[<>=!&|()\[\]{}?\"'\s]|^(event|output)(\.|$)")


@dataclass(frozen=True, slots=True)
class Search:
    """One meaning, the other fields empty. `problem` is a sentence, `position` the character (from 0) it is about.

    `words` says how the text was understood.
    """

    ids: tuple[UUID, ...] = ()
    bulk: UUID | None = None
    key: str = ""
    expression: str = ""
    problem: str | None = None
    position: int | None = None

    @property
    def words(self) -> str:
        """The name of the field that the text turned out to be about; empty for nothing and for a mistake."""
        if self.ids:
            return "Run or event ID"
        if self.bulk is not None:
            return "Made by bulk action"
        return "Idempotency key" if self.key else "Expression" if self.expression else ""


def read_search(text: str) -> Search:
    """Decide what a text means. `key:…` and `bulk:…` say it themselves; everything else is told by its shape."""
    text = text.strip()
    if not text:
        return Search()
    if text.startswith(_BULK):
        bulk = parse_ulid(text[len(_BULK) :].strip())
        return (
            Search(bulk=bulk) if bulk else Search(problem="No bulk action has this ID: it has 26 letters and digits.")
        )
    if text.startswith(_KEY):
        key = text[len(_KEY) :].strip()
        return Search(key=key) if key else Search(problem="Write the key after key:")
    found = _id(text)
    if found is not None:
        return Search(ids=(found,))
    if not _LOOKS_LIKE_EXPRESSION.search(text):
        return Search(key=text)
    if len(text) > LONGEST:
        return Search(problem=f"The expression is too long: at most {LONGEST:,} characters.")
    try:
        compile_expression(text, VARIABLES)
    except ExpressionRefused as refused:
        return Search(problem=refused.message, position=refused.position)
    return Search(expression=text)


def uses(expression: str, variable: str) -> bool:
    """Whether an accepted expression needs this one of `VARIABLES`."""
    others = tuple(name for name in VARIABLES if name != variable)
    try:
        compile_expression(expression, others)
    except ExpressionRefused:
        return True
    return False


def _id(text: str) -> UUID | None:
    found = parse_ulid(text)
    if found is not None:
        return found
    try:
        return UUID(text)
    except ValueError:
        return None
