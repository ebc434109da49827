"""The shop of shop_flask.py with Stepwell's own SDK: an order is charged and packed, and fails for want of an address."""

from pathlib import Path

import stepwell

COURIER = ""

client = stepwell.Client("my-app")


async def note(step: str) -> None:
    with Path(__file__).with_name("ledger.txt").open("a") as ledger:
        ledger.write(f"{step}\n")


async def ship() -> str:
    await note("ship")
    if not COURIER:
        raise RuntimeError("The courier has no address")
    return COURIER


@client.function(id="order", trigger=stepwell.Event("shop/order"), retries=0)
async def order(_ctx: stepwell.Context, step: stepwell.Step) -> dict[str, str]:
    await step.run("charge-card", note, "charge-card")
    await step.run("pack", note, "pack")
    return {"to": await step.run("ship", ship)}


@client.function(id="nap", trigger=stepwell.Event("shop/nap"))
async def nap(_ctx: stepwell.Context, step: stepwell.Step) -> None:
    await step.run("lie-down", note, "lie-down")
    await step.sleep("sleep", "1h")
    await step.run("get-up", note, "get-up")


app = stepwell.serve.asgi(client)
