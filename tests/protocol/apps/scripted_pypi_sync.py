"""The matrix's app for the PyPI package `inngest`, synchronous, on Flask with a thread for each request."""

import datetime as dt
import logging
import time
from typing import Any

import flask
import inngest
import inngest.flask
from werkzeug.serving import make_server

from tests.protocol.apps import scripted
from tests.protocol.apps import scripted_pypi_options as pypi


def execute(script: list[dict[str, Any]], ctx: inngest.ContextSync, frame: scripted.Frame) -> Any:
    """Execute a script with the SDK's steps; gives what its last operation gave, or what `give` says."""
    last: Any = None
    for op in script:
        if op["op"] == "give":
            return frame.resolve(op.get("value"))
        last = _one(op, ctx, frame)
        frame.kept[op.get("keep") or op.get("id", "")] = last
    return last


def _one(op: dict[str, Any], ctx: inngest.ContextSync, frame: scripted.Frame) -> Any:
    step = ctx.step
    match op["op"]:
        case "run":

            def handler() -> Any:
                try:
                    output = frame.start(op)
                except scripted.ScriptedError as error:
                    raise pypi.own_error(error) from None
                if "takes_ms" in op:
                    time.sleep(op["takes_ms"] / 1000)
                while frame.is_held(op):
                    time.sleep(scripted.LOOK_S)
                if "takes_ms" in op or "until" in op:
                    frame.record(op["id"], "end")
                return output

            return step.run(op["id"], handler)
        case "sleep":
            return step.sleep(op["id"], dt.timedelta(milliseconds=op["ms"]))
        case "sleep_until":
            return step.sleep_until(op["id"], pypi.moment(op["ms"]))
        case "wait":
            found = step.wait_for_event(
                op["id"], event=op["event"], if_exp=op.get("if"), timeout=dt.timedelta(milliseconds=op["ms"])
            )
            return None if found is None else dict(found.data)
        case "invoke":
            return step.invoke_by_id(
                op["id"],
                app_id=op["app"],
                function_id=op["function"],
                data=frame.resolve(op["value"]),
                timeout=dt.timedelta(milliseconds=op["ms"]) if "ms" in op else None,
            )
        case "send":
            return step.send_event(op["id"], [pypi.event(frame.resolve(one)) for one in op["events"]])
        case "infer":
            return step.ai.infer(op["id"], adapter=pypi.adapter(op), body=op["body"])
        case "parallel":
            branches = tuple(lambda branch=branch: execute(branch, ctx, frame) for branch in op["branches"])
            return list(ctx.group.parallel(branches))
        case "attempt":
            try:
                execute(op["script"], ctx, frame)
            except Exception as error:  # noqa: BLE001 - user code that catches everything is the case
                return pypi.caught(error)
            return None
        case "note":
            frame.record(op["what"], "note", frame.resolve(op.get("value")))
        case "throw":
            try:
                frame.may_fail("", op["fails"])
            except scripted.ScriptedError as error:
                raise pypi.own_error(error) from None
        case "log":
            ctx.logger.info(op["message"])
        case other:
            raise ValueError(f"no operation {other}")
    return None


def declare(client: inngest.Inngest, function: dict[str, Any]) -> inngest.Function[Any]:
    """Declare a function of the catalogue."""

    def on_failure(ctx: inngest.ContextSync) -> Any:
        return execute(function["on_failure"], ctx, pypi.frame(ctx, function))

    @client.create_function(
        fn_id=function["id"],
        trigger=pypi.triggers(function),
        on_failure=on_failure if function["on_failure"] is not None else None,
        **pypi.options(function["options"]),
    )
    def scripted_function(ctx: inngest.ContextSync) -> Any:
        return execute(function["script"], ctx, pypi.frame(ctx, function))

    return scripted_function


FUNCTIONS = scripted.catalogue()
client = pypi.client()
door = scripted.Door(FUNCTIONS)
app = flask.Flask(__name__)


@app.before_request
def at_the_door() -> Any:
    """Answer some calls before the SDK."""
    status = door.answers(flask.request.args.get("fnId"))
    return None if status is None else ("not now", status)


inngest.flask.serve(app, client, [declare(client, one) for one in FUNCTIONS if one["kind"] == "function"])


@app.post("/send")
def send() -> Any:
    """Send events."""
    return {"ids": client.send_sync([pypi.event(one) for one in flask.request.get_json()])}, 202


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    make_server("127.0.0.1", scripted.PORT, app, threaded=True).serve_forever()
