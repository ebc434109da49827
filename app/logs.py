"""Structured log lines: how they look, what is hidden in them, and that one event is always one line.

Called once by each composition root. Everything else calls `structlog.get_logger()`.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

import structlog

HIDDEN = "[hidden]"
"""Stands for a value that must not be in a log."""

OURS = ("app", "workers")
"""The roots of our own loggers."""

_SECRET_NAME = re.compile(
    r"(?i)(^|_|-)(password|passwd|secret|secret_key|token|authorization|cookie|signature|event_key|signing_key|api_key)$"
)
_SECRET_IN_TEXT = (
    (re.compile(r"(?i)\b((?:postgres(?:ql)?|rediss?|amqp|https?)(?:\+\w+)?://[^\s:/@]*:)[^\s@/]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"\b(signkey-[a-z]+-)[0-9A-Za-z]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s\"',]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(/e/)[^\s/?\"']+"), rf"\1{HIDDEN}"),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_DEEPEST = 8
"""Levels of nesting that are looked into; deeper values are hidden as a whole, for who knows what is there."""


class LogSettings(Protocol):
    """The part of the settings that concerns log lines."""

    @property
    def log_format(self) -> str:
        """`json` or `console`."""

    @property
    def log_level(self) -> str:
        """`debug`, `info`, `warning` or `error`."""

    @property
    def worker_name(self) -> str | None:
        """Put on every line of a worker."""


def configure(settings: LogSettings) -> None:
    """Set up logging for this process, for `structlog` and for `logging` with `extra` alike.

    Our own loggers speak from the level of the settings on, those of other libraries from warnings on.
    """
    is_json = settings.log_format == "json"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    last: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if is_json
        else [escape_lines, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    if settings.worker_name is not None:
        structlog.contextvars.bind_contextvars(worker=settings.worker_name)


def about(**ids: str) -> None:
    """Put ids on every line that the present task, and whom it starts, writes from now on."""
    structlog.contextvars.bind_contextvars(**ids)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide secrets by the name of their field and by their look in texts; a structlog processor."""
    return {key: HIDDEN if _SECRET_NAME.search(key) else _shown(value, 0) for key, value in event.items()}


def escape_lines(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters as escapes, so that no value can pretend to be a line of its own.

    Tracebacks are ours and stay readable; JSON escapes by itself.
    """
    return {
        key: _CONTROL.sub(_escaped, value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
    }


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


def _shown(value: Any, depth: int) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        for look, replacement in _SECRET_IN_TEXT:
            value = look.sub(replacement, value)
        return value
    if depth >= _DEEPEST and isinstance(value, Mapping | list | tuple | set | frozenset):
        return HIDDEN
    if isinstance(value, Mapping):
        return {k: HIDDEN if _SECRET_NAME.search(str(k)) else _shown(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item, depth + 1) for item in value]
    return value
