"""Singleton: one run at a time per key; the newcomer is skipped, or takes the place of the run that is there."""

from collections.abc import Mapping
from typing import Any

from app.domain.flow.keys import key_or_bypass
from app.domain.settings import Singleton, SingletonMode


def key_of_singleton(rule: Singleton, event: Mapping[str, Any]) -> str | None:
    """The key; None when the rule does not apply to this event."""
    return key_or_bypass(rule.key, event)


def skips_newcomer(rule: Singleton) -> bool:
    """Whether the run that is there stays and the newcomer is skipped."""
    return rule.mode is SingletonMode.SKIP
