"""The app under the bench: speaks the protocol, does no work, and notes the time of every call.

A raw asyncio server, so that what is measured is the other side. Its functions are in `bench.functions`. An answer follows
from the count of `steps` in the call alone. Times are nanoseconds of the system's monotonic clock, which all processes of
one machine share.

Started by `bench.run` as a process of its own: `python -m bench.app --server URL [--signing-key KEY] [--name NAME]`; prints
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
from collections import deque
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs

import httptools
import msgspec
import uvloop

from bench.functions import (
    DONE,
    FUNCTIONS,
    PLANNED,
    RAN,
    RUN_COMPLETE,
    SDK,
    SLEEPS,
    STEP_OF,
    Kind,
    op,
    ops_response,
    response,
    step_id,
)
from bench.load import Address, Connection

#: What TypeScript v4 answers when its dispatch was stale (protocol 17.2).
_STALE = response(
    "400 Bad Request\r\nx-inngest-no-retry: true", b'{"name":"StaleDispatchError","message":"stale dispatch"}'
)
#: Runs whose times are kept; later ones are only counted.
_KEPT = 200_000


class _Context(msgspec.Struct):
    run_id: str
    disable_immediate_execution: bool = False
    fn_id: str = ""
    qi_id: str = ""
    generation_id: int = 0


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


class App:
    """What happened since the last reset, and what to answer next. `server` and `bearer` are where checkpoints go."""

    def __init__(self, name: str = "bench", server: str = "", bearer: str = "") -> None:
        self.name = name
        self.decoder = msgspec.json.Decoder(_Call)
        self.url = ""
        self.register_soon: asyncio.Event = asyncio.Event()
        self.waiters: list[tuple[str, int, Connected]] = []
        self.checkpointing: set[asyncio.Task[None]] = set()
        self._server = server
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
        self._free: deque[Connection] = deque()
        self.reset()

    def reset(self) -> None:
        self.runs: dict[str, _Run] = {}
        self.counts = {fn: {"calls": 0, "steps": 0, "done": 0} for fn in FUNCTIONS}

    def answer(self, fn: str, target: str, body: bytes, received: int) -> bytes | tuple[_Run, _Call]:
        """The answer to one call, its time noted; or what `checkpoint` needs to answer it in a while."""
        call = self.decoder.decode(body)
        self.counts[fn]["calls"] += 1
        run = self.runs.get(call.ctx.run_id)
        if run is None:
            run = _Run(call.event.data.tag, fn)
            if len(self.runs) < _KEPT:
                self.runs[call.ctx.run_id] = run
        run.times.append(received)
        if FUNCTIONS[fn].kind is Kind.CHECKPOINTED and len(call.steps) < FUNCTIONS[fn].steps:
            return run, call
        raw = self._raw(fn, target, call)
        run.times.append(time.monotonic_ns())
        if raw is DONE:
            self._note_end(run)
        return raw

    def _raw(self, fn: str, target: str, call: _Call) -> bytes:
        shape, done = FUNCTIONS[fn], len(call.steps)
        if shape.kind is Kind.SLEEP and done == 0:
            return SLEEPS
        if target in STEP_OF:
            self.counts[fn]["steps"] += 1
            return RAN[STEP_OF[target]]
        if done >= shape.steps:
            return DONE
        if shape.kind is Kind.PARALLEL:
            return ops_response(*(op(n, "StepPlanned") for n in range(shape.steps) if step_id(n) not in call.steps))
        if call.ctx.disable_immediate_execution:
            return PLANNED[done]
        self.counts[fn]["steps"] += 1
        return RAN[done]

    async def checkpoint(self, fn: str, run: _Run, call: _Call) -> bytes:
        """Run all steps that are left within this call, save each, and end. Gives what is left over when a save fails."""
        path = f"/v1/checkpoint/{call.ctx.run_id}/async"
        known = {"run_id": call.ctx.run_id, "fn_id": call.ctx.fn_id, "qi_id": call.ctx.qi_id}
        if call.ctx.generation_id:
            known["generation_id"] = call.ctx.generation_id  # type: ignore[assignment]  # the one number among them
        connection = self._free.pop() if self._free else Connection(Address.of(self._server))
        n = 0
        try:
            for n in range(len(call.steps), FUNCTIONS[fn].steps):
                self.counts[fn]["steps"] += 1
                saved = json.dumps({**known, "steps": [op(n, "StepRun")], "ts": time.time_ns() // 1_000_000})
                run.times.append(time.monotonic_ns())
                status, _ = await connection.request("POST", path, saved.encode(), self._headers, within_s=30)
                run.times.append(time.monotonic_ns())
                if status == 409:
                    return _STALE
                if status // 100 != 2:
                    return RAN[n]
        except (OSError, TimeoutError):
            return RAN[n]
        finally:
            self._free.append(connection)
        run.times.append(time.monotonic_ns())
        self._note_end(run)
        return RUN_COMPLETE

    def _note_end(self, run: _Run) -> None:
        run.ends += 1
        if run.ends == 1:
            self.counts[run.fn]["done"] += 1
            self.tell_waiters()

    def tell_waiters(self) -> None:
        if not self.waiters:
            return
        told = [waiter for waiter in self.waiters if self.counts[waiter[0]]["done"] >= waiter[1]]
        for waiter in told:
            self.waiters.remove(waiter)
            waiter[2].reply(response("200 OK", msgspec.json.encode(self.counts), is_sdk=False))

    def registration(self) -> bytes:
        """What the SDKs post to `/fn/register` (protocol 7.1)."""
        functions = [
            {
                "id": f"{self.name}-{fn}",
                "name": fn,
                "triggers": [{"event": f"bench/{fn}"}],
                "steps": {
                    "step": {
                        "id": "step",
                        "name": "step",
                        "runtime": {"type": "http", "url": f"{self.url}?fnId={self.name}-{fn}&stepId=step"},
                        "retries": {"attempts": 4},
                    }
                },
            }
            for fn in FUNCTIONS
        ]
        return json.dumps(
            {
                "url": self.url,
                "appName": self.name,
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
        fn = asked.get("fnId", "").removeprefix(f"{self.app.name}-")
        if path.startswith("/bench/"):
            self.control(path.removeprefix("/bench/"), asked)
        elif method == b"POST" and fn in FUNCTIONS:
            self.called(fn, asked.get("stepId", "step"), body)
        elif method == b"PUT":
            self.app.register_soon.set()
            self.reply(response("200 OK", b'{"message":"Successfully registered","modified":true}'))
        elif method == b"GET":
            shown = json.dumps({"function_count": len(FUNCTIONS), "mode": "dev", "schema_version": "2024-05-24"})
            self.reply(response("200 OK", shown.encode()))
        else:
            self.reply(response("404 Not Found", b'{"message":"no such function"}'))

    def called(self, fn: str, target: str, body: bytes) -> None:
        try:
            answer = self.app.answer(fn, target, body, self.received)
        except msgspec.MsgspecError as error:
            text = json.dumps({"name": "BadCall", "message": str(error)}).encode()
            self.reply(response("500 Internal Server Error", text))
            return
        if isinstance(answer, bytes):
            self.reply(answer)
            return
        task = asyncio.create_task(self.answer_later(fn, *answer))
        self.app.checkpointing.add(task)
        task.add_done_callback(self.app.checkpointing.discard)

    async def answer_later(self, fn: str, run: _Run, call: _Call) -> None:
        self.reply(await self.app.checkpoint(fn, run, call))

    def control(self, what: str, asked: dict[str, str]) -> None:
        if what == "wait":
            self.app.waiters.append((asked["fn"], int(asked["done"]), self))
            self.app.tell_waiters()
            return
        if what == "reset":
            self.app.reset()
        told = list(self.app.runs.values()) if what == "report" else self.app.counts
        self.reply(response("200 OK", msgspec.json.encode(told), is_sdk=False))

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


async def _serve(host: str, port: int, server: str, signing_key: str, name: str) -> None:
    app = App(name, server, bearer_of(signing_key) if signing_key else "")
    listener = await asyncio.get_running_loop().create_server(lambda: Connected(app), host, port)
    app.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}/api/inngest"
    await _register(app, server, signing_key)
    print(app.url, flush=True)
    while True:
        await app.register_soon.wait()
        app.register_soon.clear()
        await _register(app, server, signing_key)


def main() -> None:
    """Read the command line and serve until terminated."""
    words = argparse.ArgumentParser(prog="bench.app", description="The app under the bench.")
    words.add_argument("--host", default="127.0.0.1")
    words.add_argument("--port", type=int, default=0)
    words.add_argument("--server", required=True, help="address of the server to register with")
    words.add_argument("--signing-key", default="", help="signed mode: proves the app to the API")
    words.add_argument("--name", default="bench", help="the app's id: two tenants have one each")
    given = words.parse_args()
    try:
        uvloop.run(_serve(given.host, given.port, given.server, given.signing_key, given.name))
    except RuntimeError as refused:
        sys.exit(str(refused))


if __name__ == "__main__":
    main()
