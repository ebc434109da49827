"""The app under Stepwell: interprets the program in the event of a run, misbehaves by dice, and writes down what it did.

    python -m tests.chaos.storm.app --port P --server URL --event-key K --signing-key S --ledger FILE --seed N

It serves the SDK protocol by hand, so that nothing between the wire and the ledger repairs anything. Every line of the
ledger is one JSON object, written with a single append, so that a kill -9 cannot tear it; times are seconds since 1970.

    k      more                                          meaning
    exec   run step item attempt gen sent at             a step was executed; `sent` is when the server signed the call
    slept  run step s at · woke run step at              a sleep was reported · its end was seen for the first time here
    sent   cid id                                        an event of a step was acknowledged
    odd    run what                                      something arrived that never may
    did    what                                          a rare path or a misbehaviour, to be counted
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import time
from base64 import b64encode
from typing import Any

import aiohttp
from aiohttp import web

from tests.chaos.storm.interpreter import walk
from tests.chaos.storm.programs import FOREVER_S, Node, Program, nodes_of, step_key

SDK = {"x-inngest-sdk": "storm:v0.1.0", "x-inngest-req-version": "2"}
SIMPLE: Program = [{"k": "run", "id": "run-1", "fails": 0, "dies": False, "ms": 0}]
"""What a run does whose event carries no program: ticks of schedules, batches."""
BROKEN: Program = [{"k": "run", "id": "run-1", "fails": 99, "dies": False, "ms": 0}]
"""A program that fails however often it is tried."""
CALM_SICKNESS = 0.04
"""Share of calls that are maltreated when nobody asks for more."""
BEFORE = ("hang", "garbage", "html", "busy", "reset")
AFTER = ("late", "lost", "torn")
_HANG_S = 5.0
"""Longer than the call timeout the yard sets."""


def digest(value: Any) -> str:
    """A name for a JSON value that does not tell 1 from 1.0, as the wire does not (I5)."""
    return hashlib.sha256(json.dumps(_doubles(value), sort_keys=True).encode()).hexdigest()[:16]


def _doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _doubles(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_doubles(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Ledger:
    """Appends lines to a file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def tell(self, kind: str, **more: Any) -> None:
        """Write one line."""
        os.write(self._file, (json.dumps({"k": kind, **more}) + "\n").encode())


class App:
    """Answers calls."""

    def __init__(self, server: str, event_key: str, signing_key: str, ledger: Ledger, seed: int) -> None:
        self.server = server
        self.event_key = event_key
        self.bearer = {"authorization": f"Bearer {signing_key}"}
        self.ledger = ledger
        self.dice = random.Random(seed)
        self.sickness, self.sick_until = CALM_SICKNESS, 0.0
        self.woken: set[tuple[str, str]] = set()
        self.session: aiohttp.ClientSession | None = None

    @property
    def http(self) -> aiohttp.ClientSession:
        """The client, made inside the loop."""
        if self.session is None:
            self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=4.0))
        return self.session

    async def look(self, _request: web.Request) -> web.Response:
        """Say that we are there."""
        return web.json_response({"ok": True})

    async def sicken(self, request: web.Request) -> web.Response:
        """Be sick for a while: `p` share of calls, `s` seconds."""
        self.sickness = float(request.query["p"])
        self.sick_until = time.monotonic() + float(request.query["s"])
        return web.json_response({})

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        raw = await request.read()
        share = self.sickness if time.monotonic() < self.sick_until else CALM_SICKNESS
        way = self.dice.choice(BEFORE + AFTER) if self.dice.random() < share else ""
        if way in BEFORE:
            self.ledger.tell("did", what=f"app {way}")
            return await self._maltreat(request, way)
        answer = await self._answer(request, json.loads(raw))
        if way:
            self.ledger.tell("did", what=f"app {way}")
            return await self._maltreat(request, way, answer)
        return answer

    async def _maltreat(self, request: web.Request, way: str, answer: web.Response | None = None) -> web.StreamResponse:
        if way in ("hang", "late"):
            await asyncio.sleep(_HANG_S)
            return answer or web.json_response([], status=206, headers=SDK)
        if way == "garbage":
            return web.Response(body=b'[{"op":"StepRun","id":', status=206, headers=SDK)
        if way == "html":
            return web.Response(text="<html>It works!</html>", content_type="text/html")
        if way == "busy":
            return web.Response(status=503, headers={"retry-after": "1"})
        if way == "torn" and answer is not None:
            torn = web.StreamResponse(status=answer.status, headers=SDK | {"content-length": "100000"})
            await torn.prepare(request)
            await torn.write(b"[{")
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _answer(self, request: web.Request, call: dict[str, Any]) -> web.Response:
        run = call["ctx"]["run_id"]
        data = call["event"]["data"]
        if "x" in data and digest(data["x"]) != data["h"]:
            self.ledger.tell("odd", run=run, what="I5: the event's data changed")
        program: Program = data.get("program", SIMPLE)
        sent = _signed_at(request)
        self._notice(run, program, call["steps"])
        target = request.query.get("stepId", "step")
        if target != "step":
            node = next((n for n in nodes_of(program) if step_key(n["id"]) == target), None)
            if node is None:
                return web.json_response({"message": "no such step"}, status=500, headers=SDK)
            if target in call["steps"]:
                self.ledger.tell("odd", run=run, what=f"I7: called for {node['id']}, which it knows is done")
            return _ops([await self._execute(node, call, sent, call["ctx"]["attempt"])])
        if call["ctx"]["fn_id"] and request.query.get("fnId", "").endswith("-saving"):
            return await self._save_as_we_go(program, call, sent)
        walked = walk(program, call["steps"], call["ctx"]["stack"]["stack"] or [])
        if walked.is_done:
            return web.json_response(walked.values, headers=SDK)
        if len(walked.open) == 1 and not call["ctx"]["disable_immediate_execution"] and not walked.open[0][1]:
            return _ops([await self._execute(walked.open[0][0], call, sent, call["ctx"]["attempt"])])
        return _ops([self._planned(node, run, is_race=race) for node, race in walked.open])

    async def _save_as_we_go(self, program: Program, call: dict[str, Any], sent: float) -> web.Response:
        """Execute steps one after the other in this call, each saved over the API (protocol 17)."""
        ctx = call["ctx"]
        steps, order = dict(call["steps"]), list(ctx["stack"]["stack"] or [])
        attempt = ctx["attempt"]
        while True:
            walked = walk(program, steps, order)
            if walked.is_done:
                done = {"op": "RunComplete", "id": step_key("complete"), "name": "complete", "data": walked.values}
                return _ops([done])
            node, is_race = walked.open[0]
            alone = len(walked.open) == 1 and not is_race and not ctx["disable_immediate_execution"]
            if not alone or node["k"] not in ("run", "event"):
                return _ops([self._planned(node, ctx["run_id"], is_race=race) for node, race in walked.open])
            op = await self._execute(node, call, sent, attempt)
            if op["op"] != "StepRun":
                return _ops([op])
            saved = await self._save(ctx, op)
            if saved == 409:
                self.ledger.tell("did", what="checkpoint refused as stale")
                error = {"name": "StaleDispatchError", "message": "another call has taken over"}
                return web.json_response(error, status=400, headers=SDK | {"x-inngest-no-retry": "true"})
            if saved != 200:
                self.ledger.tell("did", what="checkpoint failed, steps answered")
                return _ops([op])
            self.ledger.tell("did", what="checkpoint saved")
            attempt = 0
            steps[op["id"]], order = {"data": op["data"]}, [*order, op["id"]]

    async def _save(self, ctx: dict[str, Any], op: dict[str, Any]) -> int:
        body = {"run_id": ctx["run_id"], "fn_id": ctx["fn_id"], "qi_id": ctx["qi_id"], "steps": [op]}
        body |= {"generation_id": ctx["generation_id"], "request_id": ctx["request_id"], "ts": int(time.time() * 1000)}
        url = f"{self.server}/v1/checkpoint/{ctx['run_id']}/async"
        for _ in range(2):
            try:
                async with self.http.post(url, json=body, headers=self.bearer) as answer:
                    if answer.status in (200, 409):
                        return answer.status
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.2)
        return 0

    async def _execute(self, node: Node, call: dict[str, Any], sent: float, attempt: int) -> dict[str, Any]:
        """Do a step that runs here, or report one that the server does."""
        ctx, kind = call["ctx"], node["k"]
        if kind not in ("run", "event"):
            return self._planned(node, ctx["run_id"], is_race=False)
        key = step_key(node["id"])
        base = {"id": key, "name": node["id"], "displayName": node["id"], "opts": {"type": "step.run"}}
        self.ledger.tell(
            "exec",
            run=ctx["run_id"],
            step=key,
            item=ctx["qi_id"],
            attempt=attempt,
            gen=ctx["generation_id"],
            sent=sent,
            at=time.time(),
        )
        if kind == "event":
            if not await self._send(node):
                return base | {"op": "StepError", "error": {"name": "SendFailed", "message": "not acknowledged"}}
            return base | {"op": "StepRun", "data": {"sent": node["event_id"]}}
        if node["ms"]:
            await asyncio.sleep(node["ms"] / 1000)
        error = {"name": "Scripted", "message": f"attempt {attempt}", "stack": ""}
        if node["dies"]:
            return base | {"op": "StepFailed", "error": error}
        if attempt < node["fails"]:
            self.ledger.tell("did", what="step retried by script")
            return base | {"op": "StepError", "error": error}
        return base | {"op": "StepRun", "data": {"ok": node["id"]}}

    async def _send(self, node: Node) -> bool:
        event = {"name": node["name"], "id": node["event_id"], "data": node["data"]}
        headers = {"x-inngest-event-id-seed": f"{time.time_ns() // 1_000_000},{b64encode(os.urandom(10)).decode()}"}
        for _ in range(3):
            try:
                url = f"{self.server}/e/{self.event_key}"
                async with self.http.post(url, json=[event], headers=headers) as answer:
                    if answer.status == 200:
                        self.ledger.tell("sent", cid=node["event_id"], id=(await answer.json())["ids"][0])
                        return True
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.2)
        return False

    def _planned(self, node: Node, run: str, *, is_race: bool) -> dict[str, Any]:
        """The op that reports a step without doing it."""
        mode = {"parallelMode": "race"} if is_race else {}
        opts: dict[str, Any]
        op: dict[str, Any] = {"id": step_key(node["id"]), "name": node["id"], "displayName": node["id"]}
        match node["k"]:
            case "sleep":
                self.ledger.tell("slept", run=run, step=op["id"], s=node["s"], at=time.time())
                return op | {"op": "Sleep", "name": f"{node['s']}s", "opts": mode}
            case "wait":
                opts = {
                    "event": "storm/answer",
                    "timeout": f"{node['s']:.0f}s",
                    "if": f'async.data.key == "{node["key"]}"',
                }
                return op | {"op": "WaitForEvent", "name": "storm/answer", "opts": opts | mode}
            case "signal":
                opts = {"signal": node["name"], "timeout": f"{FOREVER_S:.0f}s"}
                return op | {"op": "WaitForSignal", "name": node["name"], "opts": opts | mode}
            case "invoke":
                opts = {"function_id": node["fn"], "payload": {"data": {"program": node["program"]}}}
                return op | {"op": "InvokeFunction", "opts": opts | mode}
        return op | {"op": "StepPlanned", "opts": {"type": "step.run", **mode}}

    def _notice(self, run: str, program: Program, steps: dict[str, Any]) -> None:
        for node in nodes_of(program):
            pair = (run, step_key(node["id"]))
            if node["k"] == "sleep" and pair[1] in steps and pair not in self.woken:
                self.woken.add(pair)
                self.ledger.tell("woke", run=run, step=pair[1], at=time.time())


def _ops(ops: list[dict[str, Any]]) -> web.Response:
    return web.json_response(ops, status=206, headers=SDK)


def _signed_at(request: web.Request) -> float:
    """When the server signed this call, to the second; a clock set wrong by an hour on purpose is set right."""
    stamp = request.headers.get("x-inngest-signature", "t=0&s=").partition("&")[0].removeprefix("t=")
    wrong_by = float(stamp) - time.time()
    return float(stamp) - round(wrong_by / 3600) * 3600


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    for name in ("--port", "--server", "--event-key", "--signing-key", "--ledger", "--seed"):
        parser.add_argument(name, required=True)
    wanted = parser.parse_args()
    ledger = Ledger(wanted.ledger)
    app = App(wanted.server, wanted.event_key, wanted.signing_key, ledger, int(wanted.seed))
    site = web.Application(client_max_size=32 * 1024 * 1024)
    site.router.add_get("/", app.look)
    site.router.add_post("/sick", app.sicken)
    site.router.add_post("/api/inngest", app.call)
    web.run_app(site, host="127.0.0.1", port=int(wanted.port), print=lambda *_: None, access_log=None)


if __name__ == "__main__":
    main()
