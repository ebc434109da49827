"""The app under the bench: speaks the protocol, does no work, and notes the time of every call.

A raw asyncio server, so that what is measured is the other side. Functions: `bench-1`, `bench-3` and `bench-10` have
that many steps one after the other; `bench-par10` has ten at once. An answer follows from the count of `steps` in the
call alone. Times are nanoseconds of the system's monotonic clock, which all processes of one machine share.

Started by `bench.run` as a process of its own: `python -m bench.app --port 0 --server URL [--signing-key KEY]`; prints
one line with its address when it is registered. Besides the endpoint at `/api/inngest` it answers

- `GET /bench/counts`: calls, steps and ended runs by function since the last reset;
- `GET /bench/wait?fn=F&done=N`: the same, once N runs of F have ended (the asker brings the deadline);
- `GET /bench/report`: one row per run, `{"tag", "fn", "times": [received, answered, …], "ends"}`;
- `POST /bench/reset`: forget everything.
"""

# ruff: noqa: D102 - asyncio and httptools name the callbacks; the rest is said by their classes

import argparse
import asyncio
import hashlib
import json
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs

import httptools
import msgspec
import uvloop

from bench.load import Address, Connection

#: Function → how many steps, and whether they are planned together.
FUNCTIONS: dict[str, tuple[int, bool]] = {
    "bench-1": (1, False),
    "bench-3": (3, False),
    "bench-10": (10, False),
    "bench-par10": (10, True),
}
APP_NAME = "bench"
SDK = "bench:v0.1.0"
#: Runs whose times are kept; later ones are only counted.
_KEPT = 200_000


class _Context(msgspec.Struct):
    run_id: str
    disable_immediate_execution: bool = False


class _EventData(msgspec.Struct):
    tag: str = ""


class _Event(msgspec.Struct):
    data: _EventData


class _Call(msgspec.Struct):
    ctx: _Context
    event: _Event
    steps: dict[str, msgspec.Raw]


@dataclass(slots=True)
class _Run:
    tag: str
    fn: str
    times: list[int] = field(default_factory=list)
    ends: int = 0


def step_id(n: int) -> str:
    """The hashed id of the n-th step (protocol 4.6)."""
    return hashlib.sha1(f"s{n}".encode(), usedforsecurity=False).hexdigest()


def _op(n: int, code: str) -> dict[str, Any]:
    name = f"s{n}"
    op = {"op": code, "id": step_id(n), "name": name, "displayName": name, "opts": {"type": "step.run"}}
    return {**op, "userland": {"id": name}, **({"data": {"n": n, "ok": True}} if code == "StepRun" else {})}


def _response(status: str, body: bytes, *, is_sdk: bool = True) -> bytes:
    sdk = f"x-inngest-sdk: {SDK}\r\nx-inngest-req-version: 2\r\n" if is_sdk else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{sdk}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _ops(*ops: dict[str, Any]) -> bytes:
    return _response("206 Partial Content", json.dumps(ops, separators=(",", ":")).encode())


_MOST = max(count for count, _ in FUNCTIONS.values())
_RAN = [_ops(_op(n, "StepRun")) for n in range(_MOST)]
_PLANNED = [_ops(_op(n, "StepPlanned")) for n in range(_MOST)]
_STEP_OF = {step_id(n): n for n in range(_MOST)}
_DONE = _response("200 OK", b'{"done":true}')


class App:
    """What happened since the last reset, and what to answer next."""

    def __init__(self) -> None:
        self.decoder = msgspec.json.Decoder(_Call)
        self.url = ""
        self.register_soon: asyncio.Event = asyncio.Event()
        self.waiters: list[tuple[str, int, Connected]] = []
        self.reset()

    def reset(self) -> None:
        self.runs: dict[str, _Run] = {}
        self.counts = {fn: {"calls": 0, "steps": 0, "done": 0} for fn in FUNCTIONS}

    def answer(self, fn: str, target: str, body: bytes, received: int) -> bytes:
        """The answer to one call; its time is noted when it is complete."""
        call = self.decoder.decode(body)
        count = self.counts[fn]
        count["calls"] += 1
        run = self.runs.get(call.ctx.run_id)
        if run is None:
            run = _Run(call.event.data.tag, fn)
            if len(self.runs) < _KEPT:
                self.runs[call.ctx.run_id] = run
        steps, is_parallel = FUNCTIONS[fn]
        done = len(call.steps)
        if target in _STEP_OF:
            count["steps"] += 1
            raw = _RAN[_STEP_OF[target]]
        elif done >= steps:
            raw = _DONE
            run.ends += 1
            if run.ends == 1:
                count["done"] += 1
        elif is_parallel:
            raw = _ops(*(_op(n, "StepPlanned") for n in range(steps) if step_id(n) not in call.steps))
        elif call.ctx.disable_immediate_execution:
            raw = _PLANNED[done]
        else:
            count["steps"] += 1
            raw = _RAN[done]
        run.times += (received, time.monotonic_ns())
        if raw is _DONE and self.waiters:
            self.tell_waiters()
        return raw

    def tell_waiters(self) -> None:
        told = [waiter for waiter in self.waiters if self.counts[waiter[0]]["done"] >= waiter[1]]
        for waiter in told:
            self.waiters.remove(waiter)
            waiter[2].reply(_response("200 OK", msgspec.json.encode(self.counts), is_sdk=False))

    def registration(self) -> bytes:
        """What the SDKs post to `/fn/register` (protocol 7.1)."""
        functions = [
            {
                "id": f"{APP_NAME}-{fn}",
                "name": fn,
                "triggers": [{"event": f"bench/{fn}"}],
                "steps": {
                    "step": {
                        "id": "step",
                        "name": "step",
                        "runtime": {"type": "http", "url": f"{self.url}?fnId={APP_NAME}-{fn}&stepId=step"},
                        "retries": {"attempts": 4},
                    }
                },
            }
            for fn in FUNCTIONS
        ]
        return json.dumps(
            {
                "url": self.url,
                "appName": APP_NAME,
                "deployType": "ping",
                "framework": "bench",
                "sdk": SDK,
                "v": "0.1",
                "functions": functions,
            }
        ).encode()


class Connected(asyncio.Protocol):
    """One connection: requests in, answers out, in order."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body: list[bytes] = []
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received = time.monotonic_ns()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.app.waiters = [waiter for waiter in self.app.waiters if waiter[2] is not self]

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self.url.decode("latin-1").partition("?")
        body = b"".join(self.body)
        self.url, self.body = b"", []
        asked = {key: values[0] for key, values in parse_qs(query).items()}
        method = self.parser.get_method()
        fn = asked.get("fnId", "").removeprefix(f"{APP_NAME}-")
        if path.startswith("/bench/"):
            self.control(path.removeprefix("/bench/"), asked)
        elif method == b"POST" and fn in FUNCTIONS:
            try:
                self.reply(self.app.answer(fn, asked.get("stepId", "step"), body, self.received))
            except msgspec.MsgspecError as error:
                text = json.dumps({"name": "BadCall", "message": str(error)}).encode()
                self.reply(_response("500 Internal Server Error", text))
        elif method == b"PUT":
            self.app.register_soon.set()
            self.reply(_response("200 OK", b'{"message":"Successfully registered","modified":true}'))
        elif method == b"GET":
            shown = json.dumps({"function_count": len(FUNCTIONS), "mode": "dev", "schema_version": "2024-05-24"})
            self.reply(_response("200 OK", shown.encode()))
        else:
            self.reply(_response("404 Not Found", b'{"message":"no such function"}'))

    def control(self, what: str, asked: dict[str, str]) -> None:
        if what == "wait":
            self.app.waiters.append((asked["fn"], int(asked["done"]), self))
            self.app.tell_waiters()
            return
        if what == "reset":
            self.app.reset()
        told = list(self.app.runs.values()) if what == "report" else self.app.counts
        self.reply(_response("200 OK", msgspec.json.encode(told), is_sdk=False))

    def reply(self, raw: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(raw)


def bearer_of(signing_key: str) -> str:
    """The token that proves a signing key to the API (protocol 4.5), prefix kept."""
    prefix = re.match(r"signkey-\w+-", signing_key)
    start = prefix.end() if prefix else 0
    return signing_key[:start] + hashlib.sha256(bytes.fromhex(signing_key[start:])).hexdigest()


async def _register(app: App, server: str, signing_key: str, *, attempts: int = 60) -> None:
    """Post the functions until the server takes them; raises RuntimeError with its last words if it does not."""
    headers = {"x-inngest-sdk": SDK, "content-type": "application/json"}
    if signing_key:
        headers["authorization"] = f"Bearer {bearer_of(signing_key)}"
    last = ""
    for _ in range(attempts):
        connection = Connection(Address.of(server))
        try:
            status, body = await connection.request("POST", "/fn/register", app.registration(), headers, within_s=10)
            if status == 200:
                return
            last = f"{status} {body[:300].decode(errors='replace')}"
        except (OSError, TimeoutError) as error:
            last = type(error).__name__
        finally:
            connection.close()
        await asyncio.sleep(0.5)
    raise RuntimeError(f"the server did not take the registration: {last}")


async def _serve(port: int, server: str, signing_key: str) -> None:
    app = App()
    listener = await asyncio.get_running_loop().create_server(lambda: Connected(app), "127.0.0.1", port)
    app.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/api/inngest"
    await _register(app, server, signing_key)
    print(app.url, flush=True)
    while True:
        await app.register_soon.wait()
        app.register_soon.clear()
        await _register(app, server, signing_key)


def main() -> None:
    """Read the command line and serve until terminated."""
    words = argparse.ArgumentParser(prog="bench.app", description="The app under the bench.")
    words.add_argument("--port", type=int, default=0)
    words.add_argument("--server", required=True, help="address of the server to register with")
    words.add_argument("--signing-key", default="", help="signed mode: proves the app to the API")
    given = words.parse_args()
    try:
        uvloop.run(_serve(given.port, given.server, given.signing_key))
    except RuntimeError as refused:
        sys.exit(str(refused))


if __name__ == "__main__":
    main()
