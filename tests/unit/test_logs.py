"""Log lines: secrets hidden, one event one line."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from app.logs import HIDDEN, OURS, configure, escape_lines, redact


def redacted(**event: Any) -> dict[str, Any]:
    return dict(redact(None, "info", dict(event)))


@pytest.mark.parametrize(
    "name",
    ["password", "signing_key", "event_key", "Authorization", "cookie", "api_key", "session_token", "secret_key"],
)
def test_a_field_with_the_name_of_a_secret_is_hidden_at_any_depth(name: str) -> None:
    assert redacted(**{name: "hunter2"})[name] == HIDDEN
    assert redacted(request={"headers": [{name: "hunter2"}]})["request"]["headers"][0][name] == HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "connect postgresql://owner:hunter2@db.example/x failed",
        "redis://:hunter2@cache:6379/0",
        "key signkey-prod-0123hunter2 refused",
        "Authorization: Bearer hunter2",
        "POST /e/hunter2?x=1",
    ],
)
def test_a_secret_inside_a_text_is_hidden(text: str) -> None:
    shown = redacted(event=text)["event"]

    assert "hunter2" not in shown
    assert HIDDEN in shown


def test_ordinary_fields_stay_as_they_are() -> None:
    assert redacted(event="run finished", run_id="01J", tokens=3, keyboard="a") == {
        "event": "run finished",
        "run_id": "01J",
        "tokens": 3,
        "keyboard": "a",
    }


def test_a_value_cannot_pretend_to_be_a_line_of_its_own() -> None:
    shown = escape_lines(None, "info", {"name": "a\r\nlevel=error forged\u2028x\x1b[2J"})["name"]

    assert shown == "a\\r\\nlevel=error forged\\u2028x\\x1b[2J"


@dataclass(frozen=True)
class Wanted:
    log_format: str
    log_level: str = "info"
    worker_name: str | None = None


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    for name in OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_lines_of_both_kinds_of_logger_are_json_with_time_level_and_worker(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Wanted("json", worker_name="worker-1"))
    structlog.get_logger().info("run\nfinished", password="hunter2")
    structlog.get_logger().debug("not shown")
    logging.getLogger("app.engine").info("run\nfinished", extra={"password": "hunter2"})
    logging.getLogger("app.engine").debug("not shown")
    logging.getLogger("asyncio").info("not shown either")

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert line.pop("at").endswith("Z")
        assert line == {"event": "run\nfinished", "level": "info", "worker": "worker-1", "password": HIDDEN}


def test_an_exception_of_any_logger_is_written_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Wanted("json"))
    try:
        raise ValueError("no such run")
    except ValueError:
        logging.getLogger("workers").exception("failed")

    assert "ValueError: no such run" in json.loads(capsys.readouterr().out)["exception"]


def test_console_lines_are_single_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Wanted("console"))
    logging.getLogger("app").warning("first\nforged", extra={"name_of_app": "a\r\nb"})

    assert len(capsys.readouterr().out.splitlines()) == 1
