"""The functions of the bench app and the bytes of their answers, made once.

`bench-1`, `bench-3` and `bench-10` have that many steps one after the other, one call each; `bench-par10` has ten at once;
`bench-cp10` runs ten within one call and saves each with a checkpoint, as TypeScript v4 does by default (protocol 17);
`bench-probe` has one step and is sent while others queue; `bench-sleep` sleeps for a month.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

SDK = "bench:v0.1.0"


class Kind(Enum):
    """How a function's steps come about."""

    SEQUENCE = "one call per step"
    PARALLEL = "planned together"
    CHECKPOINTED = "within one call, each saved with a checkpoint"
    SLEEP = "one long sleep"


@dataclass(frozen=True, slots=True)
class Shape:
    """How many steps a function has, and of which kind."""

    steps: int
    kind: Kind = Kind.SEQUENCE


FUNCTIONS: dict[str, Shape] = {
    "bench-1": Shape(1),
    "bench-3": Shape(3),
    "bench-10": Shape(10),
    "bench-par10": Shape(10, Kind.PARALLEL),
    "bench-cp10": Shape(10, Kind.CHECKPOINTED),
    "bench-probe": Shape(1),
    "bench-sleep": Shape(1, Kind.SLEEP),
}
#: Functions of the app with the npm SDK.
NPM_FUNCTIONS = {"npm-cp10": Shape(10, Kind.CHECKPOINTED)}
#: What the idle part sends, in this order.
IDLE = ("bench-1", "bench-3", "bench-10", "bench-par10", "bench-cp10")
MOST_STEPS = max(shape.steps for shape in FUNCTIONS.values())


def step_id(n: int) -> str:
    """The hashed id of the n-th step (protocol 4.6)."""
    return hashlib.sha1(f"s{n}".encode(), usedforsecurity=False).hexdigest()


def op(n: int, code: str) -> dict[str, Any]:
    """One op of an answer (protocol 12)."""
    name = f"s{n}"
    named = {"op": code, "id": step_id(n), "name": name, "displayName": name, "opts": {"type": "step.run"}}
    return {**named, "userland": {"id": name}, **({"data": {"n": n, "ok": True}} if code == "StepRun" else {})}


def response(status: str, body: bytes, *, is_sdk: bool = True) -> bytes:
    """A whole HTTP answer."""
    sdk = f"x-inngest-sdk: {SDK}\r\nx-inngest-req-version: 2\r\n" if is_sdk else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{sdk}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ops_response(*ops: dict[str, Any]) -> bytes:
    """A 206 with ops."""
    return response("206 Partial Content", json.dumps(ops, separators=(",", ":")).encode())


RAN = [ops_response(op(n, "StepRun")) for n in range(MOST_STEPS)]
PLANNED = [ops_response(op(n, "StepPlanned")) for n in range(MOST_STEPS)]
STEP_OF = {step_id(n): n for n in range(MOST_STEPS)}
DONE = response("200 OK", b'{"done":true}')
RUN_COMPLETE = ops_response(
    {"op": "RunComplete", "id": hashlib.sha1(b"complete", usedforsecurity=False).hexdigest(), "data": {"done": True}}
)
SLEEPS = ops_response({**op(0, "Sleep"), "name": "720h", "opts": {"duration": "720h"}})
