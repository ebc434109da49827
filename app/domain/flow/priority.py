"""Priority: a run's first item stands as if it had been queued so many seconds earlier (protocol 21.2)."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.domain.expressions import ExpressionFailed, ExpressionRefused, compile_expression
from app.domain.limits import MAX_PRIORITY_SECONDS


def head_start(expression: str, event: Mapping[str, Any]) -> timedelta:
    """How far ahead of its time the run stands; negative: behind. Failures and values that are no integer are 0."""
    try:
        value = compile_expression(expression).evaluate({"event": event})
    except (ExpressionFailed, ExpressionRefused):
        return timedelta()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return timedelta()
    return timedelta(seconds=max(-MAX_PRIORITY_SECONDS, min(MAX_PRIORITY_SECONDS, value)))
