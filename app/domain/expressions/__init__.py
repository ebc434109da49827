"""Expressions users write in triggers, keys and waits: the Inngest dialect of CEL, compiled once, run in microseconds.

Text goes through four small rooms: `parse` (grammar and static limits) gives a tree (`tree`), `evaluate` turns the
tree into Python closures, which use `values` (what a missing field, a comparison, a `+` mean here) and `functions`.
`binding` prepares the expression of a wait: the event's side fixed, an index key taken out.

The dialect differs from CEL where users rely on it (protocol section 22): a field that is not there is an ordinary
value, not an error; operands of `&&`, `||` and `?:` are judged as in JavaScript; `+` joins anything.
Nothing a user writes may raise anything but the two errors below or run for long: text, tree and loops are limited
before the first evaluation, and every evaluation has a budget of steps.
"""

from app.domain.expressions.binding import BoundWait, IndexKey, bind_event, index_value
from app.domain.expressions.errors import ExpressionFailed, ExpressionRefused
from app.domain.expressions.evaluate import Expression, compile_expression
from app.domain.expressions.values import key_text

__all__ = [
    "BoundWait",
    "Expression",
    "ExpressionFailed",
    "ExpressionRefused",
    "IndexKey",
    "bind_event",
    "compile_expression",
    "index_value",
    "key_text",
]
