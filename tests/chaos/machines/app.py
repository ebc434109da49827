"""The app of the two-machines test: slow steps with results nobody can guess, and a ledger of everything that was asked of it.

    python -m tests.chaos.machines.app --host H --port P --ledger FILE

Every line of the ledger is one JSON object; times are seconds since 1970, `by` is the address that called.

    k      more                              meaning
    began  run step by gen token sent at     the execution of a step began; `sent` is when the server signed the call, in whole
                                             seconds; `token` is the result it will have
    ended  token at                          its answer was written
    told   run steps by at                   a call came that knows these results: {step: token}
    done   run tokens                        the function returned
"""

import argparse
import asyncio
import secrets
import time
from typing import Any

from aiohttp import web

from tests.chaos.storm.app import Ledger
from tests.chaos.storm.programs import step_key

SDK = {"x-inngest-sdk": "machines:v0.1.0", "x-inngest-req-version": "2"}
APP, FUNCTION, EVENT = "machines", "walk", "machines/walk"
STEPS = ("pick", "weigh", "rest", "pack", "ship")
"""The steps of the one function, one after the other; `rest` sleeps."""
_STEP_S, _REST = 0.25, "1s"
#: Retries of a step: connections that break at a cut are counted attempts, and none may fail for that.
_TRIES = 20


def registration(url: str) -> dict[str, Any]:
    """What an SDK posts to `/fn/register` (protocol 7.1)."""
    call = {"type": "http", "url": f"{url}?fnId={APP}-{FUNCTION}&stepId=step"}
    step = {"id": "step", "name": "step", "runtime": call, "retries": {"attempts": _TRIES}}
    walk = {"id": f"{APP}-{FUNCTION}", "name": FUNCTION, "triggers": [{"event": EVENT}], "steps": {"step": step}}
    app = {"appName": APP, "framework": "machines", "sdk": SDK["x-inngest-sdk"], "v": "0.1", "deployType": "ping"}
    return {**app, "url": url, "functions": [walk]}


class App:
    """Answers calls."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def look(self, _request: web.Request) -> web.Response:
        """Say that we are there."""
        return web.json_response({"ok": True})

    async def call(self, request: web.Request) -> web.Response:
        """Run the next step that is not known yet, or return."""
        call = await request.json()
        run, steps, by = call["ctx"]["run_id"], call["steps"], request.remote
        known = {key: memo["data"]["token"] for key, memo in steps.items() if memo}
        self._ledger.tell("told", run=run, steps=known, by=by, at=time.time())
        for name in STEPS:
            key = step_key(name)
            if key in steps:
                continue
            op = {"id": key, "name": name, "displayName": name}
            if name == "rest":
                return _ops(op | {"op": "Sleep", "name": _REST, "opts": {}})
            token = secrets.token_hex(8)
            sent = float(request.headers["x-inngest-signature"].partition("&")[0].removeprefix("t="))
            gen = call["ctx"]["generation_id"]
            self._ledger.tell("began", run=run, step=key, by=by, gen=gen, token=token, sent=sent, at=time.time())
            await asyncio.sleep(_STEP_S)
            self._ledger.tell("ended", token=token, at=time.time())
            return _ops(op | {"op": "StepRun", "opts": {"type": "step.run"}, "data": {"token": token}})
        tokens = [known.get(step_key(name), "") for name in STEPS]
        self._ledger.tell("done", run=run, tokens=tokens)
        return web.json_response(tokens, headers=SDK)


def _ops(op: dict[str, Any]) -> web.Response:
    return web.json_response([op], status=206, headers=SDK)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    for name in ("--host", "--port", "--ledger"):
        parser.add_argument(name, required=True)
    wanted = parser.parse_args()
    app = App(Ledger(wanted.ledger))
    site = web.Application()
    site.router.add_get("/", app.look)
    site.router.add_post("/api/inngest", app.call)
    # A caller that hangs up does not end a step that runs.
    web.run_app(site, host=wanted.host, port=int(wanted.port), print=lambda *_: None, access_log=None)


if __name__ == "__main__":
    main()
