"""Whole runs recorded with real SDKs drive the machine: it must make the same calls in the same order.

`simulated-runs.json` lists each call with its answer, shortened: names of ops, no payloads. Timers, waits and invokes
are answered at once and items are taken first in, first out, as in the recording.
"""

import ast
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from app.domain.protocol.opcodes import Op, OpCode
from app.domain.protocol.reply import Failed, Finished, Ops, Reply
from app.domain.run.happenings import Fetched, Replied, Resumed, TimerDue
from app.domain.run.state import CALLS, SETTLED, Item, ItemKind, RunStatus
from tests.unit.domain.run.scene import ERROR, Scene, enqueued, ran

_RUNS = json.loads((Path(__file__).parents[3] / "vectors" / "simulated-runs.json").read_text())["apps"]
_CASES = [(app, name) for app, runs in _RUNS.items() for name in runs]
_LINE = re.compile(r"(?P<target>\w+) a(?P<attempt>\d) -> (?P<status>\d+) (?P<body>.*)", re.DOTALL)
_RESULTS = {OpCode.STEP_RUN: b'{"data":1}', OpCode.STEP_ERROR: b'{"error":' + ERROR + b"}"}
_RESULTS[OpCode.STEP_FAILED] = _RESULTS[OpCode.STEP_ERROR]


@dataclass
class Recording:
    """One recorded run, being played to a scene."""

    app: str
    run: dict[str, Any]
    scene: Scene
    queue: list[str]

    @property
    def version(self) -> int | None:
        version: int = self.run["request_version"]
        return None if version == -1 else version

    def next_call(self) -> Item:
        """The next call item, after the timers before it have come due."""
        while True:
            item = self.scene.run.items[self.queue.pop(0)]
            if item.kind in CALLS:
                return item
            self.settle(item)

    def settle(self, item: Item) -> None:
        is_sleep = item.kind is ItemKind.SLEEP
        if item.kind is ItemKind.GATEWAY:
            self.follow(Fetched(item.key, b'{"data":1}'))
            return
        self.follow(TimerDue(item.key) if is_sleep else Resumed(item.step_key or "", b'{"data":1}'))

    def follow(self, happening: Fetched | Replied | TimerDue | Resumed) -> None:
        self.scene.happen(happening)
        self.queue = [key for key in self.queue if key in self.scene.run.items]
        self.queue += [key for key in self.scene.run.items if key not in self.queue]

    def op(self, label: str, at: int, item: Item) -> Op:
        """An op by its name, with the id its SDK would have sent (protocol 4.6)."""
        code, name = label.split(":", 1)
        if item.kind is ItemKind.STEP and item.step_key is not None:
            step_id = item.step_key
        else:
            step_id = self.new_id(f"op {at}" if name == "None" else name)
        soon = timedelta(seconds=1)
        memo = _RESULTS.get(OpCode(code))
        opts = b'{"url":"http://x.test"}'
        return Op(
            OpCode(code), step_id, name, None, memo, None, None, soon, "x", None, "s", None, "f", b"1", raw_opts=opts
        )

    def new_id(self, name: str) -> str:
        for use in range(100):
            step_id = sha1((f"{name}:{use}" if use else name).encode()).hexdigest()
            step = self.scene.run.steps.get(step_id)
            if step is None or step.state not in SETTLED:
                return step_id
        raise AssertionError("a recorded function has no step used a hundred times")

    def reply(self, status: str, body: str, item: Item, is_last: bool) -> Reply:
        if status == "206":
            labels = ast.literal_eval(body)
            ops = tuple(self.op(label, at, item) for at, label in enumerate(labels))
            return Ops(ops, self.version)
        sdk = "go:v0.15.1" if self.app.startswith("go") else ""
        if status == "200":
            return Finished(b'"done"', sdk)
        return Failed(ERROR, "app_error", no_retry=True if is_last else None, sdk=sdk)


@pytest.mark.parametrize(("app", "name"), _CASES)
def test_a_recorded_run_makes_the_same_calls(app: str, name: str) -> None:
    recorded = _RUNS[app][name]
    scene = Scene()
    play = Recording(app, recorded, scene, ["start"])
    lines = recorded["exchange"]
    if recorded["checkpointed_requests"]:
        scene.checkpoint("start", ran("checkpointed"))
    for at, line in enumerate(lines):
        if line.startswith("dedupe"):
            continue
        match = _LINE.match(line)
        assert match is not None, line
        item = play.next_call()
        _check_call(item, match, is_named="None" not in str(lines))
        before = len(scene.run.items)
        reply = play.reply(match["status"], match["body"], item, is_last=at == len(lines) - 1)
        play.follow(Replied(item.key, reply))
        if at + 1 < len(lines) and lines[at + 1].startswith("dedupe"):
            assert len(scene.run.items) == before - 1
    expected = RunStatus.COMPLETED if recorded["result"][0] == "ok" else RunStatus.FAILED
    assert scene.run.status is expected
    assert scene.run.request_version == recorded["request_version"]
    assert enqueued(scene.happen(TimerDue("start"))) == []


def _check_call(item: Item, match: re.Match[str], *, is_named: bool) -> None:
    assert item.attempt == int(match["attempt"])
    if match["target"] == "step":
        assert item.kind is ItemKind.DISCOVER
    else:
        assert item.kind is ItemKind.STEP
        if is_named:
            assert (item.step_key or "").startswith(match["target"])
