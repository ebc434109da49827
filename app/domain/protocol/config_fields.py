"""The fields of one registered function, and what is reported about them.

Reading goes on after a problem, so that a developer sees all of them at once; that is why a field that is wrong is
reported and reads as not set.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from app.domain.durations import parse_duration
from app.domain.errors import DurationRefused
from app.domain.limits import MAX_EXPRESSION_BYTES, MAX_TRIGGER_NAME_CHARS, PlanLimits

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: A pattern ends in `*`, and only right after a separator (protocol 21.1).
_PATTERN = re.compile(r"[^*]*[^*/.][/.]\*|[^*]+")

#: `check(cron)` and `check(expression, has_async)` give a sentence when the text does not compile, else None.
CronCheck = Callable[[str], str | None]
ExpressionCheck = Callable[[str, bool], str | None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong (or, as a warning, without effect) in one field of one function."""

    function: str
    field: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Checks:
    """Judges that live elsewhere (cron, expressions, the plan); each may be left out."""

    cron: CronCheck | None = None
    expression: ExpressionCheck | None = None
    plan: PlanLimits | None = None


@dataclass(slots=True)
class Findings:
    """What reading brought up, over all functions of a registration."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


class Fields:
    """One function's settings by lower-case name, with readers for the parts that settings are made of."""

    def __init__(self, value: dict[str, Any], app_url: str, checks: Checks, findings: Findings) -> None:
        self.value = value
        self.fields = lower(value)
        self.app_url = app_url
        self.checks = checks
        self.findings = findings
        slug = self.fields.get("id")
        self.slug = slug if isinstance(slug, str) else ""

    def wrong(self, where: str, message: str, code: str = "config_invalid") -> None:
        """Report what makes the registration fail."""
        self.findings.problems.append(Problem(self.slug, where, code, message))

    def warn(self, where: str, message: str, code: str = "no_effect") -> None:
        """Report what has no effect, or another one than it seems."""
        self.findings.warnings.append(Problem(self.slug, where, code, message))

    def section(self, name: str) -> dict[str, Any]:
        """The setting's own fields with lower-case keys; empty when it is not set."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, dict):
            self.wrong(name, f"{name} is an object.")
        return lower(value) if isinstance(value, dict) else {}

    def items(self, name: str) -> list[Any]:
        """The elements of a setting that is a list; none when it is not set."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, list):
            self.wrong(name, f"{name} is a list.")
        return value if isinstance(value, list) else []

    def count(self, where: str, value: object, *, default: int) -> int:
        """A whole number from 0 up; `default` when it is not set or was reported."""
        if value is None:
            return default
        if type(value) is not int or value < 0:
            self.wrong(where, f"{where} is a whole number, not negative.")
            return default
        return value

    def period(
        self,
        where: str,
        value: object,
        least: timedelta | None = None,
        most: timedelta | None = None,
        *,
        code: str = "config_invalid",
        is_needed: bool = False,
        go_units: bool = False,
    ) -> timedelta | None:
        """A length of time within bounds; None when it is not set or was reported."""
        if value is None or value == "":
            if is_needed:
                self.wrong(where, f"{where} is missing.", code)
            return None
        try:
            length = parse_duration(value if isinstance(value, str) else repr(value), go_units=go_units)
        except DurationRefused as refused:
            self.wrong(where, refused.message, code)
            return None
        if (least is not None and length < least) or (most is not None and length > most) or length < timedelta():
            bounds = f" from {least} to {most}" if least is not None and most is not None else " that is not negative"
            self.wrong(where, f"{where} must be a time{bounds}.", code)
            return None
        return length

    def expression(
        self, where: str, value: object, *, code: str = "expression_invalid", has_async: bool = False
    ) -> str | None:
        """An expression that compiles; None when it is not set (`""` means the same) or was reported."""
        if value is None or value == "":
            return None
        if not isinstance(value, str) or "\x00" in value:
            self.wrong(where, f"{where} is an expression, as text.", code)
            return None
        if len(value.encode()) > MAX_EXPRESSION_BYTES:
            self.wrong(where, f"An expression may have {MAX_EXPRESSION_BYTES} bytes.", "expression_too_costly")
            return None
        complaint = self.checks.expression(value, has_async) if self.checks.expression else None
        if complaint:
            self.wrong(where, complaint, code)
        return value

    def is_pattern(self, value: object) -> bool:
        """Whether a trigger may listen to this name or pattern."""
        return (
            isinstance(value, str)
            and 0 < len(value) <= MAX_TRIGGER_NAME_CHARS
            and CONTROL.search(value) is None
            and _PATTERN.fullmatch(value) is not None
        )


def lower(value: Mapping[str, Any]) -> dict[str, Any]:
    """Keys in lower case: go writes some with a capital letter, py others without any."""
    return {key.lower(): item for key, item in value.items()}


def as_object(value: object) -> dict[str, Any]:
    """The value's fields in lower case; empty when it is no object."""
    return lower(value) if isinstance(value, dict) else {}


def clean(value: object) -> str | None:
    """A text that can be stored: Postgres takes no NUL."""
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else None
