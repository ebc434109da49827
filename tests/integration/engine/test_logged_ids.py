"""Whoever reads a line of the log can find the run, the tenant and the worker it is about."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from app.domain.ids import to_ulid
from app.logs import OURS, configure
from tests.integration.engine.world import World, result


@dataclass(frozen=True)
class Wanted:
    log_format: str = "json"
    log_level: str = "debug"
    worker_name: str | None = "worker-7"


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    for name in OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_lines_about_a_run_name_it_its_environment_and_the_worker(
    world: World, logging_as_before: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(Wanted())

    def answer(call: Any) -> Any:
        logging.getLogger("app.engine").info("while it is called")
        if call.number == 0:
            raise RuntimeError("a bug of ours")
        return result()

    await world.function("order", answer)
    await world.engine(forgotten_s=0.0)
    run_id = await world.begin("order")
    await world.ended(run_id)
    about = {
        "run_id": to_ulid(run_id),
        "environment_id": str(world.mine.environment_id),
        "worker": "worker-7",
    }
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for event in ("while it is called", "driver failed; its item will be given back"):
        line = next(line for line in lines if line["event"] == event)
        assert about.items() <= line.items()
