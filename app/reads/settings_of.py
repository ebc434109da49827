"""A function's settings as a page tells them: every option, its value, whether that is the default, and what it is for.

Pure. The values are read by `domain/protocol/function_config.py`; here they only get words. Expressions come as pieces
with a kind each, so that a template can colour them without knowing the language.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from app.domain.cron import CronRefused, read_cron
from app.domain.errors import Refused
from app.domain.limits import DEFAULT_CONCURRENCY, DEFAULT_RETRIES
from app.domain.protocol.function_config import FunctionConfig, read_stored
from app.domain.settings import Concurrency, Trigger

#: Due times told of a cron.
_NEXT_TIMES = 3
_PIECES = re.compile(
    r"""(?P<s>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<n>\b\d[\w.]*)|(?P<b>\b(?:true|false|null|in)\b)"""
    r"""|(?P<k>\b(?:event|async|output|steps)(?:\.[A-Za-z_]\w*)*)|(?P<x>[&|=!<>?:+*/%-]+)|(?P<o>[^"'\w&|=!<>?:+*/%-]+|.)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an expression. `kind`: s text, n number, b word, k path, x operator, o anything else."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One line. `value` is for people; `expression` is set when the value is, or has, one."""

    name: str
    value: str
    is_default: bool
    help: str
    expression: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class TriggerLine:
    """What starts the function: an event name (or pattern) with a condition, or a cron with the `next` times it is due."""

    kind: str
    text: str
    condition: tuple[Piece, ...] = ()
    jitter: str = ""
    next: tuple[datetime, ...] = ()


def read_config(raw: str) -> FunctionConfig | None:
    """The stored settings; None when they cannot be read (nothing a page should fail for)."""
    try:
        return read_stored(raw.encode())
    except (Refused, ValueError):
        return None


def pieces(expression: str | None) -> tuple[Piece, ...]:
    """An expression cut into pieces that together are the same text."""
    if not expression:
        return ()
    return tuple(Piece(match.lastgroup or "o", match[0]) for match in _PIECES.finditer(expression))


def triggers_of(config: FunctionConfig | None, now: datetime | None = None) -> tuple[TriggerLine, ...]:
    """What starts the function, in its own order; nothing for one that can only be invoked.

    With `now`, crons tell when they are due next; without it they are not asked (paused functions, lists).
    """
    return tuple(_trigger(trigger, now) for trigger in config.triggers) if config is not None else ()


def settings_of(config: FunctionConfig) -> tuple[Setting, ...]:
    """Every option there is, in the order of their effect: retries first, then what limits, then what ends a run."""
    return tuple(_settings(config))


def span(length: timedelta | datetime | None) -> str:
    """A length of time in words, the way it is written in code: `10 s`, `1 h 30 min`, `2 d`."""
    if length is None:
        return ""
    if isinstance(length, datetime):
        return f"until {length:%d %b %Y, %H:%M} UTC"
    left = round(length.total_seconds() * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _settings(c: FunctionConfig) -> Iterator[Setting]:
    yield Setting(
        "Retries",
        f"{c.retries} after the first attempt",
        c.retries == DEFAULT_RETRIES,
        "How often a step is tried again before the run fails.",
    )
    yield _concurrency(c)
    if c.run_concurrency is not None:
        yield Setting("Runs at once", _limit(c.run_concurrency), False, "How many whole runs may be active.", pieces(c.run_concurrency.key))  # fmt: skip
    else:
        yield Setting("Runs at once", "no limit", True, "How many whole runs may be active.")
    throttle = c.throttle
    yield Setting(
        "Throttle",
        f"{throttle.limit} starts per {span(throttle.period)}" + (f", {throttle.burst} more at once" if throttle.burst else "")
        if throttle
        else "none",
        throttle is None,
        "Spreads starts over time; what is too much waits.",
        pieces(throttle.key) if throttle else (),
    )  # fmt: skip
    rate = c.rate_limit if c.idempotency is None else None
    yield Setting(
        "Rate limit",
        f"{rate.limit} runs per {span(rate.period)}" if rate else "none",
        rate is None,
        "Events above the limit start no run.",
        pieces(rate.key) if rate else (),
    )
    yield Setting(
        "Idempotency",
        "once in 24 h per value" if c.idempotency else "by event ID only",
        c.idempotency is None,
        "Events with the same value start one run a day.",
        pieces(c.idempotency),
    )
    debounce = c.debounce
    yield Setting(
        "Debounce",
        f"{span(debounce.period)} of quiet" + (f", at most {span(debounce.timeout)}" if debounce.timeout else "")
        if debounce
        else "none",
        debounce is None,
        "Starts only when no further event came for a while.",
        pieces(debounce.key) if debounce else (),
    )
    batch = c.batch
    yield Setting(
        "Batching",
        f"up to {batch.max_size} events within {span(batch.timeout)}" if batch else "none",
        batch is None,
        "One run takes many events.",
        pieces(batch.key) if batch else (),
    )
    if batch is not None and batch.condition:
        yield Setting(
            "Batch condition",
            "",
            is_default=False,
            help="Events for which it is false run alone.",
            expression=pieces(batch.condition),
        )
    yield Setting(
        "Priority",
        "" if c.priority else "none",
        c.priority is None,
        "Seconds by which a run goes ahead of others that wait.",
        pieces(c.priority),
    )
    yield Setting(
        "Singleton",
        {"skip": "a new run is skipped", "cancel": "a new run cancels the old one"}[c.singleton.mode]
        if c.singleton
        else "none",
        c.singleton is None,
        "At most one active run.",
        pieces(c.singleton.key) if c.singleton else (),
    )
    yield Setting(
        "Start timeout",
        span(c.timeouts.start) or "none",
        c.timeouts.start is None,
        "A run that waits longer to start is cancelled.",
    )
    yield Setting(
        "Finish timeout",
        span(c.timeouts.finish) or "none",
        c.timeouts.finish is None,
        "A run that takes longer is cancelled.",
    )
    if not c.cancel:
        yield Setting("Cancel on", "none", is_default=True, help="Events that cancel a run.")
    for rule in c.cancel:
        how_long = span(rule.timeout)
        yield Setting(
            "Cancel on",
            f"{rule.event}, {how_long if how_long.startswith('until') else 'within ' + how_long}",
            is_default=False,
            help="Events that cancel a run.",
            expression=pieces(rule.expression),
        )


def _concurrency(c: FunctionConfig) -> Setting:
    text = "How many steps may run at the same time."
    if not c.concurrency:
        return Setting("Concurrency", f"{DEFAULT_CONCURRENCY:,}", is_default=True, help=text)
    keyed = next((rule.key for rule in c.concurrency if rule.key), None)
    return Setting("Concurrency", "; ".join(_limit(rule) for rule in c.concurrency), False, text, pieces(keyed))


def _limit(rule: Concurrency) -> str:
    over = {"fn": "", "env": " over the environment", "account": " over the organization"}[rule.scope]
    return f"{rule.limit:,}" + (" for each value" if rule.key else "") + over


def _trigger(trigger: Trigger, now: datetime | None) -> TriggerLine:
    if trigger.cron is None:
        return TriggerLine("event", trigger.event or "", pieces(trigger.expression))
    return TriggerLine("cron", trigger.cron, jitter=span(trigger.jitter), next=_due(trigger.cron, now))


def _due(cron: str, now: datetime | None) -> tuple[datetime, ...]:
    if now is None:
        return ()
    try:
        return tuple(islice(read_cron(cron).due_times(now), _NEXT_TIMES))
    except CronRefused:
        return ()
