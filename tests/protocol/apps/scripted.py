"""What the Python apps of the matrix share: the catalogue, the ledger, and the values of scripts. Nothing of any SDK.

Reads `SCRIPTED` (the catalogue's path), `SCRIPTED_LEDGER`, `SCRIPTED_APP` (the app's id) and `PORT`.
"""

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds between two looks of a step that is held.
LOOK_S = 0.05
APP_ID = os.environ["SCRIPTED_APP"]
PORT = int(os.environ["PORT"])
STREAMING_PATH = "/api/streaming"
_LEDGER = os.open(os.environ["SCRIPTED_LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
_ORDER = itertools.count()
_TRIED: Counter[tuple[str, str]] = Counter()


def catalogue() -> list[dict[str, Any]]:
    """The functions this app declares."""
    functions: list[dict[str, Any]] = json.loads(Path(os.environ["SCRIPTED"]).read_text(encoding="utf-8"))
    return functions


class ScriptedError(Exception):
    """What a script fails with; the shells turn the other kinds into their SDK's own errors."""

    def __init__(self, fails: Mapping[str, Any]) -> None:
        super().__init__(fails["message"])
        self.kind: str = fails["kind"]
        self.after_s: int = fails.get("after_s", 1)


@dataclass
class Frame:
    """One execution of a function: whose, and what its steps gave so far."""

    function_id: str
    run_id: str
    attempt: int
    event: dict[str, Any]
    events: list[dict[str, Any]]
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Whose line it is: the `key` of the event's data, or of the event that a failure or a cancel is about."""
        data = self.event.get("data") or {}
        if "key" not in data and isinstance(data.get("event"), dict):
            data = data["event"].get("data") or {}
        return str(data.get("key", self.function_id))

    def record(self, what: str, at: str, value: Any = None, attempt: int | None = None) -> None:
        """Write one line to the ledger."""
        line = {
            "key": self.key,
            "function": self.function_id,
            "what": what,
            "at": at,
            "value": value,
            "attempt": self.attempt if attempt is None else attempt,
            "run": self.run_id,
            "ms": time.time_ns() // 1_000_000,
            "order": next(_ORDER),
        }
        os.write(_LEDGER, (json.dumps(line) + "\n").encode())

    def may_fail(self, what: str, fails: Mapping[str, Any] | None) -> None:
        """Raise ScriptedError as long as it was not tried often enough."""
        if fails is None:
            return
        _TRIED[self.run_id, what] += 1
        if _TRIED[self.run_id, what] <= fails["times"]:
            raise ScriptedError(fails)

    def start(self, op: Mapping[str, Any], attempt: int | None = None) -> Any:
        """Do what the handler of a `run` does first; gives the step's output."""
        self.record(op["id"], "step", attempt=attempt)
        self.may_fail(op["id"], op.get("fails"))
        return "x" * op["size"] if "size" in op else self.resolve(op["gives"])

    def is_held(self, op: Mapping[str, Any]) -> bool:
        """Whether the file that ends a step is not there yet; false for a step that waits for none."""
        path = self.resolve(op["until"]) if "until" in op else None
        return path is not None and not Path(path).exists()

    def resolve(self, value: Any) -> Any:
        """A script's value with what steps gave and what the event holds put in."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        match value:
            case {"$var": str(name)}:
                return self.kept.get(name)
            case {"$event": str(path)}:
                found: Any = self.event
                for part in path.split(".") if path else []:
                    found = found.get(part) if isinstance(found, dict) else None
                return found
            case {"$events": str(name)}:
                return [event["data"].get(name) for event in self.events]
            case {"$run_id": _}:
                return self.run_id
            case {"$length": str(name)}:
                return len(self.kept[name])
            case {"$null": _}:
                return None
        return {name: self.resolve(item) for name, item in value.items()}


class Door:
    """How the app's own web server answers calls to some functions before the SDK sees them."""

    def __init__(self, functions: list[dict[str, Any]]) -> None:
        self._left = {
            f"{APP_ID}-{function['id']}": dict(function["door"]) for function in functions if function["door"]
        }

    def answers(self, function_id: str | None) -> int | None:
        """The status to answer a call with, None to let it through."""
        door = self._left.get(function_id or "")
        if door is None or door["times"] <= 0:
            return None
        door["times"] -= 1
        return int(door["status"])
