"""The shop's memory of what it did to the outside world: one JSON line per side effect, kept on disk.

Real shops have warehouses, banks and mail servers that remember. Here this file does, so that anyone can check afterwards
that every charge happened exactly once, whatever was killed in the meantime.

A line: `{"time": "2026-01-02T03:04:05.678Z", "order_id": "…", "step": "charge-payment", "outcome": "done", "attempt": 2}`,
and for charges `charge_id`. `outcome` is `done`, `refused` (the bank was busy) or `repeated` (asked again for a charge it
had already made). `attempt` is the server's count for this step, from 0.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DEFAULT_PATH = ".stepwell/shop/effects.jsonl"


def path() -> Path:
    """Where the lines are kept: `SHOP_LOG`, or a folder git ignores."""
    return Path(os.environ.get("SHOP_LOG") or DEFAULT_PATH)


def record(order_id: str, step: str, outcome: str = "done", **details: Any) -> None:
    """Append one line and return only when it is on the disk."""
    with locked() as file:
        append(file, order_id, step, outcome, **details)


@contextmanager
def locked() -> Iterator[int]:
    """Open the file for this process alone, as a descriptor, to read and append in one go."""
    place = path()
    place.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def append(file: int, order_id: str, step: str, outcome: str, **details: Any) -> None:
    """Append one line to an open file."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": time, "order_id": order_id, "step": step, "outcome": outcome, **details}
    os.write(file, (json.dumps(line) + "\n").encode())
    os.fsync(file)


def lines(order_id: str) -> list[dict[str, Any]]:
    """Everything that was done for an order, oldest first. A line cut off by a power failure is passed over."""
    try:
        text = path().read_text()
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("order_id") == order_id:
            found.append(entry)
    return found
