"""A shop whose courier has no address: an order is charged and packed, and then fails. Every step that runs is a line.

A browser test writes this into a folder of its own, starts it, and mends it by giving `COURIER` a value.
"""

import datetime as dt
from pathlib import Path

import inngest
import inngest.flask
from flask import Flask

COURIER = ""

client = inngest.Inngest(app_id="my-app")


def note(step: str) -> None:
    with Path(__file__).with_name("ledger.txt").open("a") as ledger:
        ledger.write(f"{step}\n")


@client.create_function(fn_id="order", trigger=inngest.TriggerEvent(event="shop/order"), retries=0)
def order(ctx: inngest.ContextSync) -> dict[str, str]:
    def ship() -> str:
        note("ship")
        if not COURIER:
            raise RuntimeError("The courier has no address")
        return COURIER

    ctx.step.run("charge-card", lambda: note("charge-card"))
    ctx.step.run("pack", lambda: note("pack"))
    return {"to": ctx.step.run("ship", ship)}


@client.create_function(fn_id="nap", trigger=inngest.TriggerEvent(event="shop/nap"))
def nap(ctx: inngest.ContextSync) -> None:
    ctx.step.run("lie-down", lambda: note("lie-down"))
    ctx.step.sleep("sleep", dt.timedelta(hours=1))
    ctx.step.run("get-up", lambda: note("get-up"))


app = Flask(__name__)
inngest.flask.serve(app, client, [order, nap])
